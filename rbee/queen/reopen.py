"""queen-rbee-tcp-retry: restarts the queen once a TCP socket that could not be opened can be.

systemd tries a socket unit once, and cannot add one to a running service: the queen's start opens it.
Until then every remote hive is unreachable, so a restart costs less than waiting for an operator.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable
from functools import partial

from rbee.narration import QUEEN_FAILED, TCP_REOPENING, Journal
from rbee.scope import QUEEN_UNIT, TCP_RETRY_UNIT, TCP_SOCKET_UNIT, Scope, program_of, scope_of
from rbee.server.daemon import run_daemon
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import Notifier

INTERVAL = 5.0
"""Seconds between two tries. Without CAP_NET_ADMIN nothing reports that a port is free again."""


async def run(notifier: Notifier, journal: Journal, scope: Scope) -> None:
    """Return once the queen's restart is queued, or is not needed any more.

    Waits as long as the port is taken: this unit is part of the queen's (PartOf=) and stops with it. If the
    queen dies it keeps waiting, and is restarted with the queen: the socket unit, if it fails again, does not
    start this one (systemd 252), as it is in the state failed already.
    """
    with Bus(scope) as bus:
        queen, listener = bus.unit(QUEEN_UNIT), bus.unit(TCP_SOCKET_UNIT)
        while not queen.state().is_stopped and listener.active_state() != "active":
            addresses = [address for _, address in listener.listen_addresses()]
            if can_listen(addresses):
                text = f"the queen is restarted: {' and '.join(addresses)} can be opened again"
                journal.narrate(TCP_REOPENING, text)
                queen.ask_restart(undo_stop=False)
                return
            notifier.status(f"waiting until {' and '.join(addresses)} can be opened")
            await asyncio.sleep(INTERVAL)


def can_listen(addresses: Iterable[str]) -> bool:
    """Could queen-rbee-tcp.socket be opened on all of these, ADDRESS:PORT as systemd writes them?"""
    return all(_can_listen(address) for address in addresses)


def _can_listen(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        # With the unit's options; as root, because ReusePort= is shared only within one user.
        with socket.socket(socket.AF_INET6 if ":" in host or not host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            probe.bind((host, int(port)))
            probe.listen(1)
    except OSError:
        return False
    return True


_IP_FREEBIND = 15  # linux/in.h; Python's socket module has no name for it before 3.14


def main() -> int:
    """Run queen-rbee-tcp-retry and return its exit status."""
    return run_daemon(program_of(TCP_RETRY_UNIT), QUEEN_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
