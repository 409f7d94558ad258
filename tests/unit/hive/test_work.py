"""The mark of a hive's work, which the queen compares."""

from __future__ import annotations

from rbee.hive.work import Prompt, Serials, Work
from rbee.narration import WORKER_READY, Event, Narrator


def test_serials_grow_whatever_the_clock_does_and_over_restarts() -> None:
    clock = iter([1000, 1000, 900, 5000])
    serials = Serials(lambda: next(clock))
    assert [serials.next() for _ in range(4)] == [1000, 1001, 1002, 5000]
    assert Serials().next() > 1_700_000_000_000


def test_a_hive_that_has_had_nothing_to_do_has_no_mark_and_each_change_another() -> None:
    hurries: list[int] = []
    work = Work(Serials(), lambda: hurries.append(1))
    assert work.mark is None
    work.changed()
    first = work.mark
    work.changed()
    assert None is not first != work.mark
    assert int(first or "", 16) < int(work.mark or "", 16)
    assert hurries == [1, 1]


def test_a_prompt_line_is_a_change() -> None:
    told: list[tuple[str, str]] = []

    class Tape(Narrator):
        def narrate(self, event: Event, text: str, **fields: str) -> None:
            told.append((text, fields["worker"]))

    work = Work(Serials(), lambda: told.append(("hurry", "")))
    Prompt(Tape(), work).narrate(WORKER_READY, "ready", worker="bee-1")
    assert told == [("ready", "bee-1"), ("hurry", "")]
