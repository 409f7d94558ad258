"""A house for one queen, one hive and any number of keepers, on real Unix sockets in one event loop.

Queen, hive and client are the product's, put together as their `__main__` do it. Only the
edge is played: systemd (which holds the sockets and starts, stops and watches processes),
the journal's socket, and the devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from rbee.client.queen import QueenClient, StoryEvent
from rbee.config import Config, HiveConfig, QueenConfig
from rbee.errors import Unreachable
from rbee.hive import hive as product_hive
from rbee.hive.devices import Detector
from rbee.hive.heartbeat import Beats
from rbee.narration import CATALOG_CHANGED, Chorus, Event, Journal, Narrator
from rbee.queen.api.admission import Admission
from rbee.queen.queen import Queen as Product
from rbee.queen.queen import Site
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, SYSTEM, TARGET
from rbee.server.peer import Peer
from rbee.systemd.daemon import Notifier
from rbee.systemd.unit import UnitState
from rbee.wire.codec import decode
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.hives import AddHive, HiveView
from rbee.wire.jobs import JobStarted
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.samples import GpuSample
from tests.unit.played_systemd import ACTIVE, DiedError, PlayedSystemd

Result = TypeVar("Result")

PATIENCE = 15.0
"""Seconds after which a wait for something that must happen gives up; a busy machine is no bug."""

GPUS = (
    Gpu(0, "nvidia", "NVIDIA GeForce RTX 4090", "GPU-aaaa", 24 * 2**30, "550.54.14", "0000:01:00.0"),
    Gpu(1, "amd", None, None, None, "amdgpu", "0000:02:00.0", "its name is not known"),
)
DEVICES = Devices(Cpu("Testchip 9", 1, 4, 8, 16 * 2**30), GPUS)
GPU_SAMPLES = (
    GpuSample(0, "GPU-aaaa", "0000:01:00.0", 42.0, 2 * 2**30, 24 * 2**30, 61.0, 170.5),
    GpuSample(1, None, "0000:02:00.0", None, None, None, None, None, "it sleeps"),
)
OTHER_DEVICES = Devices(Cpu("Testchip 9", 1, 4, 8, 32 * 2**30), GPUS[:1])

ADD = AddHive("localhost", 8600)


async def soon(awaitable: Awaitable[Result]) -> Result:
    """The result of what must not take for ever."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable


async def until(is_so: Callable[[], bool]) -> None:
    """Return as soon as something is so that nobody tells of."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it never was so"
        await asyncio.sleep(0.01)


# What a process is given


class Listener(socket.socket):
    """A listening socket that remembers the connections it took."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.accepted: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.accepted.append(connection)
        return connection, address

    def cut(self) -> None:
        """End every connection, as the kernel does when the process is gone."""
        for connection in self.accepted:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Told(Notifier):
    """Hears what a process tells systemd about itself."""

    def __init__(self) -> None:
        self.is_ready = asyncio.Event()
        self.statuses: list[str] = []

    def ready(self, status: str) -> None:
        self.is_ready.set()
        self.status(status)

    def status(self, status: str) -> None:
        self.statuses.append(status)

    def stopping(self, status: str) -> None:
        self.status(status)

    def alive(self) -> None:
        pass


class JournalTape(Narrator):
    """journald's end of the socket: reads each entry right after it was written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, str]] = []
        self._heard = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(os.fspath(path))

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        while True:
            try:
                self.entries.append(parse_journal(self._socket.recv(1 << 20)))
            except BlockingIOError:
                break
        self._heard.set()
        self._heard = asyncio.Event()

    def of(self, **fields: str) -> list[dict[str, str]]:
        """The entries with these fields; RBEE_EVENT is given as `event`, and so on.

        Without the catalog's, which are about a row and not about a hive.
        """
        wanted = {f"RBEE_{name.upper()}": value for name, value in fields.items()}
        told = (entry for entry in self.entries if entry.get("RBEE_EVENT") != CATALOG_CHANGED.name)
        return [entry for entry in told if wanted.items() <= entry.items()]

    async def says(self, *, times: int = 1, **fields: str) -> dict[str, str]:
        """The entry with these fields, as soon as there are as many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.of(**fields)) < times:
                await self._heard.wait()
        return self.of(**fields)[times - 1]

    def close(self) -> None:
        self._socket.close()


