"""Translates errors of the bus into ours: no other room sees one of the library's."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rbee.errors import NotPermitted, RbeeError, Stopping, TimedOut, UnitFailed, Unreachable, with_packages
from rbee.scope import SYSTEM, Scope

Result = TypeVar("Result")

BUS_TIMEOUT = 3.0
"""Seconds that one D-Bus call of a daemon may take, as it blocks the event loop. The services'
TimeoutStopSec= and WatchdogSec= are longer."""

PERSON_TIMEOUT = 25.0
"""Seconds that one D-Bus call of rbeectl may take, as of systemctl: systemd answers no call while it reads
its unit files, and polkit 122 of Debian 12 takes 15 s where it loses a wakeup."""

_NO_ANSWER = "no answer within {timeout:g} s"

# What is in the error's name or text, and our error for it, its meaning, its cure (None: doctor).
_ERRORS: tuple[tuple[str, type[RbeeError], str, str | None], ...] = (
    ("InteractiveAuthorizationRequired", NotPermitted, "systemd does not let you do this", None),
    ("AccessDenied", NotPermitted, "systemd does not let you do this", None),
    (
        r"NoSuchUnit|^Unit \S+ not found",
        UnitFailed,
        "systemd has no such unit",
        f"Is it installed? {with_packages('rbee')}",
    ),
    # Not just unmask: a socket that was masked while it listened has lost its descriptor, too.
    (r"UnitMasked|^Unit \S+ is masked", UnitFailed, "the unit is masked", None),
    (
        "TransactionIsDestructive|is destructive",
        Stopping,
        "it is being stopped",
        "Wait for the stop to end, then try again.",
    ),
    ("NoReply", TimedOut, _NO_ANSWER, None),
    ("TimedOut|timed out", TimedOut, _NO_ANSWER, None),
    ("Timeout", TimedOut, _NO_ANSWER, None),
)


def uninterrupted(call: Callable[[], Result], timeout: float = BUS_TIMEOUT) -> Result:
    """Repeat a call that a signal such as SIGTERM has interrupted, within `timeout` seconds from the first.

    sd-bus then fails with EINTR. Every call here may be repeated: systemd merges a job with an equal one.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return call()
        except Exception as error:
            if not _is_bus_error(error) or _errno(error) != errno.EINTR or time.monotonic() >= deadline:
                raise


@contextlib.contextmanager
def translated(doing: str, scope: Scope = SYSTEM, timeout: float = BUS_TIMEOUT) -> Iterator[None]:
    """Turn the library's errors into ours; `doing` begins the message, and the hint is for the scope.

    `timeout` is the seconds that the call had.
    """
    try:
        yield
    except Exception as error:
        if not _is_bus_error(error):
            raise
        raise translate(doing, error, scope, timeout) from error


def _is_bus_error(error: Exception) -> bool:
    return type(error).__module__ == "pystemd.dbusexc"


def _errno(error: Any) -> int:
    """The library keeps errno negative, and pystemd 0.11 leaves it None now and then."""
    if error.errno is None and os.strerror(errno.EINTR) in str(error):
        return errno.EINTR
    return abs(int(error.errno or 0))


def translate(doing: str, error: Any, scope: Scope = SYSTEM, timeout: float = BUS_TIMEOUT) -> RbeeError:
    """The error of ours for one of pystemd's, of a call that had `timeout` seconds."""
    # pystemd makes a class of each D-Bus error it knows and leaves the rest to DBusBaseError,
    # which has the name.
    name = f"{type(error).__name__} {getattr(error, 'err_name', '')}"
    message = getattr(error, "err_message", b"") or os.strerror(_errno(error))
    said = (message.decode(errors="replace") if isinstance(message, bytes) else str(message)).rstrip(".")
    if doing == f"connecting to the {scope.kind} bus":
        if _errno(error) == errno.ETIMEDOUT:
            return TimedOut(f"the {scope.kind} bus did not greet us within {timeout:g} s", hint=scope.doctor)
        return Unreachable(f"the {scope.kind} bus does not answer ({said})", hint=scope.doctor)
    return error_for(doing, name, said, scope, timeout)


def error_for(doing: str, name: str, said: str, scope: Scope, timeout: float) -> RbeeError:
    """The error of ours for a D-Bus error's name ('' if it is not known) and text."""
    for mark, kind, meaning, cure in _ERRORS:
        if re.search(mark, name) or re.search(mark, said):
            return kind(f"{doing}: {meaning.format(timeout=timeout)} ({said})", hint=cure or scope.doctor)
    return UnitFailed(f"{doing}: {said}", hint=scope.doctor)
