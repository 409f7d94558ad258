"""What systemd hands to a daemon, and the daemon reports to it: sockets, notifications, the watchdog."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from rbee.errors import BadConfig, RbeeError
from rbee.text import printable, shortened

STATUS_LIMIT = 500
"""Characters of a unit's status text; of a longer one beginning and end are kept, which say what and why."""

NO_SOCKET = "systemd handed over no socket"
"""What a daemon says that was started without systemd, or by a socket unit that has lost its socket."""


def take_sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd handed over, by FileDescriptorName=; BadConfig if there are none.

    By name, because their order is not stable where several socket units feed one service.
    The variables are taken out of the environment, so that no child believes them its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "0")
    names = [name or "unknown" for name in environ.pop("LISTEN_FDNAMES", "").split(":")]
    sockets: dict[str, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not re.fullmatch("[1-9][0-9]{0,5}", count):
        raise BadConfig(NO_SOCKET, hint="Start the unit instead: systemctl start UNIT")
    for number, fd in enumerate(range(3, 3 + int(count))):
        os.set_inheritable(fd, False)
        # No family and no protocol given: Python asks the kernel, and asyncio then sets TCP_NODELAY.
        listener = socket.socket(fileno=fd)
        sockets.setdefault(names[number] if number < len(names) else "unknown", []).append(listener)
    return sockets


TRY = "; try: "
"""What stands before each cure in a status text."""


def failure_in_a_line(error: RbeeError) -> str:
    """What ended a daemon, with its cures, as a unit's status text; check_job() takes it apart again."""
    return TRY.join([error.message, *(error.hint or "").splitlines()])


class Notifier:
    """sd_notify(3). Outside systemd ($NOTIFY_SOCKET unset) it says nothing."""

    def __init__(self) -> None:
        from sdnotify import SystemdNotifier

        self._notifier = SystemdNotifier()

    def ready(self, status: str) -> None:
        self._send("READY=1", status)

    def status(self, status: str) -> None:
        self._send("", status)

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", status)

    def extend(self, seconds: float) -> None:
        """Ask for so much time from now on, where the unit's own timeout would end what is under way."""
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    def alive(self) -> None:
        self._notifier.notify("WATCHDOG=1")

    def _send(self, state: str, status: str) -> None:
        line = shortened(printable(" ".join(status.split())), STATUS_LIMIT)
        message = f"{state}\nSTATUS={line}".lstrip()
        # sdnotify encodes latin-1, systemd wants UTF-8: hand it text that comes out as that.
        self._notifier.notify(message.encode().decode("latin-1"))


def invocation_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """Of the unit that this process is (systemd.exec(5)): new with each of its starts."""
    found = environ.get("INVOCATION_ID", "")
    return found if re.fullmatch("[0-9a-f]{32}", found) else None


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Half of WatchdogSec= in seconds, as sd_watchdog_enabled(3) advises; None where there is none."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not re.fullmatch("[0-9]{1,18}", usec) or environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return None
    return int(usec) / 2_000_000 or None


def state_directory(default: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the daemon keeps what outlives it: its unit's StateDirectory=, `default` without one."""
    # Several would be separated by colons; our units have one each.
    return Path(environ.get("STATE_DIRECTORY", default))
