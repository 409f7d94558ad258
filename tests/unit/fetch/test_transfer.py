"""Transfers from sources that are played; those of web servers are in tests/integration/fetch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rbee.fetch.errors import Again, Anew, NoRoom, Unavailable
from rbee.fetch.part import Part
from rbee.fetch.source import Answer
from rbee.fetch.transfer import Patience, Transfer, World, room_beside
from rbee.modelfile.progress import Progress
from rbee.modelfile.store import Store
from tests.model_files import gguf

MODEL = gguf(tensors=(("token_embd.weight", (64, 4096), 1),))


class Source:
    """Gives its answers one after the other: bytes, or what is raised after some."""

    def __init__(self, *answers: list[bytes | Exception]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, str | None]] = []

    @contextmanager
    def open(self, begin: int, version: str | None) -> Iterator[Answer]:
        self.asked.append((begin, version))
        yield Answer(begin, len(MODEL), '"v1"', self.blocks(self.answers.pop(0)))

    @staticmethod
    def blocks(answer: list[bytes | Exception]) -> Iterable[bytes]:
        for one in answer:
            if isinstance(one, Exception):
                raise one
            yield one


class Clock:
    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def transferred(
    folder: Path,
    source: Source,
    *,
    clock: Clock | None = None,
    room: int = 2**40,
    patience: Patience | None = None,
) -> list[Progress]:
    store, said = Store(folder), list[Progress]()
    store.fetches.mkdir(exist_ok=True)
    world = World(lambda: room, said.append, wait=lambda seconds: None, now=clock or Clock())
    with Part(store, "a", "https://example.org/x", boot_id="one") as part:
        Transfer(
            part, source, world, name="x", sha256=None, patience=patience or Patience(tries=2, progress=1000)
        ).run()
        assert part.path.read_bytes() == MODEL
    return said


def test_a_cut_is_answered_with_the_next_try(tmp_path: Path) -> None:
    source = Source([MODEL[:600], Again("cut")], [MODEL[600:700]], [MODEL[700:]])

    said = transferred(tmp_path, source)
    assert source.asked == [(0, None), (600, '"v1"'), (700, '"v1"')]
    assert [one.note for one in said if one.note] == [
        "cut; next try in 0.5 s",
        "the connection was lost; next try in 0.5 s",
    ]


def test_it_is_given_up_without_progress(tmp_path: Path) -> None:
    source = Source([MODEL[:600]], *([Again("cut")] for _ in range(5)))

    with pytest.raises(Unavailable, match="x cannot be fetched: cut, 3 times without progress"):
        transferred(tmp_path, source)
    assert source.asked == [(0, None), (600, '"v1"'), (600, '"v1"')]


def test_a_file_that_changes_all_the_time_is_given_up(tmp_path: Path) -> None:
    source = Source(*([MODEL[:600], Anew()] for _ in range(9)))

    with pytest.raises(Unavailable, match="changed 6 times"):
        transferred(tmp_path, source)
    assert {begin for begin, _ in source.asked} == {0}


def test_a_trickle_is_cut(tmp_path: Path) -> None:
    drops = [MODEL[at : at + 10] for at in range(0, len(MODEL), 10)]
    source = Source(drops, [MODEL[40:]])

    said = transferred(tmp_path, source, clock=Clock(step=200.0))
    assert source.asked[1] == (40, '"v1"')
    assert any(one.note.startswith("fewer than 1000 bytes arrived in 10min") for one in said)


def test_a_disk_that_fills_up_meanwhile_ends_it(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match="there are 5 available"):
        transferred(tmp_path, Source([MODEL]), room=5)


def test_the_room_is_that_of_the_disk_less_a_reserve(tmp_path: Path) -> None:
    assert 0 <= room_beside(tmp_path) <= room_beside(tmp_path, reserve=0)
    assert room_beside(tmp_path, reserve=2**62) == 0
