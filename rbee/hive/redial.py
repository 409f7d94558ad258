"""rbee-hive-redial: after a queen has shut down its hive, wait until the queen is back.

systemd then starts the hive. The queen is back when its TCP port accepts connections: systemd opens the
port with the queen and closes it when it is put to sleep. Nothing is sent, and the hive does not run
meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import sys
from functools import partial

from rbee import hivestatus
from rbee.errors import BadConfig
from rbee.hive.membership import Membership, Memberships
from rbee.narration import HIVE_FAILED, WAKING_HIVE, Journal
from rbee.scope import REDIAL_UNIT, SYSTEM, Scope, program_of, scope_of
from rbee.server.daemon import run_daemon
from rbee.systemd.daemon import Notifier, state_directory

WAIT = 5.0
"""Seconds between two tries, less a random part, so that hives of one queen do not all try at once."""

GOING = 20.0
"""Seconds in which a queen that shuts down its hives should be gone itself."""

CONNECT_TIMEOUT = 3.0


async def run(notifier: Notifier, journal: Journal, scope: Scope = SYSTEM) -> None:
    """Wait until the queen accepts connections; raises RbeeError."""
    membership = Memberships(state_directory(scope.hive_state), scope).load()
    if membership is None:
        raise BadConfig("this machine is no hive of a queen on another", hint=scope.rejoin)
    notifier.status(hivestatus.waits(membership.queen()))
    await _await_return(membership)
    journal.narrate(
        WAKING_HIVE, f"the queen at {membership.queen()} is reachable again", hive=membership.hive_id
    )


async def _await_return(queen: Membership) -> None:
    """Wait until the queen has gone, at most GOING seconds, and then until it is back."""
    gone_by = asyncio.get_running_loop().time() + GOING
    is_gone = False
    # There is no signal for either: the queen does not know that anybody waits.
    while True:
        is_there = await _is_there(queen.host, queen.port)
        is_gone = is_gone or not is_there or asyncio.get_running_loop().time() > gone_by
        if is_there and is_gone:
            return
        await asyncio.sleep((WAIT if is_gone else WAIT / 5) * random.uniform(0.5, 1))


async def _is_there(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.transport.abort()
    return True


def main() -> int:
    """The program rbee-hive-redial."""
    return run_daemon(program_of(REDIAL_UNIT), HIVE_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