def parse_journal(datagram: bytes) -> dict[str, str]:
    """The fields of an entry; https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    fields: dict[str, str] = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
    return fields


# The processes


class Process:
    """A daemon as systemd sees it: `ending` is how it goes."""

    def __init__(self, house: House, listener: Listener) -> None:
        self.house = house
        self.listener = listener
        self.notifier = Told()
        self.told_to_stop = asyncio.Event()
        self.ending: Literal["gracefully", "killed"] = "gracefully"
        self._running: asyncio.Task[None] | None = None

    def run(self) -> asyncio.Task[None]:
        self._running = asyncio.create_task(self._run())
        return self._running

    async def _run(self) -> None:
        raise NotImplementedError

    async def ready(self) -> None:
        """Wait for READY=1; a process that ends before raises what ended it."""
        assert self._running is not None
        ready = asyncio.create_task(self.notifier.is_ready.wait())
        try:
            await soon(asyncio.wait((ready, self._running), return_when=asyncio.FIRST_COMPLETED))
        finally:
            ready.cancel()  # also where the house is left in the middle of a start
        if self._running.done():
            self._running.result()

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        self.told_to_stop.set()
        await self.ended()

    async def kill(self) -> None:
        """SIGKILL: not a word more, and every connection is closed by the kernel."""
        self.ending = "killed"
        self.listener.cut()
        self._fall_silent()
        await self.stop()

    def _fall_silent(self) -> None:
        raise NotImplementedError

    async def ended(self) -> None:
        if self._running is not None:
            await soon(asyncio.shield(self._running))

    @property
    def is_running(self) -> bool:
        return self._running is not None and not self._running.done()


class Mortal(Product):
    """A queen who may be killed: then nothing of her speaks."""

    is_killed = False

    async def end_work(self) -> None:
        if self.is_killed:
            await self.work.end()
            await self.hives.end()
        else:
            await super().end_work()


class Queen(Process):
    """The queen's process: rbee/queen/__main__.py without the signals and the files of a machine."""

    product: Mortal

    def __init__(self, house: House, config: QueenConfig) -> None:
        super().__init__(house, house.queen_socket.dup())
        self._config = config
        self._journal = Journal("queen-rbee", house.journal.path, house.lost)

    def __getattr__(self, name: str) -> Any:
        """Her parts: hives, jobs, catalog …"""
        return getattr(self.product, name)

    async def _run(self) -> None:
        house = self.house
        site = Site(
            SYSTEM,
            house.catalog_path.parent,
            house.hive_path,
            house.systemd,
            house.feed_path,
            [self.listener],
            find_credentials=lambda: None,
        )
        journal = Chorus(self._journal, house.journal)
        try:
            opened = Mortal.open(Config(self._config), site, house.systemd, self.notifier, journal)
            async with opened as product:
                self.product = product
                product._admission = house.admission
                await product.serve(self.told_to_stop, started=lambda: house.queen_began(self))
        finally:
            house.systemd.hang_up()
            self._journal._socket.close()

    def _fall_silent(self) -> None:
        self.product.is_killed = True
        self.house.systemd.hang_up()


class Mouth(Narrator):
    """A dead process tells nothing, whatever of it is still waiting in our event loop."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator
        self.is_dead = False

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        if not self.is_dead:
            self._narrator.narrate(event, text, **fields)


class Dead(Beats):
    """Nor does it beat."""

    is_open = False

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        raise Unreachable("this process is dead")


class Seeing(Detector):
    """The house's devices, and what they do."""

    def __init__(self, house: House) -> None:
        super().__init__(house.root)
        self._house = house

    def detect(self) -> Devices:
        self._latest = self._house.detect()
        return self._latest

    def read_cards(self) -> tuple[GpuSample, ...]:
        return self._house.read_cards()


class Mute(product_hive.Hive):
    """A hive that may fall silent, and whose answer about devices its house may spoil."""

    house: House

    async def work(self, served: ASGIApp) -> None:
        while True:
            await self.house.hive_may_beat.wait()
            self.beating = asyncio.create_task(super().work(served))
            try:
                await asyncio.wait({self.beating})
            finally:
                self.beating.cancel()
            if not self.beating.cancelled():
                self.beating.result()

    def app(self) -> ASGIApp:
        app = super().app()

        async def spoilt(scope: Scope, receive: Receive, send: Send) -> None:
            spoil = self.house.spoil
            if spoil is None or scope.get("path") != "/v1/devices":
                await app(scope, receive, send)
            else:
                await spoil(self.house.hive, send)

        return spoilt


