"""Limits on how many of something exist at once, in total and for one user and one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable
from typing import NamedTuple

from rbee.errors import TooMany
from rbee.server.peer import AnyPeer


class Bound(NamedTuple):
    """How many at once: in `total`, for one user, and for one process.

    For remote peers the address or the credential counts as user and as process. `kept` more are reserved
    for root and the daemons, whatever others do. A daemon's process may have `a_daemon`, if that is not None.
    """

    total: int
    kept: int
    a_user: int
    a_process: int
    a_daemon: int | None = None


class Limits:
    """Counts how many each peer has. `what` is the middle of a message: '256 {what}, the limit …'.

    The share of a process keeps a faulty client from shutting out the other clients of its user; the share
    of a user, which does not bind root and the daemons, protects the other users.
    """

    def __init__(self, what: str, bound: Bound, daemons: Collection[int] = ()) -> None:
        self._what = what
        self._bound = bound
        self._daemons = frozenset(daemons)
        self.taken = 0
        self._by_user: Counter[Hashable] = Counter()
        self._by_process: Counter[Hashable] = Counter()

    def check(self, peer: AnyPeer) -> None:
        """Raise TooMany if this peer may not have one more."""
        (user, user_text), (process, process_text) = peer.owner, peer.process
        bound, is_daemon = self._bound, user in self._daemons
        is_free = is_daemon or user == 0
        share = bound.a_process if bound.a_daemon is None or not is_daemon else bound.a_daemon
        if self._by_process[process] >= share:
            raise self._too_many(share, f" by {process_text}", " for one process")
        if not is_free and self._by_user[user] >= bound.a_user:
            raise self._too_many(bound.a_user, f" by {user_text}", f" for one {user_text.split()[0]}")
        if self.taken >= bound.total + (bound.kept if is_free else 0):
            raise self._too_many(self.taken)

    def take(self, peer: AnyPeer) -> None:
        """Take one for the peer, which give_back() returns later. Raises TooMany as check()."""
        self.check(peer)
        self._count(peer, 1)

    def give_back(self, peer: AnyPeer) -> None:
        """Return one that was taken."""
        self._count(peer, -1)

    def _count(self, peer: AnyPeer, change: int) -> None:
        self.taken += change
        for counts, (key, _text) in ((self._by_user, peer.owner), (self._by_process, peer.process)):
            counts[key] += change
            if not counts[key]:
                del counts[key]

    def _too_many(self, count: int, by_whom: str = "", for_whom: str = "") -> TooMany:
        message = f"{count} {self._what}{by_whom}, the limit{for_whom}"
        return TooMany(message, hint="Close one and try again.")
