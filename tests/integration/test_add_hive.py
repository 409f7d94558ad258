"""The happy flow, from the keeper to the catalog and back, and what can go wrong on the way."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Send

from rbee.errors import PROBLEM_PREFIX
from rbee.hive.devices import Detector
from rbee.scope import HIVE_UNIT
from rbee.wire.codec import decode, encode
from rbee.wire.hives import HiveView
from rbee.wire.routes import QueenRoutes
from tests.integration.house import ADD, DEVICES, OTHER_DEVICES, Hive, House, Spoil, answers, soon, until

HAS = (
    "has a cpu (Testchip 9, 8 threads, 16.0 GiB RAM), gpu0 (NVIDIA GeForce RTX 4090, 24.0 GiB VRAM), "
    "gpu1 (0000:02:00.0) and model catalog has 0 models and 0 workers available"
)
STORY = [
    "(queen bee) Adding local pc to hive catalog.",
    "(queen bee) waking up the bee hive at localhost",
    "(bee hive) Sending first heartbeat to queen",
    "(queen bee) first heartbeat from a bee hive is received from localhost. checking its capabilities...",
    "(queen bee) unknown capabilities of beehive localhost. asking the beehive to detect devices",
    "(bee hive) Detected CPU and GPUs, responding to queen",
    f"(queen bee) the beehive localhost {HAS}",
]


async def test_adding_tells_the_whole_story_in_the_words_of_the_seed_and_ends_online(house: House) -> None:
    await house.wake_queen()

    lines, end = await house.add().rest()

    assert lines == STORY
    assert end.kind == "done"
    hive = decode(HiveView, end.data["hive"])
    assert (hive.id, hive.host, hive.port) == ("localhost", "localhost", 8600)
    assert (hive.status, hive.state, hive.wanted) == ("online", "online", True)
    assert hive.devices == DEVICES
    assert await house.view() == hive


async def test_each_line_can_be_read_before_the_next_step_happens(house: House) -> None:
    await house.wake_queen()
    house.systemd.may_start.clear()
    detected = house.gate()
    house.detect_after(detected)
    story = await house.add().begins()

    assert [await story.line() for _ in range(2)] == STORY[:2]
    row = house.row()
    assert row is not None
    assert (row["status"], row["devices"], row["wanted"]) == ("pending", None, 1)
    assert (await house.view()).state == "pending"
    assert house.systemd.hive is None

    house.systemd.may_start.set()
    assert [await story.line() for _ in range(3)] == STORY[2:5]
    row = house.row()
    assert row is not None
    assert (row["status"], row["devices"]) == ("pending", None)
    assert story.is_quiet

    detected.set()
    assert [await story.line() for _ in range(2)] == STORY[5:]
    assert (await story.event()).kind == "done"
    row = house.row()
    assert row is not None
    assert row["status"] == "online"


async def test_the_catalog_has_the_row_with_the_columns_of_the_seed(house: House) -> None:
    await house.added()

    row = house.row()

    assert row is not None
    assert row.pop("created_at_ms") <= row.pop("updated_at_ms")
    assert json.loads(row.pop("devices")) == encode(DEVICES)
    seed = {"id": "localhost", "host": "localhost", "port": 8600, "status": "online", "wanted": 1}
    of_others = dict.fromkeys(["machine", "credential", "address", "cordoned"])
    assert row == seed | of_others | {"labels": "{}"}


async def test_every_line_of_the_story_is_in_the_journal_under_the_id_of_the_job(house: House) -> None:
    await house.wake_queen()
    story = house.add()
    assert (await story.end()).kind == "done"

    entries = house.journal.of(job_id=story.job_id)

    assert [f"({entry['RBEE_SPEAKER']}) {entry['MESSAGE']}" for entry in entries] == STORY
    for entry in entries:
        is_hive = entry["RBEE_SPEAKER"] == "bee hive"
        assert entry["SYSLOG_IDENTIFIER"] == ("rbee-hive" if is_hive else "queen-rbee")
        assert entry["RBEE_HIVE"] == "localhost"
        assert len(bytes.fromhex(entry["MESSAGE_ID"])) == 16
        assert entry["PRIORITY"] in ("5", "6")
        assert entry["RBEE_EVENT"]


async def test_the_journal_knows_who_asked(house: House) -> None:
    await house.wake_queen()
    story = house.add()
    await story.end()

    (entry,) = house.journal.of(job_id=story.job_id, event="adding")

    assert entry["RBEE_ACTOR_UID"].isdecimal()
    assert entry["RBEE_ACTOR_PID"].isdecimal()


async def test_the_status_lines_tell_what_goes_on_and_then_who_is_alive(house: House) -> None:
    queen = await house.wake_queen()
    assert queen.notifier.statuses[-1] == "hives: 0 online, 0 suspect, 0 offline"

    await house.add().end()

    assert any(
        text.endswith(f"; {STORY[1].removeprefix('(queen bee) ')}") for text in queen.notifier.statuses
    )
    assert queen.notifier.statuses[-1] == "hives: 1 online, 0 suspect, 0 offline"
    assert "heartbeat every" in house.hive.notifier.statuses[-1]


async def test_the_job_runs_on_when_nobody_listens(house: House) -> None:
    await house.wake_queen()

    started = await house.ask(QueenRoutes.ADD_HIVE, ADD)

    assert started.hive_id == "localhost"
    lines, end = await house.story(QueenRoutes.EVENTS, job_id=started.job_id).rest()
    assert (lines, end.kind) == (STORY, "done")
    job = await house.ask(QueenRoutes.JOB, job_id=started.job_id)
    assert (job.kind, job.hive_id, job.state, job.lines) == ("add-hive", "localhost", "done", len(STORY))


async def test_the_devices_of_this_very_machine_are_found_and_stored(house: House) -> None:
    detector = Detector()
    house.devices = detector.detect
    await house.wake_queen()
    try:
        lines, end = await house.add().rest()
    finally:
        detector.close()

    assert end.kind == "done"
    assert lines[:-1] == STORY[:-1]
    devices = decode(HiveView, end.data["hive"]).devices
    assert devices is not None
    assert devices.cpu.threads
    assert devices.cpu.ram_bytes


# Again, and at once


async def test_adding_twice_goes_on_from_where_it_is_and_keeps_one_row(house: House) -> None:
    await house.added()
    before = house.row()

    lines, end = await house.add().rest()

    assert lines == [
        STORY[0],
        "(queen bee) the bee hive at localhost is awake already",
        "(queen bee) asking the beehive localhost whether its devices have changed",
        *STORY[5:],
    ]
    assert end.kind == "done"
    row = house.row()
    assert before is not None
    assert row is not None
    assert row["created_at_ms"] == before["created_at_ms"]
    assert house.systemd.asked == [("start", HIVE_UNIT)]


async def test_adding_again_stores_devices_that_have_changed(house: House) -> None:
    await house.added()
    house.devices = lambda: OTHER_DEVICES

    end = await house.add().end()

    assert decode(HiveView, end.data["hive"]).devices == OTHER_DEVICES


async def test_adding_again_with_another_port_changes_the_row(house: House) -> None:
    await house.added()

    answer = await house.post("/add-hive", {"host": "localhost", "port": 8601})

    assert answer.status == 202
    end = await house.story(QueenRoutes.EVENTS, job_id=answer.json["job_id"]).end()
    assert end.kind == "done"
    row = house.row()
    assert row is not None
    assert row["port"] == 8601


async def test_of_two_who_add_at_once_each_has_a_story_of_its_own_that_ends(house: House) -> None:
    await house.wake_queen()
    house.systemd.may_start.clear()
    first = await house.add().begins()
    assert [await first.line() for _ in range(2)] == STORY[:2]
    second = await house.add().begins()
    assert await second.line() == STORY[0]
    assert first.job_id != second.job_id

    house.systemd.may_start.set()

    assert await first.rest() == (STORY[2:], await first_end(house, first.job_id))
    lines, end = await second.rest()
    assert lines[0] == "(queen bee) the bee hive at localhost is awake already"
    assert lines[-2:] == STORY[5:]
    assert end.kind == "done"
    assert house.systemd.asked == [("start", HIVE_UNIT)]
    assert house.row() is not None


async def first_end(house: House, job_id: str) -> object:
    """A story's end, as it is told to who asks for it later."""
    return await house.story(QueenRoutes.EVENTS, job_id=job_id).end()


