"""rbee-hive-redial: after a hive was shut down by its queen, wait until she is there again.

systemd then starts the hive. She is there when her TCP socket is: systemd opens it with her and
closes it when she is put to sleep. Nothing is said to her, and of the hive nothing is in memory
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
from rbee.scope import SYSTEM, Scope, scope_of
from rbee.server.daemon import run_daemon
from rbee.systemd.daemon import Notifier, state_directory

WAIT = 5.0
"""Seconds between two tries, less a random part: hives of one queen do not come in step."""

GOING = 20.0
"""Seconds that a queen who has her hives shut down has to be gone herself."""

CONNECT_TIMEOUT = 3.0


async def run(notifier: Notifier, journal: Journal, scope: Scope = SYSTEM) -> None:
    membership = Memberships(state_directory(scope.hive_state), scope).load()
    if membership is None:
        raise BadConfig("this machine is no hive of a queen on another", hint=scope.rejoin)
    notifier.status(hivestatus.waits(membership.queen()))
    await _await_return(membership)
    journal.narrate(WAKING_HIVE, f"the queen at {membership.queen()} is there again", hive=membership.hive_id)


async def _await_return(queen: Membership) -> None:
    """Until she has gone, for which she has GOING seconds, and is there again."""
    gone_by = asyncio.get_running_loop().time() + GOING
    is_gone = False
    # Nothing tells of either: she does not know that anybody waits.
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
    return run_daemon("rbee-hive-redial", HIVE_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
