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
from rbee.scope import QUEEN_PROGRAM, QUEEN_SOCKET_UNIT, TCP_SOCKET_UNIT, TCP_SOCKETS, Scope, scope_of, uid_of
from rbee.server.daemon import run_daemon, stop_signal
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import Notifier, state_directory, take_sockets


async def run(notifier: Notifier, journal: Journal, scope: Scope) -> None:
    is_told_to_stop = stop_signal()
    settings = config.load(scope=scope)
    sockets, remote_sockets = _sockets(scope)
    site = Site(
        scope,
        state_directory(scope.queen_state),
        scope.hive_socket,
        _feed_path(),
        sockets,
        remote_sockets,
        find_hive_uid=partial(uid_of, scope.hive_user),
    )
    with Bus(scope) as bus:
        async with Queen.open(settings, site, bus, notifier, journal) as queen:
            # What lives then lives for good; without it a collection with many connections stalls the loop.
            await queen.serve(is_told_to_stop, started=gc.freeze)


def _sockets(scope: Scope) -> tuple[list[socket.socket], list[socket.socket]]:
    """Her Unix sockets, and those of queen-rbee-tcp.socket, by the names that systemd hands over.

    Not by their order, which differs from start to start where two units feed one service.
    """
    handed_over = take_sockets()
    remote = handed_over.pop(TCP_SOCKETS, [])
    local = [listener for named in handed_over.values() for listener in named]
    if any(listener.family != socket.AF_UNIX for listener in local):
        raise BadConfig(
            f"TCP needs TLS and a credential, and {QUEEN_SOCKET_UNIT} knows neither",
            hint=f"Take every ListenStream= but {scope.queen_socket} out of {QUEEN_SOCKET_UNIT}, "
            f"then: {scope.rbeectl('tcp enable')}",
        )
    if any(listener.family == socket.AF_UNIX for listener in remote):
        raise BadConfig(
            f"{TCP_SOCKET_UNIT} has a Unix socket",
            hint=f"Take every ListenStream= that is a path out of {TCP_SOCKET_UNIT}.",
        )
    return local, remote


def _feed_path() -> Path | None:
    """Not under systemd there is no place for it, and it is kept in RAM."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return Path(runtime) / "events" if runtime else None


def main() -> int:
    return run_daemon(QUEEN_PROGRAM, QUEEN_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
