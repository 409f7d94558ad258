"""A queen who is served, a local hive that is played on a real socket, and a gateway that asks for leases."""

from __future__ import annotations

import array
import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rbee import __version__
from rbee.client.handover import Handover, handover
from rbee.errors import NoMemory, NoSuchRoute, RbeeError, UnknownWorker, WorkerNotReady
from rbee.queen.api.admission import Admission
from rbee.queen.queen import Queen
from rbee.queen.serving.serving import Serving
from rbee.queen.store.models import ModelRow
from rbee.scope import HIVE_UNIT
from rbee.server.app import build_app
from rbee.server.peer import Peer
from rbee.server.requests import read_query, read_shape
from rbee.server.upgrade import Upgraded, upgrade_to
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Accepted
from rbee.wire.devices import Cpu, Devices
from rbee.wire.engines import Engine, Engines
from rbee.wire.heartbeats import Heartbeat, HiveHealth
from rbee.wire.hives import AddHive
from rbee.wire.leases import (
    CONNECT_PROTOCOL,
    LEASE_PROTOCOL,
    Ask,
    Frame,
    Granted,
    Refused,
    Wait,
    encode_frame,
)
from rbee.wire.models import Head
from rbee.wire.routes import JOB_HEADER, HiveRoutes, Route
from rbee.wire.workers import (
    AskEstimate,
    Estimate,
    HiveWorker,
    HiveWorkers,
    Memory,
    Pool,
    StartWorker,
    WorkerState,
)
from tests.integration.queen.hives.local_hive import Tape, told
from tests.integration.unix_http import served
from tests.unit.played_systemd import PlayedSystemd
from tests.unit.queens import a_queen as open_queen
from tests.unit.queens import notifier_outside_systemd
from tests.unit.wait import until

GIB = 2**30
HEAD = Head(
    "gguf", "llama", 1_000_000, "F16", 2048, 2, weights_bytes=780_000, kv_bytes_per_token=512, embedding=64
)
ROW = ModelRow(
    name="bee", hive_id="localhost", source="/m/bee.gguf", fetch=None, state="ready", reason="", since_ms=1,
    path="/m/bee.gguf", head=HEAD, bytes=793_000, sha256=None, memory_bytes=None, context=None,
    is_served=True, is_pinned=False, idle_s=300, engine=None, created_at_ms=1,
)  # fmt: skip
LLAMA = Engine(
    "llama-server", "/usr/bin/llama-server", ("gguf",), "/usr/lib/rbee/engines.d/llama-server.conf",
    selects_by_uuid=True,
)  # fmt: skip
REQUEST = "ab" * 16


class Handing(Upgraded):
    """Hands over one end of a connection."""

    def __init__(self, worker_id: str, channel: socket.socket) -> None:
        super().__init__()
        self._worker_id = worker_id
        self._channel = channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        line = encode_frame(Granted(self._worker_id, was_cold=False))
        rights = array.array("i", [self._channel.fileno()])
        with socket.socket(fileno=self._dup()) as own, self._channel:
            own.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self.transport.close()

    def _dup(self) -> int:
        assert self.transport is not None
        dup: socket.socket = self.transport.get_extra_info("socket").dup()
        return dup.detach()


