"""A store for each test, in a folder of its own, on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.queen.store.store import Store
from tests.unit.queen.store.engines import ENGINES, Clock, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the catalog is, in a folder of its own."""
    (tmp_path / "state").mkdir()
    return tmp_path / "state/catalog.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def wanted() -> list[bool]:
    """Whether any hive is wanted, as the store has told it."""
    return []


@pytest.fixture(params=sorted(ENGINES))
def store(
    request: pytest.FixtureRequest, path: Path, clock: Clock, journal: Journal, wanted: list[bool]
) -> Iterator[Store]:
    store = Store.open(
        path, journal, wanted=wanted.append, now_ms=clock, open_engine=ENGINES[request.param]
    )  # fmt: skip
    yield store
    store.close()


@pytest.fixture
def catalog(path: Path, journal: Journal) -> Iterator[Store]:
    """A store in an SQLite file."""
    store = Store.open(path, journal)
    yield store
    store.close()
