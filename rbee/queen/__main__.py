"""queen-rbee: what systemd hands over, made into a queen who serves until it says stop."""

from __future__ import annotations

import gc
import os
import socket
import sys
from functools import partial
from pathlib import Path

from rbee import config
from rbee.errors import BadConfig
from rbee.narration import QUEEN_FAILED, Journal
from rbee.queen.queen import Queen, Site
from rbee.server import run_daemon, stop_signal
from rbee.server.peer import uid_of
from rbee.systemd import Bus, Notifier, take_sockets

TCP_SOCKETS = "queen-tcp"
"""FileDescriptorName= of queen-rbee-tcp.socket."""


async def run(notifier: Notifier, journal: Journal) -> None:
    is_told_to_stop = stop_signal()
    settings = config.load()
    sockets, remote_sockets = _sockets()
    site = Site(
        _state_directory(),
        config.HIVE_SOCKET,
        _feed_path(),
        sockets,
        remote_sockets,
        find_hive_uid=partial(uid_of, "rbee-hive"),
    )
    with Bus() as bus:
        async with Queen.open(settings, site, bus, notifier, journal) as queen:
            # What lives then lives for good; without it a collection with many connections stalls the loop.
            await queen.serve(is_told_to_stop, started=gc.freeze)


def _sockets() -> tuple[list[socket.socket], list[socket.socket]]:
    """Her Unix sockets, and those of queen-rbee-tcp.socket, by the names that systemd hands over.

    Not by their order, which differs from start to start where two units feed one service.
    """
    handed_over = take_sockets()
    remote = handed_over.pop(TCP_SOCKETS, [])
    local = [listener for named in handed_over.values() for listener in named]
    if any(listener.family != socket.AF_UNIX for listener in local):
        raise BadConfig(
            "TCP needs TLS and a credential, and queen-rbee.socket knows neither",
            hint="Take every ListenStream= but /run/rbee/queen.sock out of queen-rbee.socket, "
            "then: rbeectl tcp enable",
        )
    if any(listener.family == socket.AF_UNIX for listener in remote):
        raise BadConfig(
            "queen-rbee-tcp.socket has a Unix socket",
            hint="Take every ListenStream= that is a path out of queen-rbee-tcp.socket.",
        )
    return local, remote


def _feed_path() -> Path | None:
    """Not under systemd there is no place for it, and it is kept in RAM."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return Path(runtime) / "events" if runtime else None


def _state_directory() -> Path:
    # Several StateDirectory= would be separated by colons; the unit has one.
    return Path(os.environ.get("STATE_DIRECTORY", "/var/lib/queen-rbee"))


def main() -> int:
    return run_daemon("queen-rbee", QUEEN_FAILED, run)


if __name__ == "__main__":
    sys.exit(main())
