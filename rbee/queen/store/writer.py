"""How the catalog is changed: one transaction, its audit in it, and then a line in the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeVar

from rbee.narration import CATALOG_CHANGED, Narrator
from rbee.queen.store import audit
from rbee.queen.store.engine import Engine, Session
from rbee.queen.store.records import Actor, Change

log = logging.getLogger("rbee")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one write works with: the tables, the time, and where it says what it has changed."""

    session: Session
    now_ms: int
    daemons: Collection[int]
    changes: list[Change] = field(default_factory=list)

    def note(self, hive_id: str | None, text: str, by: Actor | None, *, is_audited: bool = True) -> None:
        """Enter a change into the audit now, and into the journal once it is on the disk."""
        change = Change(hive_id, text, by, is_audited)
        if is_audited:
            audit.enter(self.session, change, at_ms=self.now_ms, daemons=self.daemons)
        self.changes.append(change)


class Writer:
    """Each change that is noted is one line in the journal, CATALOG_CHANGED: what, and by whom.

    After each write `wanted` is told whether any hive is. Both are called in the engine's thread.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Narrator,
        wanted: Callable[[bool], None],
        find_daemons: Callable[[], Collection[int]],
        now_ms: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._wanted = wanted
        self._find_daemons = find_daemons
        self.now_ms = now_ms

    async def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Run `work` as one transaction and return its result once that is on the disk."""

        def transact(session: Session) -> tuple[Result, list[Change], bool]:
            transaction = Transaction(session, self.now_ms(), self._find_daemons())
            return work(transaction), transaction.changes, _is_any_wanted(session)

        def committed(done: tuple[Result, list[Change], bool]) -> None:
            _, changes, is_any_wanted = done
            for change in changes:
                about = {} if change.hive_id is None else {"hive": change.hive_id}
                self._journal.narrate(CATALOG_CHANGED, change.text, **about, **change.actor())
            self._tell_wanted(is_any_wanted)

        result, *_ = await self._engine.write(transact, committed)
        return result

    def begin(self) -> None:
        """Tell `wanted` what the catalog says as it was opened."""
        self._tell_wanted(self._engine.read_now(_is_any_wanted))

    def _tell_wanted(self, is_any_wanted: bool) -> None:
        try:
            self._wanted(is_any_wanted)
        except OSError as error:
            # The row counts, and is written; what is lost is that the next boot wakes the queen.
            log.warning("the next boot may not do as the hive catalog says: %s", error)


def _is_any_wanted(session: Session) -> bool:
    return bool(session.rows("SELECT 1 FROM hives WHERE wanted = 1 LIMIT 1"))