class Hive(Process):
    """The hive's process: rbee/hive/__main__.py without the signals and the files of a machine."""

    product: Mute

    def __init__(self, house: House) -> None:
        super().__init__(house, house.hive_socket.dup())
        self._journal = Journal("rbee-hive", house.journal.path, house.lost)
        self._tell = Mouth(Chorus(self._journal, house.journal))

    def __getattr__(self, name: str) -> Any:
        """Its parts: heart, sampler, queen …"""
        return getattr(self.product, name)

    async def _run(self) -> None:
        house = self.house
        config = Config(hive=HiveConfig(queen=house.hive_dials))
        site = product_hive.Site(SYSTEM, house.root / "rbee-hive", [self.listener])
        opened = Mute.open(config, site, self.notifier, self._tell, detector=Seeing(house))
        try:
            async with opened as product:
                self.product, product.house = product, house
                product.heart._fingerprint = lambda: house.fingerprint
                try:
                    await product.serve(self.told_to_stop)
                finally:
                    self._fall_silent()
        finally:
            self._journal._socket.close()

    def beat_again(self) -> None:
        self.house.hive_may_beat.set()

    def fall_silent(self) -> None:
        """Serve on, and beat no more: what a hive looks like whose way to the queen is cut."""
        self.house.hive_may_beat.clear()
        self.product.beating.cancel()

    def _fall_silent(self) -> None:
        self._tell.is_dead = True
        self.product.heart._queen = Dead()


Spoil = Callable[[Hive, Send], Awaitable[None]]


def answers(status: int, body: bytes, kind: bytes = b"application/json") -> Spoil:
    """A hive that answers this when it is asked for devices."""

    async def spoil(_hive: Hive, send: Send) -> None:
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return spoil


# systemd


class Systemd(PlayedSystemd):
    """systemd, played, with the house's hive as the program of its unit. Knows no rule of rbee."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self.states[TARGET] = ACTIVE
        self.programs |= {HIVE_UNIT: HiveProgram(house, self), TARGET: TargetProgram(house, self)}
        self.hive: Hive | None = None
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.start_fails = False
        self.stop_fails = False
        self.dies_when_ready = False

    # What happens in the machine

    async def administrator_starts(self) -> None:
        await soon(self.start_by_hand(HIVE_UNIT))

    async def administrator_stops(self) -> None:
        await soon(self.stop_by_hand(HIVE_UNIT))

    async def hive_dies(self, *, restart: bool = False) -> None:
        """The hive's process is killed; by Restart=, systemd starts it again once `may_start`."""
        hive = self.hive
        assert hive is not None
        self._hive_ended(restart=restart)
        await hive.kill()  # systemd starts it again once the process, and every socket of it, has gone
        if restart:
            self._spawn(self._restart())

    async def _restart(self) -> None:
        await self.may_start.wait()
        await self.start_by_hand(HIVE_UNIT)

    def _hive_ended(self, *, restart: bool) -> None:
        active, sub = ("activating", "auto-restart") if restart else ("failed", "failed")
        self.becomes(HIVE_UNIT, UnitState("loaded", active, sub, result="signal", exit_status=signal.SIGKILL))

    async def queen_is_to_stop(self) -> str:
        """The first half of `systemctl stop queen-rbee`: by BindsTo= and After= the hive goes first."""
        path = self.job(QUEEN_UNIT, "stop")
        await soon(self.stop_by_hand(HIVE_UNIT))
        return path

    async def queen_is_stopped(self, queen: Queen) -> None:
        """All of `systemctl stop queen-rbee`."""
        path = await self.queen_is_to_stop()
        await queen.stop()
        self.remove_job(path)

    async def queen_dies(self, queen: Queen) -> None:
        """The queen is killed, and BindsTo= takes the hive along."""
        await queen.kill()
        await self.stop_by_hand(HIVE_UNIT)

    async def _start(self, unit: str) -> str:
        result = await super()._start(unit)
        if unit == HIVE_UNIT and self.dies_when_ready and self.hive is not None:
            # Both are signalled before whoever waits for the job goes on.
            self._hive_ended(restart=False)
            self._spawn(self.hive.kill())
        return result

    async def _stop(self, unit: str) -> str:
        return "failed" if unit == HIVE_UNIT and self.stop_fails else await super()._stop(unit)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))


@dataclass
class HiveProgram:
    house: House
    systemd: Systemd

    async def start(self) -> None:
        systemd = self.systemd
        await systemd.may_start.wait()
        if systemd.start_fails:
            said = "the configuration is not valid"
            raise DiedError(
                UnitState("loaded", "failed", "failed", result="exit-code", exit_status=78, status_text=said)
            )
        systemd.hive = hive = Hive(self.house)
        self.house.processes.append(hive)
        hive.run()
        await hive.ready()
        if hive.ending == "killed":
            raise DiedError(systemd.states[HIVE_UNIT])

    async def stop(self) -> None:
        await self.systemd.may_stop.wait()
        if self.systemd.hive is not None:
            await self.systemd.hive.stop()


