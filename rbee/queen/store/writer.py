"""Changes of the catalog: a transaction that includes its audit entry, then a line in the journal."""

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
    """A write in progress: the tables, its time, and the changes that it has noted."""

    session: Session
    now_ms: int
    daemons: Collection[int]
    changes: list[Change] = field(default_factory=list)

    def note(self, hive_id: str | None, text: str, by: Actor | None, *, is_audited: bool = True) -> None:
        """Enter a change in the audit in this transaction, and in the journal once that is on the disk."""
        change = Change(hive_id, text, by, is_audited)
        if is_audited:
            audit.enter(self.session, change, at_ms=self.now_ms, daemons=self.daemons)
        self.changes.append(change)


class Writer:
    """Runs writes. Each noted change becomes a line in the journal, CATALOG_CHANGED: what, and by whom.

    After each write `wanted` is called with whether any hive is desired. Both run in the engine's thread.
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
            self._set_wanted(is_any_wanted)

        result, *_ = await self._engine.write(transact, committed)
        return result

    def begin(self) -> None:
        """Call `wanted` for the catalog as it was opened."""
        self._set_wanted(self._engine.read_now(_is_any_wanted))

    def _set_wanted(self, is_any_wanted: bool) -> None:
        try:
            self._wanted(is_any_wanted)
        except OSError as error:
            # The write itself has succeeded.
            log.warning("the marker for the next boot could not be changed: %s", error)


def _is_any_wanted(session: Session) -> bool:
    return bool(session.rows("SELECT 1 FROM hives WHERE wanted = 1 LIMIT 1"))
