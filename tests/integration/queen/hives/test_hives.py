"""What adding, removing, beating and dying mean, told as the user reads it.

systemd is played at the edge; the hive behind it is the product's own, on a real socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rbee import __version__
from rbee.client.link import HeartbeatClient
from rbee.errors import (
    CatalogFailed,
    HiveFailed,
    NotPermitted,
    RbeeError,
    Stopping,
    TimedOut,
    TooMany,
    UnitFailed,
    UnknownHive,
    UnknownHost,
    from_problem,
)
from rbee.hive import app as hive_app
from rbee.hive.devices import Detector, Sampler
from rbee.hive.heartbeat import Heart
from rbee.narration import CATALOG_CHANGED, Event, Narrator
from rbee.queen.hives.describe import describe
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Job, Jobs
from rbee.queen.restraint import AT_ONCE, LINES
from rbee.queen.store.store import Store
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, TARGET
from rbee.systemd.daemon import Notifier
from rbee.systemd.unit import UnitState
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.wire.events import Line
from rbee.wire.hives import AddHive, Heartbeat, HeartbeatAck, HiveView, MachineEnd
from rbee.wire.jobs import Done
from tests.integration.unix_http import served
from tests.unit.played_systemd import ACTIVE, INACTIVE, KILLED, DiedError, NoProgram, PlayedSystemd
from tests.unit.queens import a_queen as open_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


DEVICES = Devices(
    Cpu("AMD EPYC 7763", 2, 128, 256, 512 * 2**30),
    (Gpu(0, "nvidia", "NVIDIA H100 PCIe", "GPU-a", 80 * 2**30, "550.54", "0000:01:00.0"),),
)
HAS = (
    "the beehive localhost has a cpu (AMD EPYC 7763, 256 threads, 512.0 GiB RAM), "
    "gpu0 (NVIDIA H100 PCIe, 80.0 GiB VRAM) and model catalog has 0 models and 0 workers available"
)
STORY = [
    ("queen bee", "Adding local pc to hive catalog."),
    ("queen bee", "waking up the bee hive at localhost"),
    ("bee hive", "Sending first heartbeat to queen"),
    (
        "queen bee",
        "first heartbeat from a bee hive is received from localhost. checking its capabilities...",
    ),
    ("queen bee", "unknown capabilities of beehive localhost. asking the beehive to detect devices"),
    ("bee hive", "Detected CPU and GPUs, responding to queen"),
    ("queen bee", HAS),
]
ACTOR = {"actor_uid": "1000", "actor_pid": "42"}
HIVE = {"actor_uid": "990", "actor_pid": "4242"}
HERSELF = {"actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}
LOCALHOST = AddHive("localhost", 8600)


class Tape(Narrator):
    """Everything that the journal would get; who waits for a line is woken by it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []
        self._news = asyncio.Event()

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))
        self._news.set()

    async def until(self, event: str, text: str = "") -> str:
        """The first line of that name with that text in it, now or later."""
        while True:
            for name, told, _ in self.told:
                if name == event and text in told:
                    return told
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 5)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.told]


class Sorted(Narrator):
    """The catalog's changes apart from the rest."""

    def __init__(self, tape: Tape, audit: Tape) -> None:
        self._tapes = {True: audit, False: tape}

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self._tapes[event.name == CATALOG_CHANGED.name].narrate(event, text, **fields)


class Wire(HeartbeatClient):
    """The way from a hive to the queen's rules, with all that JSON does to a beat."""

    def __init__(self, hives: Callable[[], Hives]) -> None:
        self._hives = hives
        self.is_cut = False

    @property
    def is_open(self) -> bool:
        return not self.is_cut

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        if self.is_cut:
            raise TimedOut("the wire is cut")
        beat = decode(Heartbeat, json.loads(json.dumps(encode(heartbeat))))
        ack = await self._hives().heartbeat(beat, HIVE)
        return decode(HeartbeatAck, json.loads(json.dumps(encode(ack))))


