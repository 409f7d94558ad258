"""The list of hives in pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.client.answers import read_answer
from rbee.queen.api import pages
from rbee.queen.api.pages import page_of
from rbee.queen.hives.hives import Hives
from rbee.queen.store.records import Row
from rbee.wire.routes import QueenRoutes
from rbee.wire.selectors import Selector
from tests.unit.queens import a_queen

pytestmark = pytest.mark.deadline(10)


@pytest.fixture
@asynccontextmanager
async def hives(tmp_path: Path) -> AsyncIterator[Hives]:
    async with a_queen(tmp_path / "queen") as queen:
        yield queen.hives


def take_in(hives: Hives, *names: str, **labels: str) -> None:
    for name in names:
        row = Row(name, name, 8600, "online", None, 1, 1, True, name, name, labels=labels)
        hives.take_in(row, "online", "heartbeats received")


async def page(
    hives: Hives, limit: int | None = None, after: str = "", selector: str | None = None
) -> tuple[list[str], str | None]:
    """The names on a page, and its `next`, as a client reads them."""
    chosen = Selector() if selector is None else Selector.parse(selector)
    content = await page_of(hives, limit=limit, after=after, selector=chosen)
    listed = read_answer(QueenRoutes.HIVES, content, 200)
    return [hive.id for hive in listed.hives], listed.next


async def test_without_a_limit_all_are_listed_by_id(hives: Hives) -> None:
    take_in(hives, "b", "a", "C")

    assert await page(hives) == (["C", "a", "b"], None)


async def test_each_page_begins_after_the_one_before_and_the_last_names_no_next(hives: Hives) -> None:
    take_in(hives, "a", "b", "c", "d")

    assert await page(hives, 2) == (["a", "b"], "b")
    assert await page(hives, 2, "b") == (["c", "d"], None)
    assert await page(hives, 2, "d") == ([], None)


async def test_hives_that_come_and_go_between_pages_neither_hide_nor_repeat_others(hives: Hives) -> None:
    take_in(hives, "b", "d", "f", "h")
    assert await page(hives, 2) == (["b", "d"], "d")

    for gone in ("b", "d"):
        hives.forget(hives.hive(gone))
    take_in(hives, "a", "c", "e")

    assert await page(hives, 2, "d") == (["e", "f"], "f")
    assert await page(hives, 2, "f") == (["h"], None)


async def test_a_hive_that_is_removed_while_a_page_is_written_is_left_out(
    hives: Hives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "AT_ONCE", 1)
    take_in(hives, "a", "b", "c")
    asyncio.get_running_loop().call_soon(lambda: hives.forget(hives.hive("b")))

    assert await page(hives) == (["a", "c"], None)


async def test_pages_are_full_of_what_is_selected(hives: Hives) -> None:
    take_in(hives, "a", "c", "e", rack="3")
    take_in(hives, "b", "d", rack="4")

    assert await page(hives, 2, selector="rack=3") == (["a", "c"], "c")
    assert await page(hives, 2, "c", selector="rack=3") == (["e"], None)


async def test_large_hives_make_a_page_shorter_and_none_is_too_large_for_one(
    hives: Hives, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(hives, "a", "b", "c")
    size = len(await page_of(hives, limit=None, after="", selector=Selector()))

    monkeypatch.setattr(pages, "PAGE_SIZE", size * 3 // 4)
    assert await page(hives, 3) == (["a", "b"], "b")
    monkeypatch.setattr(pages, "PAGE_SIZE", 1)
    assert await page(hives, 3) == (["a"], "a")
    assert await page(hives) == (["a", "b", "c"], None)


async def test_rows_with_the_same_unreadable_name_are_each_on_one_page(hives: Hives) -> None:
    take_in(hives, "unreadable", "unreadable", "unreadable", "z")

    assert await page(hives, 1) == (["unreadable"], "unreadable")
    assert await page(hives, 1, "unreadable") == (["unreadable-2"], "unreadable-2")
    assert await page(hives, 2, "unreadable-2") == (["unreadable-3", "z"], None)