@dataclass
class TargetProgram:
    """rbee.target: its stop job ends when the hive and then the queen have ended."""

    house: House
    systemd: Systemd

    async def start(self) -> None: ...

    async def stop(self) -> None:
        path = await self.systemd.queen_is_to_stop()
        for queen in self.house.queens:
            queen.told_to_stop.set()
            await queen.ended()
        self.systemd.remove_job(path)


# Keepers


class Story:
    """A keeper that follows a story in a thread of its own, and hands on each event as it comes."""

    def __init__(self, path: Path, route: Route, body: Any = None, **values: str) -> None:
        self._events: asyncio.Queue[StoryEvent | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._read, args=(path, route, body, values), daemon=True)
        self._thread.start()
        self.job_id = ""

    def _read(self, path: Path, route: Route, body: Any, values: dict[str, str]) -> None:
        try:
            for event in QueenClient(path, timeout=PATIENCE).tell_story(route, body, **values):
                self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except Exception as error:
            self._loop.call_soon_threadsafe(self._events.put_nowait, error)

    async def event(self) -> StoryEvent:
        """The next event; raises what the client raised."""
        event = await soon(self._events.get())
        if isinstance(event, Exception):
            raise event
        if event.kind == "job":
            self.job_id = event.data["job_id"]
        return event

    async def begins(self) -> Self:
        """Wait for the job's id, with which each story begins."""
        assert (await self.event()).kind == "job"
        return self

    async def line(self) -> str:
        """The next line, as '(speaker) text'; it must come before the end."""
        event = await self.event()
        if event.kind == "job":
            event = await self.event()
        assert event.kind == "line", event
        return told(event)

    async def to(self, text: str) -> list[str]:
        """The lines up to the first that has this text in it."""
        lines = [await self.line()]
        while text not in lines[-1]:
            lines.append(await self.line())
        return lines

    async def rest(self) -> tuple[list[str], StoryEvent]:
        """The lines that are left, and the end."""
        lines = []
        while (event := await self.event()).kind in ("job", "line"):
            lines += [told(event)] if event.kind == "line" else []
        return lines, event

    async def end(self) -> StoryEvent:
        return (await self.rest())[1]

    @property
    def is_quiet(self) -> bool:
        return self._events.empty()

    async def join(self) -> None:
        await until(lambda: not self._thread.is_alive())


def told(event: StoryEvent) -> str:
    return f"({event.data['speaker']}) {event.data['text']}"


