"""Reading the hives of the queen's catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from rbee.errors import RbeeError, UnknownHive, Unreachable
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import checked, did_you_mean
from rbee.wire.hives import Hives as Listed
from rbee.wire.hives import HiveView
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.selectors import Selector
from rbee.wire.types import EVENTS_MAX, HIVES_MAX, Name, spelled

if TYPE_CHECKING:
    from rbee.wire.events import FeedEvent, FeedEvents
    from rbee.wire.samples import Sample
    from rbee.wire.workers import Memory

EVERY = Selector()

SAMPLE_WAIT = 2.0
"""Seconds to wait for a hive's sample, before its figures are shown as unknown."""

MEMORY_WAIT = 5.0
"""The same for its memory book, for which a hive waits 3 s for the drivers of its cards."""

SAMPLES_AT_ONCE = 16
"""Hives that are asked for a sample, or for their memory, at the same time."""

Answer = TypeVar("Answer")


class Hives:
    """Reads the hives. NotRunning if the queen is not awake; methods for an awake queen do not check that."""

    def __init__(self, queen: Queen) -> None:
        self._queen = queen
        self.scope = queen.work.scope

    def all(self) -> tuple[HiveView, ...]:
        """Every hive of the catalog."""
        return tuple(hive for page in self.pages() for hive in page)

    def pages(self, selector: Selector = EVERY) -> Iterator[tuple[HiveView, ...]]:
        """Yield the selected hives by id, a page at a time."""
        return _pages(self._queen.ask_if_awake, selector)

    def of_awake(self) -> tuple[HiveView, ...]:
        """As all(), for a queen that is awake."""
        return tuple(hive for page in _pages(self._queen.ask) for hive in page)

    def has_any(self) -> bool:
        """Does the catalog have any hive? For a queen that is awake."""
        return bool(self._queen.ask(QueenRoutes.HIVES, limit="1").hives)

    def one(self, hive_id: str) -> HiveView:
        """The hive of that name, in any letter case; UnknownHive suggests similar names."""
        checked(Name, "HIVE", hive_id)
        try:
            hive: HiveView = self._queen.ask_if_awake(QueenRoutes.HIVE, hive_id=hive_id)
        except UnknownHive:
            return self._listed(hive_id)
        return hive

    def find(self, hive_id: str) -> HiveView | None:
        """As one(), for a queen that is awake; None if the catalog has no such hive."""
        return _named(hive_id, self.of_awake())

    def near(self, hive_id: str) -> str:
        """As did_you_mean(), with the names of the hives, for a queen that is awake."""
        return did_you_mean(hive_id, (hive.id for hive in self.of_awake()))

    def samples(self, hives: Sequence[HiveView]) -> dict[str, Sample]:
        """A sample of each hive that is online, by its id; all are asked at the same time.

        A hive that does not answer within SAMPLE_WAIT seconds is left out.
        """
        return self._of_each(hives, QueenRoutes.SAMPLE, SAMPLE_WAIT)

    def memories(self, hives: Sequence[HiveView]) -> dict[str, Memory]:
        """As samples(), with the memory of each by holder, within MEMORY_WAIT seconds."""
        return self._of_each(hives, QueenRoutes.MEMORY, MEMORY_WAIT)

    def last_events(self, hive_id: str, count: int) -> tuple[FeedEvent, ...]:
        """The last events of a hive that an awake queen keeps, oldest first; at most `count`."""
        limit = str(min(count, EVENTS_MAX))
        last: FeedEvents = self._queen.ask(QueenRoutes.LAST_EVENTS, hive=hive_id, limit=limit)
        return last.events

    def _listed(self, hive_id: str) -> HiveView:
        """From the whole list: for similar names, and as a queen before 0.5.0 knows one spelling only."""
        hives = self.all()
        if (hive := _named(hive_id, hives)) is not None:
            return hive
        raise UnknownHive(
            f"hive '{hive_id}' is not in the hive catalog{did_you_mean(hive_id, (one.id for one in hives))}",
            hint=self.scope.rbeectl("list-hives"),
            field="HIVE",
        )

    def _of_each(self, hives: Sequence[HiveView], route: Route[Answer], seconds: float) -> dict[str, Answer]:
        online = [hive.id for hive in hives if hive.state == "online"]

        def ask(hive_id: str) -> Answer | None:
            try:
                return self._queen.client.within(seconds).ask(route, hive_id=hive_id)
            except RbeeError:
                return None  # it has stopped, is of an older version, or hangs: its figures are unknown

        if len(online) < 2:
            answers = [ask(hive_id) for hive_id in online]
        else:
            from concurrent.futures import ThreadPoolExecutor  # a fleet only

            threads = ThreadPoolExecutor(min(len(online), SAMPLES_AT_ONCE), "sample")
            try:
                answers = list(threads.map(ask, online))
            finally:
                # Not as a context: Ctrl-C would wait for the hives that do not answer.
                threads.shutdown(wait=False, cancel_futures=True)
        return {hive_id: told for hive_id, told in zip(online, answers, strict=True) if told is not None}


def _pages(ask: Callable[..., Listed], selector: Selector = EVERY) -> Iterator[tuple[HiveView, ...]]:
    asked = {"limit": str(HIVES_MAX)} | ({"selector": selector.text} if selector.terms else {})
    place: str | None = ""
    while place is not None:
        listed = ask(QueenRoutes.HIVES, **asked, **({"after": place} if place else {}))
        if listed.next is not None and listed.next <= place:
            raise Unreachable(f"the answer is not valid: its next page begins at {listed.next}, again")
        # Selected again here: a queen before 0.5.0 ignores the query, and returns all hives.
        yield tuple(hive for hive in listed.hives if selector.takes(labels_by_key(hive)))
        place = listed.next


def labels_by_key(hive: HiveView) -> dict[str, str]:
    """The values of a hive's labels by their keys, for Selector.takes()."""
    return {label.key: label.value for label in hive.labels}


def _named(name: str, hives: Sequence[HiveView]) -> HiveView | None:
    id_ = spelled(name, (hive.id for hive in hives))
    return next((hive for hive in hives if hive.id == id_), None)
