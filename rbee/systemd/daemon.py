"""What systemd hands to a daemon, and the daemon reports to it: sockets, notifications, the watchdog."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from rbee.errors import BadConfig, RbeeError
from rbee.scope import SYSTEM, Scope
from rbee.text import printable, shortened

STATUS_LIMIT = 500
"""Characters of a unit's status text; a longer one keeps its beginning and its end."""

NO_SOCKET = "systemd handed over no socket"
"""The error of a daemon that was started without systemd, or whose socket unit has lost its socket."""


def take_sockets(
    environ: MutableMapping[str, str] = os.environ, *, scope: Scope = SYSTEM
) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd handed over, by FileDescriptorName=; BadConfig if there are none.

    By name, because their order is not stable where several socket units feed one service.
    The variables are removed from the environment, so that no child takes them for its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "0")
    names = [name or "unknown" for name in environ.pop("LISTEN_FDNAMES", "").split(":")]
    sockets: dict[str, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not re.fullmatch("[1-9][0-9]{0,5}", count):
        raise BadConfig(NO_SOCKET, hint=f"Start the unit instead: {scope.systemctl('start UNIT')}")
    for number, fd in enumerate(range(3, 3 + int(count))):
        os.set_inheritable(fd, False)
        # No family and no protocol given: Python asks the kernel, and asyncio then sets TCP_NODELAY.
        listener = socket.socket(fileno=fd)
        sockets.setdefault(names[number] if number < len(names) else "unknown", []).append(listener)
    return sockets


TRY = "; try: "
"""Precedes each cure in a status text."""


def failure_in_a_line(error: RbeeError) -> str:
    """The error that ended a daemon, with its cures, as a status text; check_job() splits it again."""
    return TRY.join([error.message, *(error.hint or "").splitlines()])


class Notifier:
    """sd_notify(3). Without systemd ($NOTIFY_SOCKET unset) it does nothing."""

    def __init__(self) -> None:
        from sdnotify import SystemdNotifier

        self._notifier = SystemdNotifier()
        self._status: str | None = None

    def ready(self, status: str) -> None:
        """The service has started, and serves."""
        self._send("READY=1", status)

    def status(self, status: str) -> None:
        """Set the status line of the unit, unless it is that already."""
        if status != self._status:
            self._send("", status)

    def stopping(self, status: str) -> None:
        """The service is about to end."""
        self._send("STOPPING=1", status)

    def extend(self, seconds: float) -> None:
        """Ask for so many seconds from now on, if the unit's timeout is too short for its start or stop."""
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    def alive(self) -> None:
        """Reset the watchdog."""
        self._notifier.notify("WATCHDOG=1")

    def _send(self, state: str, status: str) -> None:
        self._status = status
        line = shortened(printable(" ".join(status.split())), STATUS_LIMIT)
        message = f"{state}\nSTATUS={line}".lstrip()
        # sdnotify encodes as latin-1, and systemd expects UTF-8: pass text that becomes UTF-8 by that.
        self._notifier.notify(message.encode().decode("latin-1"))


def invocation_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The invocation ID of this process's unit (systemd.exec(5)), new with each start; None without one."""
    value = environ.get("INVOCATION_ID", "")
    return value if re.fullmatch("[0-9a-f]{32}", value) else None


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Half of WatchdogSec= in seconds, as sd_watchdog_enabled(3) advises; None if there is no watchdog."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not re.fullmatch("[0-9]{1,18}", usec) or environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return None
    return int(usec) / 2_000_000 or None


def state_directory(default: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The StateDirectory= of the daemon's unit; `default` without one."""
    # Several would be separated by colons; our units have one each.
    return Path(environ.get("STATE_DIRECTORY", default))