async def test_twenty_clients_at_once_get_one_row_and_twenty_stories(house: House) -> None:
    await house.wake_queen()

    stories = [house.add() for _ in range(20)]
    ends = await asyncio.gather(*(story.rest() for story in stories))

    assert {end.kind for _lines, end in ends} == {"done"}
    assert len({story.job_id for story in stories}) == 20
    for lines, _end in ends:
        assert lines[0] == STORY[0]
        assert lines[-1] == STORY[-1]
        assert lines.count(STORY[5]) == 1
    assert house.systemd.asked == [("start", HIVE_UNIT)]
    assert house.row() is not None
    assert len((await house.ask(QueenRoutes.JOBS)).jobs) == 20


async def test_adding_while_the_hive_is_removed_waits_and_then_adds(house: House) -> None:
    await house.added()
    house.systemd.may_stop.clear()
    removing = await house.remove().begins()
    await removing.line()
    adding = await house.add().begins()
    assert await adding.line() == STORY[0]

    house.systemd.may_stop.set()

    assert (await removing.end()).kind == "done"
    lines, end = await adding.rest()
    assert (lines, end.kind) == (STORY[1:], "done")
    assert (await house.view()).state == "online"
    assert house.row() is not None


async def test_removing_while_the_hive_is_added_waits_and_then_removes(house: House) -> None:
    await house.wake_queen()
    house.systemd.may_start.clear()
    adding = await house.add().begins()
    await adding.to("waking up")
    removing = await house.remove().begins()

    house.systemd.may_start.set()

    assert (await adding.end()).kind == "done"
    assert (await removing.end()).kind == "done"
    assert house.row() is None
    assert house.systemd.state(HIVE_UNIT).is_stopped