class Hive:
    """The hive's program, as rbee-hive.service runs it."""

    def __init__(self, path: Path, notifier: Notifier, hives: Callable[[], Hives]) -> None:
        self.wire = Wire(hives)
        self.detect: Callable[[], Devices] = lambda: DEVICES
        self.starts = 0
        self._path = path
        self._notifier = notifier
        self._stack = AsyncExitStack()
        self._heart: Heart
        self._beating: asyncio.Task[None]

    async def start(self) -> None:
        self.starts += 1
        self._heart = Heart(
            "localhost", self.wire, Narrator(), status=lambda status: None, queen_name="the queen"
        )
        sampler = Sampler("localhost", Detector())
        app = hive_app.build(self._heart, lambda: self.detect(), lambda: None, look=sampler.look)
        self._path.unlink(missing_ok=True)
        await self._stack.enter_async_context(served(app, self._path, self._notifier))
        self._beating = asyncio.ensure_future(self._heart.run())

    async def kill(self) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        await self._stack.aclose()

    async def stop(self) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        await self._heart.goodbye()
        await self._stack.aclose()

    async def close(self) -> None:
        if self.starts:
            await self.kill()


@dataclass
class Queen:
    hives: Hives
    work: HiveWork
    jobs: Jobs
    catalog: Store
    systemd: PlayedSystemd
    hive: Hive
    tape: Tape
    audit: Tape

    async def add(self) -> list[tuple[str, Any]]:
        return await told(self.work.add(LOCALHOST, ACTOR))

    async def row(self) -> tuple[str, bool, Devices | None] | None:
        row = await self.catalog.hives.find("localhost")
        return (row.status, row.wanted, row.devices) if row else None

    def life(self) -> tuple[str, str]:
        life = self.hives.hive("localhost").standing.life
        return life.state, life.reason


async def told(job: Job) -> list[tuple[str, Any]]:
    """The job's story up to its end: kind and data of each event."""
    events = []
    async for chunk in job.follow(0):
        if not chunk.startswith(b":"):
            fields = dict(one.split(": ", 1) for one in chunk.decode().rstrip("\n").split("\n"))
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def lines(events: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(data["speaker"], data["text"]) for kind, data in events if kind == "line"]


def error_of(events: list[tuple[str, Any]]) -> RbeeError:
    kind, data = events[-1]
    assert kind == "error"
    return from_problem(data)


def hive_of(events: list[tuple[str, Any]]) -> HiveView | None:
    kind, data = events[-1]
    assert kind == "done", data
    return decode(Done, data).hive


MakeQueen = Callable[..., Any]


@pytest.fixture
def queen(tmp_path: Path, silent_notifier: Notifier) -> MakeQueen:
    """A queen at work; what she leaves behind fails the test."""

    @asynccontextmanager
    async def queen(
        *,
        begin: bool = True,
        interval: float = 15,
        grace: float = 5,
        systemd: PlayedSystemd | None = None,
        **config: Any,
    ) -> AsyncIterator[Queen]:
        tape, audit, systemd = Tape(), Tape(), systemd or PlayedSystemd()
        hive = Hive(tmp_path / "hive.sock", silent_notifier, lambda: product.hives)
        systemd.programs[HIVE_UNIT] = hive
        settings = {"heartbeat_interval": interval, "heartbeat_grace": grace, **config}
        opened = open_queen(tmp_path, Sorted(tape, audit), systemd=systemd, **settings)
        try:
            async with opened as product:
                if begin:
                    product.hives.begin()
                yield Queen(
                    product.hives, product.work, product.jobs, product.catalog, systemd, hive, tape, audit
                )
        finally:
            await hive.close()

    return queen


@pytest.fixture(autouse=True)
def no_task_of_hers_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if "a task of the queen failed" in record.getMessage()] == []


# Adding


async def test_adding_tells_the_story_and_ends_with_the_hive_online(queen: MakeQueen) -> None:
    async with queen() as q:
        events = await q.add()

        assert lines(events) == STORY
        hive = hive_of(events)
        assert hive is not None
        assert (hive.id, hive.state, hive.status, hive.devices) == (
            "localhost",
            "online",
            "online",
            DEVICES,
        )
        assert hive.last_beat_ms is not None
        assert await q.row() == ("online", True, DEVICES)
        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert q.life() == ("online", "heartbeats received")


