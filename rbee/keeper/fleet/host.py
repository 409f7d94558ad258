"""A host that is to be a hive: seen to by ssh where it is another machine, and then added."""

from __future__ import annotations

from rbee.errors import UnknownHive
from rbee.keeper.fleet.typed import Typed
from rbee.keeper.hives import Hives
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import checked
from rbee.narration import LOOKING_AT_HOST
from rbee.wire.hives import HiveView
from rbee.wire.types import LOCALHOST, Name, is_same_name


def bring_and_add(queen: Queen, typed: Typed) -> HiveView:
    """As bring_host() and Hives.add(); a hive whose credential the queen refuses joins her anew."""
    hives = Hives(queen)
    is_brought = bring_host(queen, typed)
    try:
        return hives.add(typed.host, typed.port)
    except UnknownHive:
        if not is_brought:
            raise
    bring_host(queen, typed, is_refused=True)
    return hives.add(typed.host, typed.port)


def bring_host(queen: Queen, typed: Typed, *, is_refused: bool = False) -> bool:
    """Where a host is another machine, see to it by ssh that its hive has joined and runs.

    `is_refused` says that the queen does not take its credential. False where ssh was not needed.
    """
    if is_same_name(LOCALHOST, typed.host):
        return False
    # For other machines alone: ssh, TLS and all.
    from rbee.keeper.fleet.bring import Request, bring, not_installed_again
    from rbee.keeper.fleet.here import is_here
    from rbee.keeper.fleet.invitation import is_this_machine

    if is_here(typed.host):
        raise is_this_machine(typed.host, typed.port)
    checked(Name, "HOST", typed.host)
    queen.wake()
    found = Hives(queen).find(typed.host)
    is_up = found is not None and found.last_beat_ms is not None and found.state not in ("offline", "unknown")
    if is_up and typed.queen is None:  # it beats: whatever is wrong with it, ssh is no help
        if typed.package is not None:
            queen.work.teller.narrate(LOOKING_AT_HOST, not_installed_again(typed.host))
        return False
    bring(queen, Request(typed, found is not None, is_up, is_refused))
    return True
