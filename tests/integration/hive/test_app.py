"""The hive's routes: devices with the story they belong to, and a stop that is systemd's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rbee import __version__
from rbee.client.link import HeartbeatClient
from rbee.hive.app import build
from rbee.hive.devices import Detector
from rbee.hive.heartbeat import Heart
from rbee.hive.serving import Serving
from rbee.hive.work import Serials, Work
from rbee.narration import Event, Narrator
from rbee.scope import SYSTEM
from rbee.server.app import Handler
from rbee.systemd.daemon import Notifier
from rbee.wire.codec import decode
from rbee.wire.devices import Cpu, Devices
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import HiveRoutes, Route
from rbee.wire.samples import Sample
from tests.integration.unix_http import Answer, raw, request, served

DEVICES = Devices(Cpu("a cpu", 1, 2, 4, 8 * 2**30))
SAMPLE = Sample("blade-7", "2026-01-31T12:00:00.000Z", 0.5, 0.25, 0.0, 12.5, 2.0, 2**30, 2**32)
JOB = "7" * 32
REPOSITORY = Path(__file__).parents[3]


class Queen(HeartbeatClient):
    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []

    @property
    def is_open(self) -> bool:
        return True

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        self.beats.append(heartbeat)
        return HeartbeatAck("ok", 15_000)


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))


class Hive:
    """A hive that is served, with what it said to the queen and to the journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queen, self.journal = Queen(), Tape()
        self.heart = Heart("blade-7", self.queen, self.journal, status=lambda status: None, queen_name="q")

    async def ask(self, method: str, path: str, **headers: str) -> Answer:
        return await raw(self.path, request(method, path, b"" if method == "POST" else None, **headers))


@asynccontextmanager
async def a_hive(
    tmp_path: Path,
    notifier: Notifier,
    detect: Callable[[], Devices] = lambda: DEVICES,
    stop: Callable[[], None] = lambda: None,
    leave: Callable[[], None] | None = None,
    more: Mapping[Route[Any], Handler] | None = None,
) -> AsyncIterator[Hive]:
    hive = Hive(tmp_path / "hive.sock")

    async def look() -> Sample:
        return SAMPLE

    app = build(hive.heart, detect, stop, look=look, leave=leave, more=more)
    async with served(app, hive.path, notifier):
        yield hive


async def asked(
    tmp_path: Path, notifier: Notifier, method: str, path: str, *, options: dict[str, Any] | None = None,
    **headers: str,
) -> tuple[Answer, Hive]:  # fmt: skip
    async with a_hive(tmp_path, notifier, **(options or {})) as hive:
        return (await hive.ask(method, path, **headers), hive)


