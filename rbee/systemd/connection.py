"""The D-Bus connection to systemd: calls that are bounded, signals that are handed out.

pystemd's calls hold the interpreter's lock, so every call is bounded and waiting is done on the bus's
descriptor, never inside the library.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

from rbee.errors import TimedOut
from rbee.later import put_off
from rbee.scope import SYSTEM, Scope
from rbee.signals import ending_put_off
from rbee.systemd.errors import BUS_TIMEOUT, translated, uninterrupted

SYSTEMD = "org.freedesktop.systemd1"

POLKIT = "org.freedesktop.PolicyKit1"

UNIT = b"org.freedesktop.systemd1.Unit"
SERVICE = b"org.freedesktop.systemd1.Service"
SOCKET = b"org.freedesktop.systemd1.Socket"

LEAST_TIMEOUT = 0.1
"""Seconds that a call has at least: sd-bus takes 0 for its default."""

_CALL_TIMEOUT = "SYSTEMD_BUS_TIMEOUT"
_SYSTEMD = SYSTEMD.encode()
_MANAGER_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_STRING = ord("s")


class Connection:
    """Opened as a context; for one thread. Raises only our own errors (rbee.systemd.errors)."""

    def __init__(self, scope: Scope = SYSTEM, *, timeout: float = BUS_TIMEOUT) -> None:
        """`timeout` is the seconds that one call may take."""
        self.scope = scope
        self._timeout = timeout
        self._bus: Any = None
        self._callbacks: list[Any] = []

    def __enter__(self) -> Self:
        bus = _dbus_class()(user_mode=self.scope.kind == "user")
        with (
            _calls_bounded(max(self._timeout, LEAST_TIMEOUT)),
            translated(f"connecting to the {self.scope.kind} bus", self.scope),
        ):
            uninterrupted(bus.open)
        self._bus = bus
        try:
            self._await_greeting()
        except BaseException:
            bus.close()
            raise
        return self

    def _await_greeting(self) -> None:
        """Wait until the bus has given us a name; sd-bus itself would wait 90 s for a bus that hangs."""
        seconds = min(self._timeout, BUS_TIMEOUT)
        deadline = time.monotonic() + seconds
        with translated(f"connecting to the {self.scope.kind} bus", self.scope):
            # The first message for us is NameAcquired. The library waits here and not we on the
            # descriptor: it also knows what it has still to send, its Hello for instance.
            while self._bus.process().is_empty():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimedOut(
                        f"the {self.scope.kind} bus did not greet us within {seconds:g} s",
                        hint=self.scope.doctor,
                    )
                uninterrupted(partial(self._bus.wait, int(left * 1_000_000)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.close()

    # Signals

    def on_job_removed(self, on_removed: Callable[[str, str, str], None]) -> None:
        """Call `on_removed` with object path, unit and result of each job that ends, from within pump()."""

        def callback(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            _number, job, unit, result = message.body
            on_removed(job.decode(), unit.decode(), result.decode())

        self._match(_MANAGER_PATH, _MANAGER, b"JobRemoved", callback)

    def on_unit_changed(self, unit: str, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever a property of the unit changes, from within pump()."""

        def callback(message: Any, error: Any = None, userdata: Any = None) -> None:
            on_change()

        self._match(unit_path(unit), b"org.freedesktop.DBus.Properties", b"PropertiesChanged", callback)

    def _match(self, path: bytes, interface: bytes, member: bytes, callback: Any) -> None:
        with translated(f"listening to the {self.scope.kind} bus", self.scope, self._timeout):
            if not self._callbacks:
                self._call_manager(b"Subscribe", [])
            uninterrupted(
                lambda: self._bus.match_signal(_SYSTEMD, path, interface, member, callback), self._timeout
            )
        # The library keeps a bare pointer to the callback.
        self._callbacks.append(callback)

    def fileno(self) -> int:
        """The descriptor of the connection, for poll(2)."""
        return int(self._bus.get_fd())

    def pump(self) -> None:
        """Deliver every signal that has arrived; never waits."""
        with translated(f"listening to the {self.scope.kind} bus", self.scope):
            # process() does one step per call and does not report whether there is more: an empty
            # result may also be a step of its own (a write, a reply), so three in a row end it.
            empty = 0
            while empty < 3:
                empty = empty + 1 if self._bus.process().is_empty() else 0

    def wait(self, seconds: float) -> None:
        """Wait until a message arrives, at most `seconds`, and deliver it.

        A signal that came with a reply does not make the descriptor readable: to wait for a state, call
        this with a fraction of a second, repeatedly.
        """
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)
        self.pump()

    # Calls

    def call(self, method: bytes, *arguments: str, doing: str) -> Any:
        """The answer of a method of systemd's manager that takes strings; `doing` is for the error."""
        with translated(doing, self.scope, self._timeout):
            return self._call_manager(method, [(_STRING, argument.encode()) for argument in arguments])

    def manager_text(self, name: bytes, *, doing: str) -> str:
        """A property of systemd's manager."""
        with translated(doing, self.scope, self._timeout):
            value: bytes = uninterrupted(
                lambda: self._bus.get_property(_SYSTEMD, _MANAGER_PATH, _MANAGER, name, b"s"), self._timeout
            )
            return value.decode(errors="replace")

    def get(self, unit: str, interface: bytes, name: bytes, kind: bytes) -> Any:
        """A property of a unit; `kind` is its D-Bus signature."""
        with translated(f"asking for {unit}", self.scope, self._timeout):
            return uninterrupted(
                lambda: self._bus.get_property(_SYSTEMD, unit_path(unit), interface, name, kind),
                self._timeout,
            )

    def text(self, unit: str, interface: bytes, name: bytes) -> str:
        """A property of a unit that is a string."""
        value: bytes = self.get(unit, interface, name, b"s")
        return value.decode(errors="replace")

    def ping(self, name: str) -> None:
        """Ping the owner of a bus name, which is activated if it can be."""
        path = b"/" + name.replace(".", "/").encode()
        with translated(f"asking {name}", self.scope, self._timeout):
            uninterrupted(
                lambda: self._bus.call_method(name.encode(), path, b"org.freedesktop.DBus.Peer", b"Ping", []),
                self._timeout,
            )

    def ping_polkit(self) -> None:
        """As ping(), for polkit, by a property: its library's thread answers a ping even if polkit hangs."""
        with translated(f"asking {POLKIT}", self.scope, self._timeout):
            uninterrupted(
                lambda: self._bus.get_property(
                    POLKIT.encode(), b"/org/freedesktop/PolicyKit1/Authority",
                    b"org.freedesktop.PolicyKit1.Authority", b"BackendVersion", b"s",
                ),
                self._timeout,
            )  # fmt: skip

    def _call_manager(self, method: bytes, arguments: list[tuple[int, bytes]]) -> Any:
        return uninterrupted(
            lambda: self._bus.call_method(_SYSTEMD, _MANAGER_PATH, _MANAGER, method, arguments).body,
            self._timeout,
        )


