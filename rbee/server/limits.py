"""How many there may be of something at once, and how many of them one user and one process may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable
from dataclasses import dataclass

from rbee.errors import TooMany
from rbee.server.peer import AnyPeer


@dataclass(frozen=True, slots=True)
class Bound:
    """Of peers on other machines an address, or a credential, is both user and process.

    `kept` come on top of `total`, for root and the daemons: whatever others do, these get through."""

    total: int
    kept: int
    a_user: int
    a_process: int


class Limits:
    """Who has how many. `what` is the sentence's middle: '256 {what}, as many as …'.

    The share of a process is what keeps a client that lost count from shutting out the rest of
    its user; the share of a user, which does not bind root and the daemons, the other users.
    """

    def __init__(self, what: str, bound: Bound, daemons: Collection[int] = ()) -> None:
        self._what = what
        self._bound = bound
        self._free = frozenset({0, *daemons})
        self.taken = 0
        self._by_user: Counter[Hashable] = Counter()
        self._by_process: Counter[Hashable] = Counter()

    def check(self, peer: AnyPeer) -> None:
        """Raise TooMany where one more of this peer's would be too many."""
        (user, user_words), (process, process_words) = peer.owner, peer.process
        bound, is_free = self._bound, user in self._free
        if self._by_process[process] >= bound.a_process:
            raise self._too_many(bound.a_process, f" by {process_words}", "one process may")
        if not is_free and self._by_user[user] >= bound.a_user:
            raise self._too_many(bound.a_user, f" by {user_words}", f"one {user_words.split()[0]} may")
        if self.taken >= bound.total + (bound.kept if is_free else 0):
            raise self._too_many(self.taken, "", "there may be")

    def take(self, peer: AnyPeer) -> None:
        """As check(); each that is taken is given back once."""
        self.check(peer)
        self._count(peer, 1)

    def give_back(self, peer: AnyPeer) -> None:
        self._count(peer, -1)

    def _count(self, peer: AnyPeer, change: int) -> None:
        self.taken += change
        for counts, (key, _words) in ((self._by_user, peer.owner), (self._by_process, peer.process)):
            counts[key] += change
            if not counts[key]:
                del counts[key]

    def _too_many(self, count: int, by_whom: str, as_many_as: str) -> TooMany:
        return TooMany(
            f"{count} {self._what}{by_whom}, as many as {as_many_as}", hint="Close one and try again."
        )
