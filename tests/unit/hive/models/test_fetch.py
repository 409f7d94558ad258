"""One fetch as the hive knows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.hive.models.fetch import KnownFetch
from rbee.modelfile.store import FetchResult
from tests.unit.hive.models.played import FAILED, FETCH, HEAD, INACTIVE, RUNNING, SUM, Played, scope_in


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(scope_in(tmp_path))


async def test_who_waits_is_answered_at_a_change_and_else_after_its_time() -> None:
    known = KnownFetch.begun(FETCH)
    serial = known.view.serial
    assert (await known.later(serial, 0.01)).serial == serial

    waiting = asyncio.ensure_future(known.later(serial, 60))
    await asyncio.sleep(0)
    known.change(bytes=0)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    known.change(bytes=5)
    assert (await waiting).bytes == 5
    assert known.view.serial > serial


async def test_the_status_text_is_how_far_it_is() -> None:
    known = KnownFetch.begun(FETCH)
    known.heard(RUNNING._replace(status_text="5 of 10 bytes (50 %): cut; next try in 2 s"))
    assert (known.view.bytes, known.view.total, known.view.reason) == (5, 10, "cut; next try in 2 s")
    known.heard(RUNNING._replace(status_text="6 of ? bytes"))
    known.heard(RUNNING._replace(status_text="something else"))
    known.heard(INACTIVE._replace(status_text="9 of 10 bytes"))
    assert (known.view.bytes, known.view.total, known.view.reason) == (6, None, "")


async def test_what_came_of_it_is_in_the_store(played: Played) -> None:
    known = KnownFetch.begun(FETCH)
    played.put(FETCH)
    known.ended(INACTIVE, played.store)

    view = known.view
    assert (view.state, view.sha256, view.head, view.bytes, view.total) == ("done", SUM, HEAD, 7, 7)
    assert view.path == str(played.store.file(SUM))


async def test_a_file_that_is_gone_is_not_done(played: Played) -> None:
    known = KnownFetch.begun(FETCH)
    played.note("one", FetchResult("bee", "done", "", 7, SUM))
    known.ended(INACTIVE, played.store)

    assert (known.view.state, known.view.reason) == ("failed", "the file is no longer in the store")


async def test_a_verdict_is_its_reason(played: Played) -> None:
    known = KnownFetch.begun(FETCH)
    played.note("one", FetchResult("bee", "failed", "it is a web page", 5))
    known.ended(FAILED, played.store)

    assert (known.view.state, known.view.reason, known.view.bytes) == ("failed", "it is a web page", 5)


async def test_a_process_that_did_not_end_by_itself_has_its_end_as_reason(played: Played) -> None:
    known = KnownFetch.begun(FETCH)
    known.ended(FAILED._replace(result="signal", exit_status=9), played.store)
    assert known.view.reason == "rbee-fetch ended without a result: signal 9"

    played.note("one", FetchResult("bee", "failed", "of an earlier run", 5))
    known.ended(FAILED._replace(exit_status=243), played.store)
    assert "CREDENTIALS" in known.view.reason


async def test_one_that_was_stopped_goes_on_later(played: Played) -> None:
    known = KnownFetch.begun(FETCH)
    known.ended(INACTIVE, played.store)

    assert (known.view.state, known.is_under_way) == ("fetching", False)
    assert known.view.reason.startswith("it was stopped")