@dataclass
class ServingHive:
    """`total` bytes of RAM, of which `taken` are other programs'. Workers load until loads() or fails()."""

    path: Path
    notifier: Notifier
    total: int = 8 * GIB
    taken: int = 0
    loads_at_once: bool = True
    queen: Queen | None = None
    workers: dict[str, HiveWorker] = field(default_factory=dict)
    starts: list[tuple[StartWorker, str | None]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    engines: dict[str, list[socket.socket]] = field(default_factory=dict)
    problem: str | None = None
    estimate: Estimate | RbeeError | asyncio.Event | None = None
    """What it answers about what engines say: None is a hive without that route, an event one that hangs."""
    asked: list[AskEstimate] = field(default_factory=list)
    cards: tuple[Pool, ...] = ()
    refusal: RbeeError | None = None
    """Why it starts no worker."""
    refuses_stop: bool = False
    refuses_connect: bool = False
    may_stop: asyncio.Event = field(default_factory=asyncio.Event)
    instance: str = "1" * 32

    def __post_init__(self) -> None:
        self._stack = AsyncExitStack()
        self._news = asyncio.Condition()
        self._beats: set[asyncio.Future[Any]] = set()
        self._serials = itertools.count(1)
        self.may_stop.set()

    # As its unit

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        handlers = {
            HiveRoutes.HEALTH: self._health,
            HiveRoutes.DEVICES: self._devices,
            HiveRoutes.ENGINES: self._engines,
            HiveRoutes.ESTIMATE: self._estimate,
            HiveRoutes.MEMORY: self._memory,
            HiveRoutes.WORKERS: self._workers,
            HiveRoutes.START_WORKER: self._start,
            HiveRoutes.WORKER: self._worker,
            HiveRoutes.STOP_WORKER: self._stop,
            HiveRoutes.CONNECT: self._connect,
            HiveRoutes.SHUTDOWN: self._shut_down,
        }
        app = build_app("played hive", __version__, handlers)
        serving = served(app, self.path, self.notifier, upgrades=(CONNECT_PROTOCOL,))
        await self._stack.enter_async_context(serving)
        self.soon_beat()

    async def stop(self) -> None:
        self.may_stop.set()
        async with self._news:
            self._news.notify_all()
        await self._stack.aclose()
        await asyncio.gather(*self._beats, return_exceptions=True)
        for channels in self.engines.values():
            for channel in channels:
                channel.close()

    @property
    def mark(self) -> str | None:
        serials = [worker.serial for worker in self.workers.values()]
        return f"{sum(serials) + len(self.stops):x}" if serials or self.stops else None

    def soon_beat(self) -> None:
        beating = asyncio.ensure_future(self.beat())
        self._beats.add(beating)
        beating.add_done_callback(self._beats.discard)

    async def beat(self) -> None:
        assert self.queen is not None
        await self.queen.hives.heartbeat(
            Heartbeat(
                "localhost", "2026-01-31T12:00:00Z", (), self.instance, version=__version__, work=self.mark
            )
        )

    # What its workers do

    async def becomes(self, worker_id: str, state: Any, **fields: Any) -> None:
        async with self._news:
            worker = self.workers[worker_id]
            self.workers[worker_id] = worker._replace(state=state, serial=next(self._serials), **fields)
            self._news.notify_all()
        self.soon_beat()

    async def loads(self, worker_id: str = "bee-1", peak: int = 50 * 2**20) -> None:
        await self.becomes(worker_id, "ready", percent=None, peak_bytes=peak, used_bytes=peak)

    async def fails(self, worker_id: str = "bee-1", reason: str = "killed by signal 9", *log: str) -> None:
        await self.becomes(worker_id, "failed", reason=reason, log=log)

    def is_cut(self, worker_id: str = "bee-1") -> bool:
        """Has the first connection to a worker's engine ended?"""
        try:
            return self.engines[worker_id][0].recv(1) == b""
        except BlockingIOError:
            return False

    def adopted(self, worker_id: str = "bee-1", model: str = "bee", state: WorkerState = "ready") -> None:
        """It has this worker, and the queen has not heard that it was started."""
        self.workers[worker_id] = HiveWorker(
            worker_id, model, "llama-server", "ram", 2048, GIB, state, "", 1, next(self._serials)
        )
        self.engines[worker_id] = []

    # Its routes

    async def _health(self, _request: Request) -> HiveHealth:
        return HiveHealth("ok", __version__, "localhost")

    async def _shut_down(self, _request: Request) -> Accepted:
        return Accepted("stopping")

    async def _devices(self, _request: Request) -> Devices:
        return Devices(Cpu("cpu", 1, 1, 1, self.total))

    async def _engines(self, _request: Request) -> Engines:
        return Engines((LLAMA._replace(problem=self.problem),))

    async def _estimate(self, request: Request) -> Estimate:
        if self.estimate is None:
            raise NoSuchRoute("there is nothing at /v1/estimate")
        self.asked.append(await read_shape(request, AskEstimate))
        if isinstance(self.estimate, RbeeError):
            raise self.estimate
        if isinstance(self.estimate, asyncio.Event):
            await self.estimate.wait()
            return Estimate()
        return self.estimate

    @property
    def free(self) -> int:
        return self.total - self.taken - sum(worker.claim_bytes for worker in self.workers.values())

    async def _memory(self, _request: Request) -> Memory:
        return Memory((Pool("ram", "RAM", self.total, max(0, self.free)), *self.cards))

    async def _workers(self, _request: Request) -> HiveWorkers:
        return HiveWorkers(tuple(self.workers.values()))

    async def _start(self, request: Request) -> HiveWorker:
        start = await read_shape(request, StartWorker)
        self.starts.append((start, request.headers.get(JOB_HEADER)))
        if self.refusal is not None:
            raise self.refusal
        if self.free < start.claim_bytes:
            raise NoMemory("there is no memory")
        worker = HiveWorker(
            start.id, start.model, start.engine, start.pool, start.context, start.claim_bytes,
            "loading", "", 1, next(self._serials), 0.0,
        )  # fmt: skip
        self.workers[start.id] = worker
        self.engines[start.id] = []
        if self.loads_at_once:
            await self.loads(start.id)
        return worker

    async def _worker(self, request: Request) -> HiveWorker:
        worker = self._find(request)
        after = read_query(request, HiveRoutes.WORKER)["after"]
        async with self._news:
            if self.workers[worker.id].serial <= after:
                await self._news.wait()
        return self._find(request)

    async def _stop(self, request: Request) -> HiveWorker:
        worker = self._find(request)
        self.stops.append(worker.id)
        await self.may_stop.wait()
        if self.refuses_stop:
            raise RbeeError("it does not end")
        del self.workers[worker.id]
        async with self._news:
            self._news.notify_all()
        self.soon_beat()
        return worker._replace(state="stopped", serial=next(self._serials))

    async def _connect(self, request: Request) -> Response:
        worker = self._find(request)
        if worker.state != "ready" or self.refuses_connect:
            raise WorkerNotReady(f"{worker.id} is {worker.state}")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.engines[worker.id].append(ours)
        return upgrade_to(Handing(worker.id, theirs))

    def _find(self, request: Request) -> HiveWorker:
        worker = self.workers.get(request.path_params["worker_id"])
        if worker is None:
            raise UnknownWorker("there is none")
        return worker


@dataclass
class Everyone(Admission):
    """For a run as an ordinary user, who is operator, hive and gateway."""

    def __init__(self) -> None:
        super().__init__(None)

    def __call__(self, peer: Peer, route: Route[Any]) -> None:
        pass


@dataclass
class Client:
    """One request of a client at the gateway: its connection, and what has come."""

    connection: Handover
    frames: list[Frame] = field(default_factory=list)

    async def frame(self) -> Frame:
        async with asyncio.timeout(5):
            self.frames.append(await self.connection.receive())
        return self.frames[-1]

    async def end(self) -> Granted | Refused:
        """The last frame, after all Waits."""
        while isinstance(frame := await self.frame(), Wait):
            pass
        assert isinstance(frame, Granted | Refused)
        return frame

    async def granted(self) -> Granted:
        frame = await self.end()
        assert isinstance(frame, Granted), frame
        return frame

    async def refused(self) -> Refused:
        frame = await self.end()
        assert isinstance(frame, Refused), frame
        return frame

    async def is_cut(self) -> bool:
        """Does it end, with a reason or as by a queen that goes?"""
        try:
            async with asyncio.timeout(5):
                self.frames.append(await self.connection.receive())
                assert isinstance(self.frames[-1], Refused)
                self.frames.append(await self.connection.receive())
        except RbeeError:
            return True
        return False

    @property
    def reason(self) -> str:
        """Why it was cut."""
        assert isinstance(self.frames[-1], Refused)
        detail: str = self.frames[-1].problem["detail"]
        return detail


@dataclass
class Played:
    queen: Queen
    hive: ServingHive
    tape: Tape
    path: Path
    systemd: PlayedSystemd

    @property
    def serving(self) -> Serving:
        return self.queen.serving.serving

    @asynccontextmanager
    async def client(
        self, model: str = "bee", *, hold: float = 5.0, resume: str | None = None, key: str | None = None
    ) -> AsyncIterator[Client]:
        async with handover(self.path, "/v1/lease", LEASE_PROTOCOL) as connection:
            ask = Ask(model, REQUEST, round(hold * 1000), uid=1000, resume=resume, key=key)
            await connection.send(ask)
            yield Client(connection)

    async def ask(self, model: str = "bee", *, hold: float = 5.0) -> Granted | Refused:
        """The end of a request that is answered at once."""
        async with self.client(model, hold=hold) as client:
            frame = await client.end()
            if isinstance(frame, Granted):
                client.connection.take().close()
            return frame

    async def at_rest(self) -> None:
        """Wait until no lease and no start is there."""
        await until(
            lambda: (
                not any(worker.leases for worker in self.serving.known.all())
                and not self.serving.starter._starts
            )
        )

    async def hive_stops(self) -> None:
        """Its unit is stopped by hand, and it is offline."""
        await self.systemd.stop_by_hand(HIVE_UNIT)
        await until(lambda: self.queen.hives.hive("localhost").standing.life.state == "offline")

    async def model(self, name: str, **fields: Any) -> None:
        await self.queen.library.models.put(ROW._replace(name=name, **fields), None)

    def states(self, model: str | None = None) -> list[str]:
        return [view.state for view in self.serving.views(model).workers]

    def story(self, event: str) -> list[str]:
        return [text for name, text, _ in self.tape.told if name == event]


@asynccontextmanager
async def a_queen(
    folder: Path, *, with_hive: bool = True, hive: ServingHive | None = None
) -> AsyncIterator[Played]:
    """A queen with the model bee, whose hive is online unless it is not to be in the catalog yet."""
    tape, systemd, notifier = Tape(), PlayedSystemd(), notifier_outside_systemd()
    hive = hive or ServingHive(folder / "hive.sock", notifier)
    systemd.programs[HIVE_UNIT] = hive
    try:
        async with open_queen(folder, tape, systemd=systemd) as queen:
            hive.queen = queen
            queen._admission = Everyone()
            queen.hives.begin()
            played = Played(queen, hive, tape, folder / "queen.sock", systemd)
            if queen.library.models.find("bee") is None:
                await played.model("bee")
            if with_hive:
                await told(queen.work.add(AddHive("localhost", 8600), {}))

            async def stopping() -> None:
                await queen.end_work()

            options: dict[str, Any] = {"upgrades": (LEASE_PROTOCOL,), "stopping": stopping}
            async with served(queen.app(), played.path, notifier, **options):
                yield played
    finally:
        await hive.stop()