async def test_health_says_the_version_and_whose_hive_it_is(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    answer, _ = await asked(tmp_path, silent_notifier, "GET", "/health")

    whose = {"hive_id": "blade-7", "queen": "q", "is_remote_queen": False}
    assert (answer.status, answer.json) == (200, {"status": "ok", "version": __version__, **whose})


async def test_a_hive_that_has_joined_says_that_its_queen_is_remote(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    answer, _ = await asked(tmp_path, silent_notifier, "GET", "/health", options={"leave": lambda: None})

    assert answer.json["is_remote_queen"]


async def test_the_document_lists_every_route(tmp_path: Path, silent_notifier: Notifier) -> None:
    work = Work(Serials(), lambda: None)
    serving = Serving(SYSTEM, tmp_path, Detector(tmp_path), Narrator(), work, Narrator())
    more = {"more": serving.routes()}
    answer, _ = await asked(tmp_path, silent_notifier, "GET", "/v1/openapi.json", options=more)

    told = {(method.upper(), path) for path, methods in answer.json["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in HiveRoutes.ALL}


async def test_devices_are_told_and_the_line_goes_up_before_the_answer(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    answer, hive = await asked(tmp_path, silent_notifier, "GET", "/v1/devices", RBEE_Job_ID=JOB)

    assert answer.status == 200
    assert decode(Devices, answer.json) == DEVICES
    assert answer.json["model_catalog"] == answer.json["worker_catalog"] == []
    (beat,) = hive.queen.beats
    assert (beat.job_id, [line.text for line in beat.lines]) == (
        JOB,
        ["Detected CPU and GPUs, responding to queen"],
    )
    assert hive.journal.told == [
        ("detected", "Detected CPU and GPUs, responding to queen", {"hive": "blade-7", "job_id": JOB})
    ]


async def test_devices_that_are_asked_for_without_a_job_belong_to_none(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    answer, hive = await asked(tmp_path, silent_notifier, "GET", "/v1/devices")

    assert answer.status == 200
    assert [beat.job_id for beat in hive.queen.beats] == [None]


@pytest.mark.parametrize("job_id", ["x", "7" * 31, "G" * 32, ""])
async def test_a_job_that_is_none_is_refused_before_anything_is_detected(
    tmp_path: Path, silent_notifier: Notifier, job_id: str
) -> None:
    detected: list[int] = []
    answer, hive = await asked(
        tmp_path, silent_notifier, "GET", "/v1/devices", RBEE_Job_ID=job_id,
        options={"detect": lambda: detected.append(1) or DEVICES},
    )  # fmt: skip

    assert (answer.status, answer.json["field"]) == (400, "RBEE-Job-ID")
    assert (detected, hive.queen.beats) == ([], [])


async def test_a_detection_that_fails_is_told_in_the_story_and_in_the_answer(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    def detect() -> Devices:
        raise RuntimeError("the driver is on fire")

    answer, hive = await asked(
        tmp_path, silent_notifier, "GET", "/v1/devices", RBEE_Job_ID=JOB, options={"detect": detect}
    )

    assert (answer.status, answer.json["type"]) == (502, "urn:rbee:problem:hive-failed")
    assert answer.json["detail"] == "detecting the devices failed: the driver is on fire"
    assert "journalctl -u rbee-hive" in answer.json["hint"]
    (beat,) = hive.queen.beats
    assert [(line.event, line.text) for line in beat.lines] == [
        ("detect-failed", "detecting the devices failed: the driver is on fire")
    ]


async def test_a_detection_that_fails_keeps_its_traceback(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    def detect() -> Devices:
        raise ZeroDivisionError

    await asked(tmp_path, silent_notifier, "GET", "/v1/devices", options={"detect": detect})

    # The journal's catalog sends people to it: 'The traceback is in journalctl -u rbee-hive'.
    assert ZeroDivisionError in [record.exc_info[0] for record in caplog.records if record.exc_info]


async def test_only_one_detection_runs_at_a_time(tmp_path: Path, silent_notifier: Notifier) -> None:
    running, most = 0, 0
    both_asked = threading.Event()

    def detect() -> Devices:
        nonlocal running, most
        running += 1
        most = max(most, running)
        both_asked.wait(0.05)
        running -= 1
        return DEVICES

    async with a_hive(tmp_path, silent_notifier, detect) as hive:
        answers = await asyncio.gather(*(hive.ask("GET", "/v1/devices") for _ in range(3)))

    assert [answer.status for answer in answers] == [200] * 3
    assert most == 1


async def test_a_detection_that_hangs_keeps_neither_the_loop_nor_the_other_routes(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    goes_on = threading.Event()

    def detect() -> Devices:
        goes_on.wait(5)
        return DEVICES

    async with a_hive(tmp_path, silent_notifier, detect) as hive:
        asking = asyncio.ensure_future(hive.ask("GET", "/v1/devices"))
        health = await hive.ask("GET", "/health")
        assert not asking.done()
        goes_on.set()
        assert (await asking).status == 200
        assert health.status == 200


async def test_a_sample_is_told_and_is_nobodys_story(tmp_path: Path, silent_notifier: Notifier) -> None:
    answer, hive = await asked(tmp_path, silent_notifier, "GET", "/v1/sample")

    assert (answer.status, decode(Sample, answer.json)) == (200, SAMPLE)
    assert (hive.queen.beats, hive.journal.told) == ([], [])


async def test_a_shutdown_ends_the_hive_and_answers(tmp_path: Path, silent_notifier: Notifier) -> None:
    stops: list[str] = []
    answer, _ = await asked(
        tmp_path, silent_notifier, "POST", "/shutdown", options={"stop": lambda: stops.append("told")}
    )

    assert (answer.status, answer.json) == (202, {"status": "stopping"})
    assert stops == ["told"]
