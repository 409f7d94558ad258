"""Make a host a hive: prepared by ssh if it is another machine, and then added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import UnknownHive
from rbee.keeper.changes import Changes
from rbee.keeper.fleet.typed import Typed
from rbee.keeper.hives import Hives
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import checked
from rbee.narration import LOOKING_AT_HOST
from rbee.wire.types import LOCALHOST, Name, is_same_name

if TYPE_CHECKING:
    from rbee.wire.hives import HiveView


def bring_and_add(queen: Queen, typed: Typed) -> HiveView:
    """bring_host(), then Changes.add(); a hive whose credential the queen refuses joins again in between."""
    changes = Changes(queen)
    is_brought = bring_host(queen, typed)
    try:
        return changes.add(typed.host, typed.port)
    except UnknownHive:
        if not is_brought:
            raise
    bring_host(queen, typed, is_refused=True)
    return changes.add(typed.host, typed.port)


def bring_host(queen: Queen, typed: Typed, *, is_refused: bool = False) -> bool:
    """If a host is another machine, make its hive join and run, by ssh; False if ssh was not needed.

    `is_refused` says that the queen refuses its credential.
    """
    if is_same_name(LOCALHOST, typed.host):
        return False
    # Only for other machines, as they import ssh and TLS.
    from rbee.keeper.fleet.bring import Request, bring, not_installed_again
    from rbee.keeper.fleet.here import is_here
    from rbee.keeper.fleet.invitation import is_this_machine

    if is_here(typed.host):
        raise is_this_machine(typed.host, typed.port, typed.scope)
    checked(Name, "HOST", typed.host)
    queen.wake()
    hive = Hives(queen).find(typed.host)
    is_up = hive is not None and hive.last_beat_ms is not None and hive.state not in ("offline", "unknown")
    if is_up and typed.queen is None:  # its heartbeats are received: ssh could not mend anything
        if typed.package is not None:
            queen.work.teller.narrate(LOOKING_AT_HOST, not_installed_again(typed.host))
        return False
    bring(queen, Request(typed, hive is not None, is_up, is_refused))
    return True
