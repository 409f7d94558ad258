"""rbee-hive: what systemd hands over, made into a hive that serves and beats until it says stop."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from rbee import config
from rbee.errors import RbeeError
from rbee.hive.hive import Hive, Site
from rbee.hive.threads import DaemonicExecutor
from rbee.narration import HIVE_FAILED, Journal
from rbee.scope import ENGINE_IDENTIFIER, HIVE_PROGRAM, Scope, scope_of, uid_of
from rbee.server.daemon import run_daemon, stop_signal
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import Notifier, invocation_id, state_directory, take_sockets

if TYPE_CHECKING:
    from rbee.wire.heartbeats import MachineEnd

MACHINE_END_TIMEOUT = 1.2
"""Seconds that systemd may take in all to tell how the machine ends, while the hive stops."""

CALL_TIMEOUT = 0.4
"""Seconds of them for the bus's greeting, and for each call."""


async def run(notifier: Notifier, journal: Journal, scope: Scope) -> int:
    """Run the hive until it is stopped; return its exit status."""
    stop_requested = stop_signal()
    asyncio.get_running_loop().set_default_executor(DaemonicExecutor())
    settings = config.load(scope=scope)
    site = Site(
        scope,
        state_directory(scope.hive_state),
        [listener for named in take_sockets(scope=scope).values() for listener in named],
        # Which rbee-hive-join knows, too, and shows to be of the same machine.
        instance=invocation_id(),
        queen_uid=uid_of(scope.queen_user),
        find_machine_end=partial(_machine_end, scope),
        engine_journal=Journal(ENGINE_IDENTIFIER),
    )
    async with Hive.open(settings, site, notifier, journal) as hive:
        return await hive.serve(stop_requested)


def _machine_end(scope: Scope) -> MachineEnd | None:
    """Whether the machine is going down; None if it is not, or if systemd does not answer in time."""
    deadline = time.monotonic() + MACHINE_END_TIMEOUT
    try:
        with Bus(scope, timeout=CALL_TIMEOUT) as bus:
            return bus.machine_end(last_call=deadline - CALL_TIMEOUT)
    except RbeeError:
        return None


def main() -> int:
    """The program rbee-hive."""
    return run_daemon(HIVE_PROGRAM, HIVE_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
