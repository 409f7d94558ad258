"""A queen, and the product's own hive on a real socket behind a systemd that is played; what they tell."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbee import __version__
from rbee.client.link import HeartbeatClient
from rbee.errors import RbeeError, TimedOut, from_problem
from rbee.hive import app as hive_app
from rbee.hive.devices import Detector, Sampler
from rbee.hive.heartbeat import Heart
from rbee.narration import CATALOG_CHANGED, Event, Narrator
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Job, Jobs
from rbee.queen.store.store import Store
from rbee.systemd.daemon import Notifier
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.hives import AddHive, HiveView
from rbee.wire.jobs import Done
from tests.integration.unix_http import served
from tests.unit.played_systemd import PlayedSystemd

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


def beat(**fields: Any) -> Heartbeat:
    return Heartbeat("localhost", "2026-01-31T12:00:00Z", (), "1" * 32, version=__version__)._replace(
        **fields
    )


async def a_row(path: Path, *, status: str, wanted: bool) -> None:
    catalog = Store.open(path)
    await catalog.hives.add("localhost", "localhost", 8600)
    await catalog.hives.set_online("localhost", DEVICES)
    await catalog.hives.set_status("localhost", status, wanted=wanted)  # type: ignore[arg-type]
    catalog.close()
