"""Models are added and removed, with a hive that fetches their files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.errors import BadInput, ModelExists, NameTaken, RbeeError, TooMany, UnitFailed, UnknownHive
from rbee.narration import Narrator
from rbee.queen.models import following, work
from rbee.systemd.daemon import Notifier
from rbee.wire.codec import decode
from rbee.wire.jobs import Done
from rbee.wire.models import AddModel, ModelState, Serve
from tests.integration.queen.hives.local_hive import error_of
from tests.integration.queen.models.fetching_hive import (
    ACTOR,
    HEAD,
    SUM,
    URL,
    Played,
    a_queen,
    story,
    texts,
)
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(15)

PATH = AddModel("bee", path="/m/bee.gguf", head=HEAD, bytes=793_000)
BY_URL = AddModel("bee", url=URL)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_LEAST", 0.0)
    monkeypatch.setattr(following, "RETRY_FIRST", 0.01)


@pytest.fixture
def queen(tmp_path: Path, silent_notifier: Notifier):  # type: ignore[no-untyped-def]
    return a_queen(tmp_path, silent_notifier)


def done(events: list) -> Done:  # type: ignore[type-arg]
    kind, data = events[-1]
    assert kind == "done", data
    return decode(Done, data)


async def fetched(queen: Played, asked: AddModel = BY_URL) -> Done:
    """Add a model by URL, whose file arrives at once."""
    before = len(queen.hive.taken)
    job = queen.library.work.add(asked, ACTOR)
    await until(lambda: len(queen.hive.taken) > before or job.state != "running")
    if job.state == "running":
        await queen.hive.ends(queen.hive.taken[-1].id)
    return done(await story(job))


# A path


async def test_a_path_is_ready_at_once_and_no_hive_is_woken(queen: Played) -> None:
    events = await story(queen.library.work.add(PATH, ACTOR))

    assert done(events).model == queen.row()
    assert (queen.row().state, queen.row().path, queen.row().hive_id) == ("ready", "/m/bee.gguf", "localhost")
    assert texts(events) == [
        "Adding bee to model catalog, from /m/bee.gguf",
        "model bee is ready: /m/bee.gguf (llama, 1.0 M parameters, F16, 774.4 KiB)",
    ]
    assert queen.hive.systemd.asked == []


async def test_the_same_path_again_is_no_error_and_has_what_is_known_now(queen: Played) -> None:
    await story(queen.library.work.add(PATH, ACTOR))
    await queen.library.models.serve("bee", Serve(context=512), ACTOR)
    again = AddModel("bee", path="/m/bee.gguf", head=HEAD, bytes=5, memory_bytes=2**30)

    view = done(await story(queen.library.work.add(again, ACTOR))).model

    assert view is not None
    assert (view.bytes, view.memory_bytes, view.context, view.is_served) == (5, 2**30, 512, True)


async def test_a_model_that_is_added_again_while_it_is_being_served_stays_served(queen: Played) -> None:
    await story(queen.library.work.add(PATH, ACTOR))
    again = AddModel("bee", path="/m/bee.gguf", head=HEAD, bytes=5)

    serving = asyncio.ensure_future(queen.library.models.serve("bee", Serve(context=512), ACTOR))
    await story(queen.library.work.add(again, ACTOR))
    await serving

    assert (queen.row().bytes, queen.row().context, queen.row().is_served) == (5, 512, True)


@pytest.mark.parametrize(
    "other", [AddModel("bee", path="/m/other.gguf", head=HEAD, bytes=1), BY_URL], ids=["path", "url"]
)
async def test_another_source_under_the_same_name_is_refused(queen: Played, other: AddModel) -> None:
    await story(queen.library.work.add(PATH, ACTOR))

    with pytest.raises(
        ModelExists, match=r"a model bee already, from /m/bee.gguf on hive localhost"
    ) as caught:
        queen.library.work.add(other, ACTOR)
    assert (caught.value.status, caught.value.field) == (409, "name")
    assert "rbeectl model remove bee" in (caught.value.hint or "")


@pytest.mark.parametrize("field", ["head", "bytes"])
async def test_a_path_needs_what_was_read_there(queen: Played, field: str) -> None:
    asked = AddModel("bee", path="/m", **{"head": HEAD, "bytes": 1} | {field: None})  # type: ignore[arg-type]
    with pytest.raises(BadInput) as caught:
        queen.library.work.add(asked, ACTOR)
    assert caught.value.field == field


async def test_only_a_hive_of_the_catalog_can_have_it(queen: Played) -> None:
    with pytest.raises(UnknownHive):
        queen.library.work.add(AddModel("bee", url=URL, hive="gpu1"), ACTOR)


async def test_two_sources_at_once_are_not_both_added(queen: Played) -> None:
    other = AddModel("bee", path="/m/other.gguf", head=HEAD, bytes=1)
    jobs = [queen.library.work.add(asked, ACTOR) for asked in (PATH, other)]
    ends = [await story(job) for job in jobs]

    assert [events[-1][0] for events in ends] == ["done", "error"]
    assert isinstance(error_of(ends[1]), ModelExists)
    assert queen.row().path == "/m/bee.gguf"


# A URL


async def test_a_url_is_fetched_by_the_hive_which_is_woken_for_it(queen: Played) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    assert (queen.row().state, queen.row().path) == ("fetching", None)
    await queen.hive.arrives(fetch_id, bytes=200_000, total=793_000)
    await until(lambda: queen.row().progress is not None)
    assert queen.row().progress == pytest.approx(25.2, abs=0.1)
    await queen.hive.ends(fetch_id)
    events = await story(job)

    view = done(events).model
    assert view == queen.row()
    assert (view.state, view.path, view.sha256, view.bytes, view.head, view.progress) == (
        "ready", f"/store/{SUM}", SUM, 793_000, HEAD, None,
    )  # fmt: skip
    told = texts(events)
    assert told[0] == f"Adding bee to model catalog, from {URL}"
    assert told[-1] == f"model bee is ready: /store/{SUM} (llama, 1.0 M parameters, F16, 774.4 KiB)"
    assert "fetching bee, 25 %, 195.3 KiB of 774.4 KiB" in told
    assert queen.hive.jobs == [job.id]
    assert ("start", "rbee-hive.service") in queen.hive.systemd.asked


async def test_progress_is_narrated_at_each_tenth(queen: Played) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    for arrived in range(1, 100):
        await queen.hive.arrives(fetch_id, bytes=arrived, total=100)
        await until(lambda arrived=arrived: round(queen.row().progress or 0) == arrived)
    await queen.hive.ends(fetch_id)

    shown = [text.split(",")[1] for text in texts(await story(job)) if text.startswith("fetching bee")]
    assert shown[-9:] == [f" {percent} %" for percent in range(10, 100, 10)]
    assert len(shown) <= 11


async def test_two_who_add_the_same_both_hear_of_its_one_fetch(queen: Played) -> None:
    first = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    second = queen.library.work.add(BY_URL, ACTOR)
    await until(lambda: len(queen.library.work._followings["bee"]._stories) == 2)
    await queen.hive.ends(fetch_id)
    stories = [await story(job) for job in (first, second)]

    assert queen.hive.count("fetch") in (1, 2)
    assert len(queen.hive.fetches) == 1
    assert [done(events).model for events in stories] == [queen.row()] * 2
    assert [texts(events)[-1] for events in stories] == [texts(stories[0])[-1]] * 2


async def test_who_adds_the_same_again_has_the_hive_asked_again(queen: Played) -> None:
    queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    again = queen.library.work.add(BY_URL, ACTOR)
    await until(lambda: len(queen.library.work._followings["bee"]._stories) == 2)
    await queen.hive.arrives(fetch_id, reason="its unit was stopped")
    await until(lambda: queen.hive.count("fetch") == 2 and queen.hive.asked[-1][0] == "state")
    queen.library.work.add(BY_URL, ACTOR)
    await until(lambda: len(queen.library.work._followings["bee"]._stories) == 3)
    queen.hive.refusal = NameTaken("it is fetched by another URL")
    await queen.hive.arrives(fetch_id, reason="")
    await until(lambda: queen.hive.refusal is None)
    await queen.hive.ends(fetch_id)

    assert done(await story(again)).model == queen.row()


@pytest.mark.parametrize("end", ["ready", "failed"])
async def test_who_adds_the_same_again_while_its_end_is_stored_does_not_undo_that(
    queen: Played, end: ModelState
) -> None:
    queen.library.work.add(BY_URL, ACTOR)
    await queen.fetching()
    models = queen.library.models
    fields = {"path": f"/store/{SUM}", "head": HEAD} if end == "ready" else {}

    storing = asyncio.ensure_future(models.set_state(models.model("bee"), end, fields=fields))
    queen.library.work.add(AddModel("bee", url=URL, memory_bytes=2**30), ACTOR)
    await storing
    await until(lambda: queen.row().memory_bytes == 2**30)

    assert queen.row().state == ("ready" if end == "ready" else "fetching")


async def test_what_is_there_already_is_not_fetched_again(queen: Played) -> None:
    await fetched(queen)
    events = await story(queen.library.work.add(BY_URL, ACTOR))

    assert queen.hive.count("fetch") == 1
    assert texts(events)[-1].startswith("model bee is there already: /store/")


async def test_a_fetch_that_failed_says_why_and_the_same_command_tries_again(queen: Played) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    await queen.hive.arrives(fetch_id, state="failed", reason="the server answers 404")
    error = error_of(await story(job))

    assert error.message == "model bee could not be fetched: the server answers 404"
    assert texts(await story(job))[-1] == error.message
    assert [text for name, text, _ in queen.tape.told if name == "model-failed"] == [error.message]
    assert error.hint == "To try again: rbeectl model add bee URL"
    assert (queen.row().state, queen.row().reason) == ("failed", "the server answers 404")
    assert (await fetched(queen)).model == queen.row()
    assert (queen.row().state, queen.row().reason) == ("ready", "")


async def test_a_hive_that_refuses_fails_it(queen: Played) -> None:
    await queen.queen.work.ensure("localhost", *_outside(queen))
    queen.hive.refusal = BadInput("the URL is not valid", hint="Use https.")
    error = error_of(await story(queen.library.work.add(BY_URL, ACTOR)))

    assert error.message == "model bee could not be fetched: the URL is not valid"
    assert error.hint == "Use https."


def _outside(queen: Played):  # type: ignore[no-untyped-def]
    return queen.queen.jobs.open("add-hive", "localhost"), Narrator(), ACTOR


async def test_a_hive_that_is_busy_is_asked_again(queen: Played) -> None:
    await queen.queen.work.ensure("localhost", *_outside(queen))
    queen.hive.refusal = TooMany("there are many fetches")

    await fetched(queen)

    assert "fetching bee waits: hive localhost does not answer: there are many fetches" in [
        text for _, text, _ in queen.tape.told
    ]


async def test_a_secret_goes_to_the_hive_and_nowhere_else(queen: Played, tmp_path: Path) -> None:
    url = "https://ada:pass1234word@models.example/bee.gguf?sig=sig1234nature"
    view = (await fetched(queen, AddModel("bee", url=url))).model

    assert view is not None
    assert view.source == "https://***@models.example/bee.gguf?***"
    assert queen.hive.taken[0].url == url
    copy = await queen.queen.catalog.copy()
    written = [copy.read(), *(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())]
    copy.close()
    told = repr([queen.tape.told, await queen.queen.catalog.audit.last(99, None), queen.row()])
    for secret in ("pass1234word", "sig1234nature"):
        assert secret not in told
        assert all(secret.encode() not in content for content in written)


async def test_a_new_password_tries_the_same_fetch_again(queen: Played) -> None:
    job = queen.library.work.add(AddModel("bee", url="https://ada:old@h.example/bee.gguf"), ACTOR)
    await queen.hive.arrives(await queen.fetching(), state="failed", reason="the server answers 401")
    await story(job)

    await fetched(queen, AddModel("bee", url="https://ada:new@h.example/bee.gguf"))

    assert [one.id for one in queen.hive.taken] == [queen.hive.taken[0].id] * 2
    assert queen.row().state == "ready"


async def test_a_new_signature_takes_the_place_of_one_that_failed_but_not_of_a_file(queen: Played) -> None:
    job = queen.library.work.add(AddModel("bee", url=f"{URL}?old"), ACTOR)
    await queen.hive.arrives(await queen.fetching(), state="failed", reason="the server answers 403")
    await story(job)
    await fetched(queen, AddModel("bee", url=f"{URL}?new"))

    assert queen.row().state == "ready"
    with pytest.raises(ModelExists, match="with another query, or another sha256"):
        queen.library.work.add(AddModel("bee", url=f"{URL}?other"), ACTOR)


# After a restart


async def test_the_next_queen_follows_what_the_last_one_began(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with a_queen(tmp_path, silent_notifier) as queen:
        queen.library.work.add(BY_URL, ACTOR)
        fetch_id = await queen.fetching()
    queen.hive.asked.clear()

    async with a_queen(tmp_path, silent_notifier, queen.hive) as again:
        await again.fetching()
        await again.hive.ends(fetch_id)
        await again.tape.until("model-ready")
        assert again.row().state == "ready"
        assert again.hive.count("fetch") == 0


async def test_the_next_queen_asks_again_for_what_the_hive_never_got(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with a_queen(tmp_path, silent_notifier) as queen:
        queen.library.work.add(BY_URL, ACTOR)
        fetch_id = await queen.fetching()
    queen.hive.fetches.clear()

    async with a_queen(tmp_path, silent_notifier, queen.hive) as again:
        await until(lambda: again.hive.count("fetch") == 2)
        assert again.hive.taken[-1] == again.hive.taken[0]
        await again.hive.ends(fetch_id)
        await again.tape.until("model-ready")


async def test_a_secret_that_the_hive_never_got_has_to_be_given_again(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with a_queen(tmp_path, silent_notifier) as queen:
        queen.library.work.add(AddModel("bee", url=f"{URL}?secret"), ACTOR)
        await queen.fetching()
    queen.hive.fetches.clear()

    async with a_queen(tmp_path, silent_notifier, queen.hive) as again:
        text = await again.tape.until("model-failed")
        assert "the queen does not keep the secrets of its URL" in text
        assert again.row().state == "failed"


# Removing


async def test_a_file_used_in_place_stays(queen: Played) -> None:
    await story(queen.library.work.add(PATH, ACTOR))
    events = await story(queen.library.work.remove("bee", ACTOR))

    assert done(events) == Done(None, was_there=True)
    assert texts(events) == [
        "Removing bee from model catalog",
        "model bee is no longer in the model catalog; its file stays: /m/bee.gguf",
    ]
    assert queen.library.models.all() == []


async def test_a_file_that_was_fetched_is_removed(queen: Played) -> None:
    await fetched(queen)
    events = await story(queen.library.work.remove("bee", ACTOR))

    assert queen.hive.asked[-1] == ("remove", SUM)
    assert texts(events)[-1] == "model bee is no longer in the model catalog"


async def test_a_file_stays_for_another_model_that_has_it(queen: Played) -> None:
    await fetched(queen)
    await fetched(queen, AddModel("wasp", url="https://mirror.example/bee.gguf"))

    events = await story(queen.library.work.remove("bee", ACTOR))
    assert texts(events)[-1].endswith("; its file stays, as it is used by wasp")
    assert queen.hive.count("remove") == 0
    await story(queen.library.work.remove("wasp", ACTOR))
    assert queen.hive.asked[-1] == ("remove", SUM)


async def test_a_fetch_under_way_is_cancelled_and_who_waited_for_it_hears_so(queen: Played) -> None:
    adding = queen.library.work.add(BY_URL, ACTOR)
    fetch_id = await queen.fetching()
    events = await story(queen.library.work.remove("bee", ACTOR))

    assert done(events).was_there
    assert ("cancel", fetch_id) in queen.hive.asked
    assert error_of(await story(adding)).message in (
        "model bee was removed", "model bee could not be fetched: cancelled",
    )  # fmt: skip
    assert queen.library.models.all() == []
    assert (await fetched(queen)).model == queen.row()


async def test_a_fetch_that_is_done_before_it_is_cancelled_leaves_no_file(
    queen: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_LEAST", 60)
    queen.library.work.add(BY_URL, ACTOR)
    await until(lambda: len(queen.hive.taken) > 0)
    await queen.hive.ends(queen.hive.taken[0].id)
    await until(lambda: queen.row().state == "fetching")

    assert done(await story(queen.library.work.remove("bee", ACTOR))).was_there
    assert [what for what, _ in queen.hive.asked[-2:]] == ["cancel", "remove"]


async def test_another_query_takes_the_place_of_a_fetch_under_way(queen: Played) -> None:
    former = queen.library.work.add(AddModel("bee", url=f"{URL}?old"), ACTOR)
    fetch_id = await queen.fetching()
    await fetched(queen, AddModel("bee", url=f"{URL}?new"))

    assert error_of(await story(former)).message == "model bee is now being added from another URL"
    assert ("cancel", fetch_id) in queen.hive.asked
    assert queen.row().state == "ready"


async def test_a_fetch_that_the_hive_does_not_know_is_cancelled_already(queen: Played) -> None:
    job = queen.library.work.add(BY_URL, ACTOR)
    await queen.hive.arrives(await queen.fetching(), state="failed", reason="no")
    await story(job)
    queen.hive.fetches.clear()

    assert done(await story(queen.library.work.remove("bee", ACTOR))).was_there


async def test_removing_twice_is_no_error(queen: Played) -> None:
    events = await story(queen.library.work.remove("bee", ACTOR))

    assert done(events) == Done(None, was_there=False)
    assert texts(events)[-1] == "model bee was not in the model catalog"


async def test_a_model_whose_workers_do_not_stop_stays_and_is_not_served(queen: Played) -> None:
    async def stop_workers(model: str, story: Narrator, why: RbeeError) -> None:
        assert why.message == "model bee was removed"
        assert not queen.library.models.model(model).row.is_served
        raise UnitFailed("a worker does not stop")

    await story(queen.library.work.add(PATH, ACTOR))
    await queen.library.models.serve("bee", Serve(), ACTOR)
    queen.library.work.stop_workers = stop_workers
    events = await story(queen.library.work.remove("bee", ACTOR))

    assert error_of(events).message == "a worker does not stop"
    assert texts(events)[-1] == "removing bee failed: a worker does not stop"
    assert queen.row().state == "ready"


async def test_the_hive_is_woken_to_remove_a_file(queen: Played) -> None:
    await fetched(queen)
    await queen.hive.systemd.stop_by_hand("rbee-hive.service")
    await until(lambda: not queen.queen.hives.hive("localhost").standing.is_online)

    assert done(await story(queen.library.work.remove("bee", ACTOR))).was_there
    assert queen.hive.asked[-1] == ("remove", SUM)


async def test_a_model_whose_hive_does_not_start_stays(queen: Played) -> None:
    await fetched(queen)
    await queen.hive.systemd.stop_by_hand("rbee-hive.service")
    await until(lambda: not queen.queen.hives.hive("localhost").standing.is_online)
    queen.hive.systemd.refusal = UnitFailed("rbee-hive.service failed")

    assert (
        error_of(await story(queen.library.work.remove("bee", ACTOR))).message == "rbee-hive.service failed"
    )
    assert queen.row().state == "ready"


async def test_a_model_on_a_hive_elsewhere_that_is_away_stays(
    queen: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "ONLINE_PATIENCE", 0.1)
    await fetched(queen)
    row = await queen.queen.catalog.hives.add("gpu1", "gpu1", 8600)
    queen.queen.hives.take_in(row, "offline", "its connection closed")
    await queen.library.models.put(queen.library.models.model("bee").row._replace(hive_id="gpu1"), ACTOR)
    error = error_of(await story(queen.library.work.remove("bee", ACTOR)))

    assert error.message == "hive gpu1 has the file of bee, and is offline: its connection closed"
    assert error.hint == "rbeectl add-hive gpu1"
    assert queen.row().state == "ready"


async def test_a_model_on_a_hive_that_was_removed_goes_and_its_file_stays(queen: Played) -> None:
    await fetched(queen)
    await story(queen.queen.work.remove("localhost", ACTOR))
    events = await story(queen.library.work.remove("bee", ACTOR))

    assert texts(events)[-1].endswith("; its file stays on localhost, which is not in the catalog")
    assert queen.library.models.all() == []


async def test_an_internal_error_ends_the_job(queen: Played) -> None:
    async def stop_workers(model: str, story: Narrator, why: RbeeError) -> None:
        raise ZeroDivisionError

    await story(queen.library.work.add(PATH, ACTOR))
    queen.library.work.stop_workers = stop_workers
    error = error_of(await story(queen.library.work.remove("bee", ACTOR)))

    assert type(error) is RbeeError
    assert "internal error: ZeroDivisionError()" in error.message
    await asyncio.sleep(0)
