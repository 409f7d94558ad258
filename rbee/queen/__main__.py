"""queen-rbee: a queen built from the sockets and folders that systemd hands over, until SIGTERM."""

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
from rbee.systemd.control import Control
from rbee.systemd.daemon import Notifier, state_directory, take_sockets


async def run(notifier: Notifier, journal: Journal, scope: Scope) -> None:
    """Run the queen of a scope until SIGTERM; raises RbeeError if it cannot run."""
    stop_event = stop_signal()
    settings = config.load(scope=scope)
    sockets, remote_sockets = _sockets(scope)
    control = Control(scope)
    if uid_of(scope.hive_user) is not None:
        control.prepare()  # the queen is mostly started for its hive
    site = Site(
        scope,
        state_directory(scope.queen_state),
        scope.hive_socket,
        control,
        _feed_path(),
        sockets,
        remote_sockets,
        find_hive_uid=partial(uid_of, scope.hive_user),
        find_gateway_uid=partial(uid_of, scope.gateway_user),
    )
    with Bus(scope) as bus:
        async with Queen.open(settings, site, bus, notifier, journal) as queen:
            # Objects that exist by then live until the end; scanning them again would stall the loop.
            await queen.serve(stop_event, started=gc.freeze)


def _sockets(scope: Scope) -> tuple[list[socket.socket], list[socket.socket]]:
    """Return the Unix sockets, and those of queen-rbee-tcp.socket, by their names from systemd.

    Not by their order, which differs from start to start when two units feed one service.
    """
    handed_over = take_sockets(scope=scope)
    remote = handed_over.pop(TCP_SOCKETS, [])
    local = [listener for named in handed_over.values() for listener in named]
    if any(listener.family != socket.AF_UNIX for listener in local):
        raise BadConfig(
            f"TCP needs TLS and a credential, and {QUEEN_SOCKET_UNIT} has neither",
            hint=f"Remove every ListenStream= but {scope.queen_socket} from {QUEEN_SOCKET_UNIT}, "
            f"then: {scope.rbeectl('tcp enable')}",
        )
    if any(listener.family == socket.AF_UNIX for listener in remote):
        raise BadConfig(
            f"{TCP_SOCKET_UNIT} has a Unix socket",
            hint=f"Remove every ListenStream= that is a path from {TCP_SOCKET_UNIT}.",
        )
    return local, remote


def _feed_path() -> Path | None:
    """Return the feed's file, or None (kept in RAM) when not run by systemd."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return Path(runtime) / "events" if runtime else None


def main() -> int:
    """Run queen-rbee and return its exit status."""
    return run_daemon(QUEEN_PROGRAM, QUEEN_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