@dataclass(frozen=True)
class Answer:
    """What came back for bytes of our own; `events` for a story."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[StoryEvent]:
        return parse_story(self.content)


def parse_story(content: bytes) -> list[StoryEvent]:
    events = []
    for block in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append(StoryEvent(int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


class Everyone(Admission):
    """For a run as an ordinary user: hive and keeper then have one uid, which no machine has."""

    def __init__(self) -> None:
        super().__init__(None)

    def __call__(self, peer: Peer, route: Route) -> None:
        assert peer.uid == os.getuid()


class House:
    """Sockets, journal, systemd, and who lives there. `detect`, `spoil` and the like are for tests to set.

    `expected_errors` are parts of log lines that may be errors; any other ends the test in failure.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.queen_path, self.hive_path = root / "queen.sock", root / "hive.sock"
        self.catalog_path = root / "catalog.db"
        self.feed_path = root / "events"
        self.hive_dials = self.queen_path
        self.hive_may_beat = asyncio.Event()
        self.hive_may_beat.set()
        self.spoil: Spoil | None = None
        self.devices: Callable[[], Devices] = lambda: DEVICES
        self.fingerprint: str | None = "f1"
        self.read_cards: Callable[[], tuple[GpuSample, ...]] = lambda: GPU_SAMPLES
        self.detections = 0
        self.queen_began: Callable[[Queen], None] = lambda queen: None
        self.admission: Admission = Admission(None) if os.getuid() == 0 else Everyone()
        self.expected_errors: set[str] = set()
        self.lost = io.StringIO()
        self.processes: list[Process] = []
        self._gates: list[threading.Event] = []
        self._stories: list[Story] = []

    async def __aenter__(self) -> Self:
        self.journal = JournalTape(self.root / "journal.sock")
        self.queen_socket, self.hive_socket = listen(self.queen_path), listen(self.hive_path)
        self.systemd = Systemd(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gate in self._gates:
            gate.set()
        await self.systemd.end()
        # A queen may have a hive started until she herself is told to stop.
        while any(process.is_running for process in self.processes):
            for process in self.processes:
                process.told_to_stop.set()
            await asyncio.gather(*(process.ended() for process in self.processes))
            await self.systemd.end()
        await self.systemd.close()
        self.queen_socket.close()
        self.hive_socket.close()
        for story in self._stories:
            await story.join()
        self.journal.close()
        await self._nothing_is_left()
        assert self.lost.getvalue() == "", f"the journal did not take {self.lost.getvalue()}"

    async def _nothing_is_left(self) -> None:
        """What has been told to end may need a turn of the loop; nothing may need more than that."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2)
        left = [task for task in others if not task.done()]
        assert left == [], f"tasks are left: {left}"

    # The queen

    @property
    def queens(self) -> list[Queen]:
        return [process for process in self.processes if isinstance(process, Queen) and process.is_running]

    async def wake_queen(self, **settings: Any) -> Queen:
        """A new queen over this house's catalog, ready; `settings` are QueenConfig's."""
        queen = Queen(self, QueenConfig(**settings))
        self.processes.append(queen)
        queen.run()
        await queen.ready()
        return queen

    @property
    def hive(self) -> Hive:
        assert self.systemd.hive is not None
        return self.systemd.hive

    def row(self) -> dict[str, Any] | None:
        """The catalog's only row, read as somebody else would."""
        with closing(sqlite3.connect(self.catalog_path)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("SELECT * FROM hives")]
        assert len(rows) <= 1
        return rows[0] if rows else None

    def stored_devices(self) -> Devices:
        row = self.row()
        assert row is not None
        return decode(Devices, json.loads(row["devices"]))

    # The devices

    def detect(self) -> Devices:
        self.detections += 1
        return self.devices()

    def gate(self) -> threading.Event:
        """A gate that holds up a thread until a test, or the test's end, opens it."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def detect_after(self, gate: threading.Event, devices: Devices = DEVICES) -> None:
        def detect() -> Devices:
            gate.wait()
            return devices

        self.devices = detect

    # The keepers

    def story(self, route: Route, body: Any = None, **values: str) -> Story:
        story = Story(self.queen_path, route, body, **values)
        self._stories.append(story)
        return story

    def add(self) -> Story:
        return self.story(QueenRoutes.ADD_HIVE, ADD)

    async def added(self, **settings: Any) -> Queen:
        """A queen with her hive online."""
        queen = await self.wake_queen(**settings)
        assert (await self.add().end()).kind == "done"
        return queen

    def remove(self, hive_id: str = "localhost") -> Story:
        return self.story(QueenRoutes.REMOVE_HIVE, hive_id=hive_id)

    async def ask(self, route: Route, body: Any = None, **values: str) -> Any:
        return await soon(asyncio.to_thread(QueenClient(self.queen_path).ask, route, body, **values))

    async def view(self) -> HiveView:
        view: HiveView = await self.ask(QueenRoutes.HIVE, hive_id="localhost")
        return view

    async def is_in(self, state: str) -> HiveView:
        """The hive's view, as soon as registry and catalog's row are in this state."""
        deadline = time.monotonic() + PATIENCE
        while True:
            view = await self.view()
            if view.state == state and (state not in ("online", "offline") or view.status == state):
                return view
            assert time.monotonic() < deadline, f"it never was {state}: {view}"
            await asyncio.sleep(0.02)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        *,
        to: Path | None = None,
    ) -> Answer:
        """The answer to any request that http.client can send."""

        def exchange() -> Answer:
            with closing(socket.socket(socket.AF_UNIX)) as channel:
                channel.settimeout(PATIENCE)
                channel.connect(os.fspath(to or self.queen_path))
                connection = http.client.HTTPConnection("localhost")
                connection.sock = channel
                connection.request(method, path, body, headers or {})
                response = connection.getresponse()
                content = response.read()
                return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

        return await soon(asyncio.to_thread(exchange))

    async def post(self, path: str, body: Any) -> Answer:
        return await self.send("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    @contextlib.asynccontextmanager
    async def reader(
        self, job: JobStarted, *, after: int | None = None
    ) -> AsyncIterator[asyncio.StreamReader]:
        """A story's raw stream, open for as long as the block lasts."""
        reader, writer = await asyncio.open_unix_connection(os.fspath(self.queen_path))
        resume = f"Last-Event-ID: {after}\r\n" if after is not None else ""
        try:
            writer.write(f"GET {job.events} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
            head = await soon(reader.readuntil(b"\r\n\r\n"))
            assert head.startswith(b"HTTP/1.1 200 "), head
            yield reader
        finally:
            writer.close()
            await writer.wait_closed()


def listen(path: Path) -> Listener:
    """A listening socket, as systemd makes it."""
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen(128)
    listener.setblocking(False)
    return listener