# What can go wrong


async def cut_off(hive: Hive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    await send({"type": "http.response.body", "body": b'{"cpu":', "more_body": True})
    hive.listener.cut()
    hive.house.expected_errors.add("ASGI callable returned without completing response.")


async def not_http(hive: Hive, _send: Send) -> None:
    hive.listener.accepted[-1].send(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    hive.listener.cut()
    hive.house.expected_errors.add("ASGI callable returned without starting response.")


async def dribbles(hive: Hive, send: Send) -> None:
    """Each byte comes in time, and the answer never."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not hive.told_to_stop.is_set():
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


PROBLEM = json.dumps(
    {
        "type": PROBLEM_PREFIX + "too-many",
        "title": "Too much",
        "status": 503,
        "detail": "the hive has no time",
    }
).encode()
WRONG_SHAPE = json.dumps({"cpu": {"model": "x", "sockets": 1, "cores": 1, "threads": -1, "ram_bytes": 1}})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(answers(500, b"Internal Server Error", b"text/plain"), "not JSON", id="500"),
        pytest.param(answers(500, b'"sorry"'), "not a problem document", id="500-json"),
        pytest.param(answers(503, PROBLEM, b"application/problem+json"), "the hive has no time", id="503"),
        pytest.param(answers(200, b"<html>"), "not JSON", id="html"),
        pytest.param(answers(200, b"\xff\xfe\xfd"), "not JSON", id="bytes"),
        pytest.param(answers(200, b"[]"), "must be a JSON object", id="list"),
        pytest.param(answers(200, WRONG_SHAPE.encode()), "cpu.threads", id="shape"),
        pytest.param(answers(200, b"[" * 100_000), "", id="deep"),
        pytest.param(answers(200, b" " * 5_000_000), "larger than", id="huge"),
        pytest.param(answers(204, b""), "", id="empty"),
        pytest.param(cut_off, "does not answer", id="cut-off"),
        pytest.param(not_http, "does not answer", id="not-http"),
    ],
)
async def test_a_hive_that_refuses_its_devices_ends_the_story_in_error_and_adding_again_succeeds(
    house: House, spoil: Spoil, reason: str
) -> None:
    house.spoil = spoil
    await house.wake_queen()
    story = house.add()

    lines, end = await story.rest()

    assert end.kind == "error"
    assert end.data["type"] == PROBLEM_PREFIX + "hive-failed"
    assert end.data["status"] == 502
    assert reason in end.data["detail"]
    assert end.data["hint"]
    assert lines[:5] == STORY[:5]
    assert lines[-1].startswith("(queen bee) adding localhost failed: ")
    assert "RBEE_JOB_ID" in house.journal.of(event="add-failed")[0]
    row = house.row()
    assert row is not None
    assert (row["status"], row["devices"], row["wanted"]) == ("pending", None, 1)
    hive = await house.view()
    assert hive.state == "pending"
    assert hive.reason.startswith("its devices are not known: ")
    assert reason in hive.reason

    house.spoil = None
    lines, end = await house.add().rest()
    assert (lines[-1], end.kind) == (STORY[-1], "done")
    assert (await house.view()).state == "online"


async def test_a_hive_whose_detection_breaks_says_so_in_the_story(house: House) -> None:
    def breaks() -> None:
        raise OSError("the PCI bus is on fire")

    house.devices = breaks
    house.expected_errors.add("detecting the devices failed")
    await house.wake_queen()

    lines, end = await house.add().rest()

    assert lines[5] == "(bee hive) detecting the devices failed: the PCI bus is on fire"
    assert end.data["type"] == PROBLEM_PREFIX + "hive-failed"
    assert "the PCI bus is on fire" in end.data["detail"]
    assert (await house.view()).state == "pending"


async def test_a_detection_that_hangs_ends_the_story_at_its_deadline(house: House) -> None:
    house.detect_after(house.gate())
    await house.wake_queen(detect_timeout=0.3)

    lines, end = await house.add().rest()

    assert lines[:5] == STORY[:5]
    assert end.kind == "error"
    assert "did not answer within 0.3 s" in end.data["detail"]
    hive = await house.view()
    assert (hive.state, hive.status) == ("pending", "pending")
    assert "did not answer within 0.3 s" in hive.reason


async def test_an_answer_that_dribbles_ends_the_story_at_its_deadline_too(house: House) -> None:
    house.spoil = dribbles
    await house.wake_queen(detect_timeout=0.5)
    story = house.add()
    await story.to("asking the beehive")

    async with asyncio.timeout(3):  # six times the deadline; it would dribble for ever
        end = await story.end()

    assert end.kind == "error"


async def test_a_unit_that_fails_to_start_ends_the_story_with_what_systemd_and_the_unit_say(
    house: House,
) -> None:
    house.systemd.start_fails = True
    await house.wake_queen()

    lines, end = await house.add().rest()

    assert lines[:2] == STORY[:2]
    assert lines[-1].startswith("(queen bee) adding localhost failed: ")
    assert end.data["type"] == PROBLEM_PREFIX + "bad-config"
    assert "'exit-code'" in end.data["detail"]
    assert "the configuration is not valid" in end.data["detail"]
    assert HIVE_UNIT in end.data["hint"]
    hive = await house.is_in("offline")
    assert hive.reason
    assert hive.wanted
    assert hive.devices is None

    house.systemd.start_fails = False
    lines, end = await house.add().rest()
    assert (lines, end.kind) == (STORY, "done")


async def test_a_unit_that_does_not_become_ready_in_time_ends_the_story_in_error(house: House) -> None:
    house.systemd.may_start.clear()
    await house.wake_queen(hive_start_timeout=0.3)

    end = await house.add().end()

    assert end.data["type"] == PROBLEM_PREFIX + "timed-out"
    assert (await house.is_in("offline")).reason


async def test_a_hive_that_starts_and_never_beats_ends_the_story_in_error(house: House) -> None:
    house.hive_may_beat.clear()
    await house.wake_queen(hive_start_timeout=0.3)

    lines, end = await house.add().rest()

    assert lines[:2] == STORY[:2]
    assert end.data["type"] == PROBLEM_PREFIX + "timed-out"
    assert "no heartbeat came within 0.3 s" in end.data["detail"]
    assert end.data["hint"] == f"systemctl status {HIVE_UNIT}"
    hive = await house.is_in("offline")
    assert "no heartbeat came" in hive.reason


async def test_a_hive_that_dies_between_its_start_and_its_first_beat_ends_the_story_at_once(
    house: House,
) -> None:
    house.hive_may_beat.clear()
    await house.wake_queen(hive_start_timeout=8)
    story = house.add()
    await story.to("waking up")
    await until(lambda: house.systemd.state(HIVE_UNIT).is_active)

    await house.systemd.hive_dies()

    # systemd has said that it is dead; waiting longer for its beat would help nobody.
    async with asyncio.timeout(4):
        end = await story.end()
    assert end.kind == "error"
    assert "signal 9" in (await house.is_in("offline")).reason


async def test_a_hive_that_dies_in_the_moment_in_which_it_is_ready_ends_the_story_at_once(
    house: House,
) -> None:
    house.hive_may_beat.clear()
    house.systemd.dies_when_ready = True
    await house.wake_queen(hive_start_timeout=8)
    story = house.add()
    await story.to("waking up")

    # The job's end and the death are told in one breath, and may be heard in either order.
    async with asyncio.timeout(4):
        end = await story.end()
    assert end.kind == "error"
    assert "signal 9" in (await house.is_in("offline")).reason


async def test_a_hive_that_systemd_restarts_before_its_first_beat_is_added_all_the_same(
    house: House,
) -> None:
    house.hive_may_beat.clear()
    await house.wake_queen()
    story = house.add()
    await story.to("waking up")
    await until(lambda: house.systemd.state(HIVE_UNIT).is_active)

    house.hive_may_beat.set()
    await house.systemd.hive_dies(restart=True)

    lines, end = await story.rest()
    assert (lines, end.kind) == (STORY[2:], "done")
    assert (await house.view()).state == "online"


async def test_a_hive_that_dies_while_it_detects_ends_the_story_in_error(house: House) -> None:
    house.detect_after(house.gate())
    await house.wake_queen(detect_timeout=60)
    story = house.add()
    await story.to("asking the beehive")
    await until(lambda: house.detections == 1)

    dying = asyncio.create_task(house.systemd.hive_dies())
    end = await story.end()

    assert end.data["type"] == PROBLEM_PREFIX + "hive-failed"
    row = house.row()
    assert row is not None
    assert row["devices"] is None
    await soon(dying)


@pytest.mark.parametrize("again", [False, True], ids=["added", "added-again"])
async def test_a_hive_that_dies_while_it_detects_is_offline_and_not_pending_for_ever(
    house: House, again: bool
) -> None:
    await house.wake_queen(detect_timeout=60)
    if again:
        await house.add().end()
    house.detect_after(house.gate())
    story = house.add()
    await story.to("asking the beehive")
    await until(lambda: house.detections == 1 + again)

    await house.systemd.hive_dies()
    await story.end()

    # No beat of this process will come any more to correct it.
    hive = await house.is_in("offline")
    assert hive.reason == "its process ended (killed by signal 9)"