async def test_each_line_of_the_queen_s_story_names_its_job_hive_and_who_asked(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.add(LOCALHOST, ACTOR)
        await told(job)

        assert len(q.tape.told) == 5
        for _, _, fields in q.tape.told:
            assert fields == {"job_id": job.id, "hive": "localhost", **ACTOR}


async def test_a_story_is_told_whether_anybody_listens_or_not(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.add(LOCALHOST, ACTOR)
        await q.tape.until("has-devices")
        await until(lambda: job.state != "running")

        assert lines(await told(job)) == STORY


async def test_adding_again_goes_on_from_where_the_hive_is(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        before = await q.catalog.hives.find("localhost")
        q.hive.detect = lambda: replace(DEVICES, gpus=())

        events = await q.add()

        assert [text for _, text in lines(events)] == [
            "Adding local pc to hive catalog.",
            "the bee hive at localhost is awake already",
            "asking the beehive localhost whether its devices are what they were",
            "Detected CPU and GPUs, responding to queen",
            describe("localhost", replace(DEVICES, gpus=())),
        ]
        assert hive_of(events) is not None
        after = await q.catalog.hives.find("localhost")
        assert before is not None
        assert after is not None
        assert after.created_at_ms == before.created_at_ms
        assert after.devices == replace(DEVICES, gpus=())
        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert len(await q.catalog.hives.all()) == 1


async def test_two_who_add_at_once_wake_one_hive_and_both_hear_the_end(queen: MakeQueen) -> None:
    async with queen() as q:
        first, second = await asyncio.gather(q.add(), q.add())

        assert hive_of(first) is not None
        assert hive_of(second) is not None
        assert q.hive.starts == 1
        assert len(await q.catalog.hives.all()) == 1


async def test_a_hive_that_runs_before_anybody_added_it_is_taken_as_it_is(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.systemd.start_by_hand(HIVE_UNIT)

        events = await q.add()

        assert hive_of(events) is not None
        assert q.systemd.asked == []
        assert await q.row() == ("online", True, DEVICES)


@pytest.mark.parametrize("host", ["blade-7", "LOCALHOST.lan", "localhost ", "127.0.0.1", "\x1b[31m"])
async def test_an_unknown_host_is_refused_and_nothing_is_written(queen: MakeQueen, host: str) -> None:
    async with queen() as q:
        with pytest.raises(UnknownHost) as caught:
            q.work.add(AddHive(host), ACTOR)

        assert caught.value.field == "host"
        assert "rbeectl add-hive HOST" in (caught.value.hint or "")
        assert "sudo rbeectl join QUEEN:8500" in (caught.value.hint or "")
        assert await q.catalog.hives.all() == []
        assert q.jobs.all() == []
        assert q.tape.told == []


async def test_a_unit_that_does_not_start_ends_the_story_with_the_unit_s_own_words(queen: MakeQueen) -> None:
    class Broken(NoProgram):
        async def start(self) -> None:
            raise DiedError(
                UnitState("loaded", "failed", "failed", result="exit-code", status_text="Id= must match")
            )

    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = Broken()

        events = await q.add()

        error = error_of(events)
        assert type(error) is UnitFailed
        assert "its result is 'exit-code', it said: Id= must match" in error.message
        assert lines(events)[-1] == ("queen bee", f"adding localhost failed: {error.message}")
        assert q.life()[0] == "offline"
        assert await q.row() == ("offline", True, None)

        q.systemd.programs[HIVE_UNIT] = q.hive
        assert hive_of(await q.add()) is not None


async def test_a_queen_who_may_not_start_the_unit_says_so(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.refusal = NotPermitted("systemd does not let you do this")

        events = await q.add()

        assert type(error_of(events)) is NotPermitted
        assert q.life() == ("offline", "systemd does not let you do this")


async def test_a_hive_that_starts_and_never_beats_is_not_waited_for_for_ever(queen: MakeQueen) -> None:
    async with queen(hive_start_timeout=0.1) as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()

        error = error_of(await q.add())

        assert type(error) is TimedOut
        assert error.message == "rbee-hive.service started, and no heartbeat came within 0.1 s"
        assert q.life() == ("offline", error.message)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            UnitState("loaded", "failed", "failed", result="exit-code", exit_status=78),
            "its process ended (exit status 78)",
        ),
        (
            UnitState("loaded", "failed", "failed", result="signal", exit_status=11),
            "its process ended (killed by signal 11)",
        ),
        (INACTIVE, "stopped by an administrator"),
    ],
)
async def test_a_hive_that_dies_before_its_first_beat_ends_the_story_at_once(
    queen: MakeQueen, state: UnitState, reason: str
) -> None:
    async with queen(hive_start_timeout=60) as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        q.systemd.becomes(HIVE_UNIT, state)

        error = error_of(await told(job))

        assert type(error) is UnitFailed
        assert reason in error.message
        assert q.life()[0] == "offline"


async def test_a_hive_that_refuses_to_tell_its_devices_ends_the_story_there(queen: MakeQueen) -> None:
    def detect() -> Devices:
        raise RuntimeError("the driver is on fire")

    async with queen() as q:
        q.hive.detect = detect

        events = await q.add()

        error = error_of(events)
        assert type(error) is HiveFailed
        assert "the driver is on fire" in error.message
        assert ("bee hive", "detecting the devices failed: the driver is on fire") in lines(events)
        assert ("queen bee", HAS) not in lines(events)
        row = await q.row()
        assert row is not None
        assert (row[0] == "online", row[2]) == (False, None)
        assert q.life()[0] != "online"

        # The cure is to mend the cause and to say it again.
        q.hive.detect = lambda: DEVICES
        assert hive_of(await q.add()) is not None


async def test_a_hive_that_does_not_tell_its_devices_in_time_ends_the_story(queen: MakeQueen) -> None:
    loop, goes_on = asyncio.get_running_loop(), asyncio.Event()

    def detect() -> Devices:
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(5)
        return DEVICES

    async with queen(detect_timeout=0.1) as q:
        q.hive.detect = detect
        events = await q.add()
        goes_on.set()

        assert "did not answer within 0.1 s" in error_of(events).message
        row = await q.row()
        assert row is not None
        assert row[2] is None


async def test_an_error_that_nobody_foresaw_ends_the_story_and_is_logged(
    queen: MakeQueen, caplog: pytest.LogCaptureFixture
) -> None:
    async with queen() as q:
        q.systemd.ask_start = lambda unit: 1 / 0

        error = error_of(await q.add())

        assert "internal error: ZeroDivisionError" in error.message
    (record,) = [one for one in caplog.records if one.name == "rbee"]
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


async def test_more_jobs_than_are_kept_are_refused_before_anything_happens(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        for _ in range(16):
            q.work.add(LOCALHOST, ACTOR)

        with pytest.raises(TooMany):
            q.work.add(LOCALHOST, ACTOR)
        with pytest.raises(TooMany):
            q.work.remove("localhost", ACTOR)
        await until(lambda: q.tape.names().count("adding") == 16)
        # She may still be looking at what she has to bring back, which comes first.
        async with asyncio.timeout(5):
            while len(await q.catalog.hives.all()) != 1:
                pass


async def test_a_job_that_was_only_just_asked_for_is_cut_off_without_a_warning(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.add(LOCALHOST, ACTOR)
        await q.hives.end()
        q.jobs.close()

        assert "the queen is being stopped" in error_of(await told(job)).message


async def test_a_queen_who_stops_cuts_her_work_off_and_leaves_none_behind(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await q.tape.until("waking")
        await q.hives.end()
        q.jobs.close()

        assert "the queen is being stopped" in error_of(await told(job)).message
        assert await q.row() == ("pending", True, None)


# Removing


async def test_removing_stops_the_unit_and_forgets_the_hive(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        events = await told(q.work.remove("localhost", ACTOR))

        assert lines(events) == [
            ("queen bee", "Removing localhost from hive catalog"),
            ("queen bee", "the beehive localhost is stopped and no longer in the hive catalog"),
        ]
        assert hive_of(events) is None
        assert await q.catalog.hives.all() == []
        assert q.hives.find("localhost") is None
        assert q.systemd.states[HIVE_UNIT] == INACTIVE
        assert "hive-offline" not in q.tape.names(), "its end is no news when it was asked for"


@pytest.mark.parametrize("step", ["touch", "remove"])
async def test_a_hive_that_the_catalog_does_not_let_go_of_runs_on(
    queen: MakeQueen, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.asked.clear()

        async def fail(*_arguments: Any, **_options: Any) -> None:
            raise CatalogFailed("the disk is full")

        monkeypatch.setattr(q.catalog.hives, step, fail)
        events = await told(q.work.remove("localhost", ACTOR))

        assert "the disk is full" in str(events[-1])
        assert q.systemd.states[HIVE_UNIT].is_active
        stopped = [("stop", HIVE_UNIT), ("start", HIVE_UNIT)]
        assert q.systemd.asked == ([] if step == "touch" else stopped)
        assert [row.id for row in await q.catalog.hives.all()] == ["localhost"]


async def test_removing_twice_is_no_error(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await told(q.work.remove("localhost", ACTOR))

        events = await told(q.work.remove("localhost", ACTOR))

        assert hive_of(events) is None
        assert lines(events)[-1][1] == "the beehive localhost was not in the hive catalog"


async def test_removing_a_hive_that_is_not_of_this_machine_stops_no_unit(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        assert hive_of(await told(q.work.remove("blade-7", ACTOR))) is None
        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert len(await q.catalog.hives.all()) == 1


async def test_a_hive_that_could_not_be_stopped_stays_in_the_catalog(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.refusal = NotPermitted("systemd does not let you do this")

        events = await told(q.work.remove("localhost", ACTOR))

        assert type(error_of(events)) is NotPermitted
        assert lines(events)[-1][1].startswith("removing localhost failed")
        assert await q.row() == ("online", True, DEVICES)
        assert q.life()[0] == "online"


async def test_a_hive_that_was_removed_can_be_added_again(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await told(q.work.remove("localhost", ACTOR))

        assert lines(await q.add()) == STORY


# Beating


def beat(**fields: Any) -> Heartbeat:
    return replace(
        Heartbeat("localhost", "2026-01-31T12:00:00Z", (), "1" * 32, version=__version__), **fields
    )


async def test_a_beat_of_a_hive_that_nobody_added_is_refused_and_nothing_is_written(queen: MakeQueen) -> None:
    async with queen() as q:
        for state in ("starting", "ready", "stopping"):
            with pytest.raises(UnknownHive, match="'localhost' is not in the hive catalog") as caught:
                await q.hives.heartbeat(beat(state=state))
        assert caught.value.hint == "rbeectl add-hive localhost"
        assert await q.catalog.hives.all() == []
        assert q.hives.find("localhost") is None


async def test_a_beat_of_a_hive_that_is_online_writes_nothing_to_disk(
    queen: MakeQueen, tmp_path: Path
) -> None:
    async with queen() as q:
        await q.add()
        await q.catalog.hives.all()
        before = [(tmp_path / f"catalog.db{suffix}").read_bytes() for suffix in ("", "-wal")]

        for _ in range(20):
            await q.hive._heart.beat()

        after = [(tmp_path / f"catalog.db{suffix}").read_bytes() for suffix in ("", "-wal")]
        assert after == before
        life = q.hives.hive("localhost").standing.life
        assert life is not None
        assert life.last_beat_ms is not None


async def test_an_ack_says_how_often_to_beat(queen: MakeQueen) -> None:
    async with queen(interval=2.5) as q:
        await q.add()

        assert await q.hives.heartbeat(beat(state="starting")) == HeartbeatAck("ok", 2500, None)


async def test_a_hive_that_only_announces_itself_is_not_alive_yet(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)

        ack = await q.hives.heartbeat(beat(state="starting"))

        assert ack.job_id == job.id
        assert job.state == "running"
        assert "first-heartbeat" not in q.tape.names()


async def test_a_hive_speaks_for_itself_only_and_into_its_own_job_only(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        forged = Line("queen bee", "all is well", "has-devices", "2026-01-31T12:00:00Z")

        await q.hives.heartbeat(beat(state="starting", job_id=job.id, lines=(forged,)))
        await q.hives.heartbeat(beat(state="starting", job_id="7" * 32, lines=(forged,)))
        await q.hives.heartbeat(beat(state="starting", lines=(forged,)))
        q.jobs.close()

        assert lines(await told(job))[2:] == [("bee hive", "all is well")]


async def test_a_hive_s_line_has_a_hive_s_word_whatever_it_says_and_a_job_of_its_own_or_none(
    queen: MakeQueen,
) -> None:
    async with queen() as q:
        passed_on: list[tuple[str, str, str | None]] = []
        q.hives._relay._passed_on = lambda hive_id, line, job_id: passed_on.append(
            (line.speaker, line.event, job_id)
        )
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        said = [
            Line("queen bee", "x", event, "2026-01-31T12:00:00Z")
            for event in ("detected", "hive-online", "queen-awake", "of-a-newer-version")
        ]

        await q.hives.heartbeat(beat(state="starting", job_id=job.id, lines=tuple(said)))
        await q.hives.heartbeat(beat(state="starting", job_id="7" * 32, lines=(said[0],)))
        q.jobs.close()

        words = ["detected", "hive-said", "hive-said", "hive-said"]
        assert passed_on == [
            *(("bee hive", word, job.id) for word in words), ("bee hive", "detected", None)
        ]  # fmt: skip


async def test_a_hive_that_speaks_without_end_is_cut_short_and_that_is_told(queen: MakeQueen) -> None:
    async with queen() as q:
        passed_on: list[str] = []
        q.hives._relay._passed_on = lambda hive_id, line, job_id: passed_on.append(line.text)
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        for number in range(LINES.burst + 400):
            line = Line("bee hive", f"{number}", "detected", "2026-01-31T12:00:00Z")
            await q.hives.heartbeat(beat(state="starting", lines=(line,)))
        assert passed_on == [f"{number}" for number in range(LINES.burst)]
        told = [text for name, text, _ in q.tape.told if name == "hive-restrained"]
        assert len(told) == AT_ONCE
        assert told[0] == f"the beehive localhost sends more lines than are relayed: {LINES.burst}"


# Dying, and coming back


async def test_a_stop_by_an_administrator_is_respected(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline", "stopped by an administrator")
        await until(lambda: q.life() == ("offline", "stopped by an administrator"))

        async def is_stored() -> bool:
            return await q.row() == ("offline", False, DEVICES)

        await until(is_stored)


async def test_a_process_that_is_killed_is_known_at_once_and_stays_wanted(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        await q.hive.kill()
        q.systemd.becomes(HIVE_UNIT, KILLED)
        await q.tape.until("hive-offline")

        assert q.life() == ("offline", "its process ended (killed by signal 9)")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


async def test_a_hive_that_systemd_started_again_comes_online_with_its_devices_of_now(
    queen: MakeQueen,
) -> None:
    async with queen() as q:
        await q.add()
        await q.hive.kill()
        q.systemd.becomes(HIVE_UNIT, KILLED)
        await q.tape.until("hive-offline")
        q.hive.detect = lambda: replace(DEVICES, gpus=())

        await q.systemd.start_by_hand(HIVE_UNIT)
        await q.tape.until("hive-online", "the beehive localhost is online again")

        assert q.life()[0] == "online"
        assert await q.row() == ("online", True, replace(DEVICES, gpus=()))


async def test_a_hive_that_an_administrator_starts_again_is_wanted_again(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline")

        await q.systemd.start_by_hand(HIVE_UNIT)
        await q.tape.until("hive-online")

        assert q.life()[0] == "online"
        assert await q.row() == ("online", True, DEVICES)


async def test_a_hive_that_goes_with_the_queen_stays_wanted(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.job(QUEEN_UNIT, "stop")

        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline", "stopped together with the queen")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("rebooting", "its machine is rebooting"), ("shutting-down", "its machine is shutting down")],
)
async def test_a_hive_that_goes_with_the_machine_stays_wanted(
    queen: MakeQueen, ending: MachineEnd, reason: str
) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.ending = ending

        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline", reason)

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


async def test_silence_makes_a_hive_suspect_then_offline_and_a_beat_brings_it_back(queen: MakeQueen) -> None:
    async with queen(interval=0.1, grace=0.05) as q:
        await q.add()
        q.hive.wire.is_cut = True

        await q.tape.until("hive-suspect", "the beehive localhost is suspect: no heartbeat for more than")
        assert await q.row() == ("online", True, DEVICES)
        await q.tape.until("hive-offline", "no heartbeat for 3 intervals of 0.1 s")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)
        q.hive.wire.is_cut = False
        await q.tape.until("hive-online", "the beehive localhost is online again")

        assert q.life()[0] == "online"
        assert q.tape.names().count("first-heartbeat") == 1, "its process is the same"


async def test_a_hive_that_hangs_and_is_then_stopped_by_an_administrator_stays_stopped(
    queen: MakeQueen,
) -> None:
    async with queen(interval=0.05, grace=0.05) as q:
        await q.add()
        q.hive.wire.is_cut = True
        await q.tape.until("hive-offline", "no heartbeat for 3 intervals")

        await q.systemd.stop_by_hand(HIVE_UNIT)

        async def is_stored() -> bool:
            return await q.row() == ("offline", False, DEVICES)

        await until(is_stored)


async def test_a_crash_loop_that_an_administrator_ends_stays_ended(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await q.hive.kill()
        q.systemd.becomes(HIVE_UNIT, KILLED)
        await q.tape.until("hive-offline")

        await q.systemd.stop_by_hand(HIVE_UNIT)

        async def is_stored() -> bool:
            return await q.row() == ("offline", False, DEVICES)

        await until(is_stored)


async def test_a_catalog_that_cannot_be_written_does_not_end_the_judging(
    queen: MakeQueen, tmp_path: Path
) -> None:
    async with queen(interval=0.05, grace=0.05) as q:
        await q.add()
        q.catalog.engine._connection.execute("PRAGMA query_only = 1")
        q.hive.wire.is_cut = True
        await q.tape.until("hive-offline", "3 intervals")
        q.hive.wire.is_cut = False
        await q.tape.until("hive-online")
        q.tape.told.clear()
        q.catalog.engine._connection.execute("PRAGMA query_only = 0")
        q.hive.wire.is_cut = True

        await q.tape.until("hive-offline", "3 intervals")


# Who changed the catalog

WANTED = "hive localhost (host localhost, port 8600) is wanted in the hive catalog"
ONLINE = "hive localhost is online in the hive catalog, with its devices"


async def test_what_somebody_asked_for_is_told_with_who_and_which_job(queen: MakeQueen) -> None:
    async with queen() as q:
        adding = q.work.add(LOCALHOST, ACTOR)
        await told(adding)
        await told(q.work.add(LOCALHOST, ACTOR))  # changes nothing
        removing = q.work.remove("localhost", ACTOR)
        await told(removing)
        await told(q.work.remove("localhost", ACTOR))

        about = {"hive": "localhost", **ACTOR}
        assert q.audit.told == [
            ("catalog-changed", WANTED, {**about, "job_id": adding.id}),
            ("catalog-changed", ONLINE, {**about, "job_id": adding.id}),
            (
                "catalog-changed",
                "hive localhost is removed from the hive catalog",
                {**about, "job_id": removing.id},
            ),
        ]
        assert "catalog-changed" not in q.tape.names(), "the story is told without it"


async def test_a_hive_that_could_not_be_woken_is_offline_in_the_name_of_who_asked(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.refusal = NotPermitted("systemd refused to start rbee-hive.service")
        job = q.work.add(LOCALHOST, ACTOR)
        error_of(await told(job))

        assert [text for _, text, _ in q.audit.told] == [
            WANTED,
            "hive localhost is offline in the hive catalog",
        ]
        assert {frozenset(fields.items()) for _, _, fields in q.audit.told} == {
            frozenset({"hive": "localhost", "job_id": job.id, **ACTOR}.items())
        }


async def test_what_systemd_tells_is_the_queen_s_own_and_a_new_process_the_hive_s(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        q.audit.told.clear()
        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.audit.until("catalog-changed", "is offline")
        await q.systemd.start_by_hand(HIVE_UNIT)
        await q.audit.until("catalog-changed", "is online")

        assert q.audit.told == [
            (
                "catalog-changed",
                "hive localhost is offline and not wanted in the hive catalog",
                {"hive": "localhost", **HERSELF},
            ),
            ("catalog-changed", ONLINE, {"hive": "localhost", **HIVE}),
        ]


async def test_silence_is_the_queen_s_own_verdict_and_the_beat_after_it_the_hive_s(queen: MakeQueen) -> None:
    async with queen(interval=0.1, grace=0.05) as q:
        await q.add()
        q.audit.told.clear()
        q.hive.wire.is_cut = True
        await q.audit.until("catalog-changed", "is offline")
        q.hive.wire.is_cut = False
        await q.audit.until("catalog-changed", "is online")

        assert [(text, fields["actor_pid"]) for _, text, fields in q.audit.told] == [
            ("hive localhost is offline in the hive catalog", HERSELF["actor_pid"]),
            ("hive localhost is online in the hive catalog", HIVE["actor_pid"]),
        ]


# Waking with a catalog


async def a_row(path: Path, *, status: str, wanted: bool) -> None:
    catalog = Store.open(path)
    await catalog.hives.add("localhost", "localhost", 8600)
    await catalog.hives.set_online("localhost", DEVICES)
    await catalog.hives.set_status("localhost", status, wanted=wanted)  # type: ignore[arg-type]
    catalog.close()


async def test_a_queen_who_wakes_takes_each_hive_as_unknown_until_she_hears_of_it(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="online", wanted=True)
    async with queen(begin=False) as q:
        (view,) = q.hives.views()

        assert (view.state, view.status, view.devices) == ("unknown", "online", DEVICES)
        assert view.reason == "no heartbeat since the queen started (last known: online)"
        assert view.last_beat_ms is None


async def test_a_hive_that_failed_too_often_is_reset_when_somebody_asks_for_it(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.states[HIVE_UNIT] = UnitState("loaded", "failed", "failed", result="start-limit-hit")
        await q.add()

        assert q.systemd.asked == [("reset-failed", HIVE_UNIT), ("start", HIVE_UNIT)]


async def test_a_queen_who_wakes_brings_back_the_hive_that_is_wanted(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="offline", wanted=True)
    async with queen() as q:
        await q.tape.until("hive-online")

        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert q.life()[0] == "online"
        assert await q.row() == ("online", True, DEVICES)


async def test_a_queen_who_wakes_leaves_a_hive_stopped_that_an_administrator_stopped(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="offline", wanted=False)
    async with queen() as q:
        await until(lambda: q.life() == ("offline", "stopped by an administrator"))

        assert q.systemd.asked == []
        assert q.tape.told == []


async def test_a_queen_who_wakes_does_not_touch_a_hive_that_runs(queen: MakeQueen, tmp_path: Path) -> None:
    await a_row(tmp_path / "catalog.db", status="online", wanted=True)
    systemd = PlayedSystemd()
    systemd.states[HIVE_UNIT] = ACTIVE
    async with queen(systemd=systemd, interval=0.05, grace=0.05) as q:
        await q.tape.until("hive-offline", "no heartbeat since the queen started")

        assert q.systemd.asked == []


async def test_a_wanted_hive_that_cannot_be_woken_is_offline_with_the_reason(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="online", wanted=True)
    systemd = PlayedSystemd(refusal=NotPermitted("systemd does not let you do this"))
    async with queen(systemd=systemd) as q:
        await q.tape.until("hive-offline", "systemd does not let you do this")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


async def test_rows_without_a_readable_name_are_all_shown(queen: MakeQueen, tmp_path: Path) -> None:
    async with queen(begin=False):
        pass
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection, connection:
        for name in ("no name!", "nor this?"):
            connection.execute(
                "INSERT INTO hives (id, host, port, status, created_at_ms, updated_at_ms, wanted) "
                "VALUES (?1, ?1, 8600, 'online', 1, 1, 1)",
                (name,),
            )
    async with queen(begin=False) as q:
        shown = [view.problem or "" for view in q.hives.views()]
        assert len(shown) == 2
        assert [name in told for name, told in zip(("no name!", "nor this?"), shown, strict=True)] == [
            True
        ] * 2


async def test_an_empty_catalog_wakes_nobody(queen: MakeQueen) -> None:
    async with queen() as q:
        for _ in range(5):
            await q.catalog.hives.all()

        assert q.systemd.asked == []
        assert q.hives.views() == []


async def test_a_hive_that_is_not_there_is_unknown(queen: MakeQueen) -> None:
    async with queen() as q:
        with pytest.raises(UnknownHive, match="hive 'blade-7' is not in the hive catalog"):
            q.hives.view("blade-7")


# Shutting down


async def test_a_shutdown_has_systemd_stop_the_target_and_is_done_with_the_queen(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.shut_down(ACTOR)
        assert q.work.shut_down(ACTOR) is job, "asking again is the same shutdown"
        await until(lambda: q.systemd.asked != [])
        q.jobs.close()

        events = await told(job)

        assert lines(events) == [("queen bee", "Shutting down all hives")]
        assert events[-1][0] == "done"
        assert set(q.systemd.asked) == {("stop", TARGET)}


async def test_a_hive_s_goodbye_is_part_of_the_shutdown_s_story(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        job = q.work.shut_down(ACTOR)
        goodbye = Line("bee hive", "Received shutdown signal, goodbye", "goodbye", "2026-01-31T12:00:00Z")

        await q.hives.heartbeat(beat(state="stopping", lines=(goodbye,)))
        q.jobs.close()

        assert lines(await told(job)) == [
            ("queen bee", "Shutting down all hives"),
            ("bee hive", "Received shutdown signal, goodbye"),
        ]


async def test_a_hive_that_was_just_to_be_woken_does_not_undo_a_shutdown(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.job(QUEEN_UNIT, "stop")

        assert type(error_of(await q.add())) is Stopping
        assert q.hive.starts == 0


async def test_a_shutdown_that_systemd_refuses_ends_in_its_error(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.refusal = NotPermitted("systemd does not let you do this")

        events = await told(q.work.shut_down(ACTOR))

        assert type(error_of(events)) is NotPermitted
        assert lines(events)[-1][1].startswith("shutting down failed")