@contextmanager
def _calls_bounded(seconds: float) -> Iterator[None]:
    """Bound each call of the connection that is opened within the context.

    sd-bus reads the variable at a connection's first call, which opening makes, and keeps it for the others:
    sd_bus_get_method_call_timeout(3). Of its own accord it gives a call 25 s. Programs that are started later
    must not take it over.
    """
    before = os.environ.get(_CALL_TIMEOUT)
    os.environ[_CALL_TIMEOUT] = f"{seconds:.3f}s"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CALL_TIMEOUT]
        else:
            os.environ[_CALL_TIMEOUT] = before


def unit_path(unit: str) -> bytes:
    """The object path of a unit, escaped as sd_bus_path_encode(3) does."""
    escaped = "".join(
        chr(c) if chr(c).isascii() and (chr(c).isalpha() or (number and chr(c).isdigit())) else f"_{c:02x}"
        for number, c in enumerate(unit.encode())
    )
    return b"/org/freedesktop/systemd1/unit/" + escaped.encode()


def _dbus_class() -> Any:
    """pystemd's connection to D-Bus, without the package around it.

    The package imports lxml, for an interface that we do not use, which would take every rbeectl and
    the queen 30 ms.
    """
    put_off(["pystemd"])
    # Cython drops a KeyboardInterrupt of its modules' initialization, and warns of another failure.
    with ending_put_off():
        from pystemd.dbuslib import DBus

    return DBus
