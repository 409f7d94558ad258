"""A fetch is followed to its end, whatever its hive does meanwhile."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from rbee.errors import HiveNotOnline
from rbee.queen.models import following, work
from rbee.queen.models.following import PAUSE_MOST, _Pace
from rbee.scope import HIVE_UNIT
from rbee.systemd.daemon import Notifier
from rbee.wire.models import AddModel
from tests.integration.queen.hives.local_hive import error_of
from tests.integration.queen.models.fetching_hive import ACTOR, URL, Played, a_queen, story
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(15)

BY_URL = AddModel("bee", url=URL)


@pytest.fixture
def queen(tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(following, "POLL_LEAST", 0.0)
    monkeypatch.setattr(following, "RETRY_FIRST", 0.01)
    return a_queen(tmp_path, silent_notifier)


async def stop_hive(queen: Played) -> None:
    await queen.hive.systemd.stop_by_hand(HIVE_UNIT)
    await until(lambda: not queen.queen.hives.hive("localhost").standing.is_online)


async def test_it_waits_for_a_hive_that_is_away_and_goes_on_when_it_is_back(queen: Played) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    await stop_hive(queen)
    await queen.tape.until("model-waits", "fetching bee waits: hive localhost")
    queen.hive.asked.clear()
    await queen.hive.systemd.start_by_hand(HIVE_UNIT)
    await until(lambda: queen.hive.count("state") > 0)
    await queen.hive.ends(fetch_id)

    assert (await story(job))[-1][0] == "done"
    assert queen.row().state == "ready"
    assert queen.hive.count("fetch") == 0


async def test_a_job_waits_for_it_a_while_only_and_the_fetch_goes_on(
    queen: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "OFFLINE_PATIENCE", 0.1)
    job = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    await stop_hive(queen)
    error = error_of(await story(job))

    assert isinstance(error, HiveNotOnline)
    assert error.message.startswith("hive localhost ")
    assert error.message.endswith("; the fetch of bee continues when the hive is back")
    assert queen.row().state == "fetching"
    queen.hive.asked.clear()
    await queen.hive.systemd.start_by_hand(HIVE_UNIT)
    await until(lambda: queen.hive.count("state") > 0)
    await queen.hive.ends(fetch_id)
    await queen.tape.until("model-ready")


async def test_a_hive_that_is_removed_fails_it(queen: Played) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    await queen.fetching()
    removing = queen.queen.work.remove("localhost", ACTOR)
    await story(removing)
    error = error_of(await story(job))

    assert "hive 'localhost' is not in the hive catalog" in error.message
    assert queen.row().state == "failed"


async def test_a_url_that_was_just_typed_is_used_where_the_hive_has_lost_the_fetch(queen: Played) -> None:
    with_secret = AddModel("bee", url=f"{URL}?token=secret")
    job = queen.library.work.add(with_secret, ACTOR)
    fetch_id = await queen.fetching()
    # The hive has lost it; before it answers so, the same is typed again.
    queen.library.work._followings["bee"].ask_again(queen.hive.taken[0])
    async with queen.hive._news:
        del queen.hive.fetches[fetch_id]
        queen.hive._news.notify_all()
    await until(lambda: queen.hive.count("fetch") == 2)
    await queen.hive.ends(fetch_id)

    assert (await story(job))[-1][0] == "done"
    assert [fetch.url for fetch in queen.hive.taken] == [with_secret.url] * 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"state": "cancelled"}, "it is cancelled"),
        ({"state": "failed", "reason": "a wrong sum"}, "a wrong sum"),
        ({"state": "done"}, "its hive does not report where the file is, or what is in it"),
    ],
)
async def test_an_end_without_a_file_is_a_failure(queen: Played, change: dict[str, str], fault: str) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    await queen.hive.arrives(await queen.fetching(), **change)

    assert error_of(await story(job)).message == f"model bee could not be fetched: {fault}"
    assert queen.row().reason == fault


async def test_why_a_fetch_is_slow_is_narrated_with_how_far_it_is(queen: Played) -> None:
    queen.library.work.add(BY_URL, ACTOR)
    await queen.hive.arrives(
        await queen.fetching(), bytes=5, total=10, reason="the server cut the connection"
    )

    text = "fetching bee, 50 %, 5 bytes of 10 bytes, the server cut the connection"
    assert await queen.tape.until("fetching-model", "50 %") == text


def test_progress_without_a_total_is_narrated_less_and_less_often() -> None:
    now = 0.0
    pace = _Pace(lambda: now)
    shown = []
    for now in range(600):
        if pace.is_due(None):
            shown.append(now)

    assert shown[:6] == [0, 10, 30, 70, 130, 190]
    assert {later - one for one, later in pairwise(shown[4:])} == {PAUSE_MOST}


def test_each_tenth_is_narrated_once_and_between_them_after_a_pause() -> None:
    now = 0.0
    pace = _Pace(lambda: now)

    assert [pace.is_due(percent) for percent in (0.0, 5.0, 10.0, 19.9, 35.0, 35.0)] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    now = 5.0
    assert [pace.is_due(36.0), pace.is_due(37.0)] == [True, False]
    now = 14.9
    assert not pace.is_due(38.0)
    now = 15.0
    assert pace.is_due(38.0)
