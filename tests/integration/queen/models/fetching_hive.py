"""A queen, and a local hive that is played on a real socket: it fetches what a test lets arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from rbee import __version__
from rbee.errors import RbeeError, UnknownModel
from rbee.queen.jobs import Job
from rbee.queen.models.library import Library
from rbee.queen.queen import Queen
from rbee.scope import HIVE_UNIT
from rbee.server.app import build_app
from rbee.server.requests import read_query, read_shape
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Accepted
from rbee.wire.devices import Cpu, Devices
from rbee.wire.heartbeats import Heartbeat, HiveHealth
from rbee.wire.models import Fetch, FetchView, Head, ModelView
from rbee.wire.routes import JOB_HEADER, HiveRoutes
from tests.integration.queen.hives.local_hive import Tape, told
from tests.integration.unix_http import served
from tests.unit.played_systemd import PlayedSystemd
from tests.unit.queens import a_queen as open_queen
from tests.unit.wait import until

ACTOR = {"actor_uid": "1000", "actor_pid": "42"}
HEAD = Head("gguf", "llama", 1_000_000, "F16", 2048)
SUM = "5" * 64
URL = "https://models.example/bee.gguf"
INSTANCE = "1" * 32


@dataclass
class FetchingHive:
    """`asked` are its requests; `fetches` what it has, which arrives() and ends() change."""

    path: Path
    notifier: Notifier
    systemd: PlayedSystemd
    asked: list[tuple[str, str]] = field(default_factory=list)
    jobs: list[str | None] = field(default_factory=list)
    taken: list[Fetch] = field(default_factory=list)
    fetches: dict[str, FetchView] = field(default_factory=dict)
    refusal: RbeeError | None = None
    queen: Queen | None = None

    def __post_init__(self) -> None:
        self._stack = AsyncExitStack()
        self._news = asyncio.Condition()
        self._beats: set[asyncio.Future[Any]] = set()

    # As its unit

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        app = build_app(
            "played hive",
            __version__,
            {
                HiveRoutes.HEALTH: self._health,
                HiveRoutes.DEVICES: self._devices,
                HiveRoutes.FETCH: self._fetch,
                HiveRoutes.FETCH_STATE: self._state,
                HiveRoutes.CANCEL_FETCH: self._cancel,
                HiveRoutes.REMOVE_FILE: self._remove,
            },
        )
        await self._stack.enter_async_context(served(app, self.path, self.notifier))
        self._beats.add(asyncio.ensure_future(self.beat()))

    async def stop(self) -> None:
        async with self._news:
            self._news.notify_all()
        await self._stack.aclose()
        await asyncio.gather(*self._beats)

    async def beat(self) -> None:
        assert self.queen is not None
        await self.queen.hives.heartbeat(
            Heartbeat("localhost", "2026-01-31T12:00:00Z", (), INSTANCE, version=__version__)
        )

    # What arrives

    async def arrives(self, fetch_id: str, **fields: Any) -> None:
        """Change a fetch, and wake who waits for that."""
        async with self._news:
            view = self.fetches[fetch_id]
            self.fetches[fetch_id] = view._replace(serial=view.serial + 1, **fields)
            self._news.notify_all()

    async def ends(self, fetch_id: str) -> None:
        fields = {"path": f"/store/{SUM}", "sha256": SUM, "head": HEAD, "bytes": 793_000, "total": 793_000}
        await self.arrives(fetch_id, state="done", **fields)

    # Its routes

    async def _health(self, _request: Request) -> HiveHealth:
        return HiveHealth("ok", __version__, "localhost")

    async def _devices(self, _request: Request) -> Devices:
        return Devices(Cpu("cpu", 1, 1, 1, 2**30))

    async def _fetch(self, request: Request) -> FetchView:
        fetch = await read_shape(request, Fetch)
        self._heard("fetch", fetch.id)
        self.jobs.append(request.headers.get(JOB_HEADER))
        self.taken.append(fetch)
        view = self.fetches.get(fetch.id)
        if view is None or view.state in ("failed", "cancelled"):
            serial = 1 if view is None else view.serial + 1
            self.fetches[fetch.id] = FetchView(fetch.id, fetch.model, "fetching", serial)
        return self.fetches[fetch.id]

    async def _state(self, request: Request) -> FetchView:
        fetch_id = request.path_params["fetch_id"]
        self._heard("state", fetch_id)
        query = read_query(request, HiveRoutes.FETCH_STATE)
        async with self._news:
            view = self._find(fetch_id)
            if view.serial <= query["after"]:
                await self._news.wait()
            return self._find(fetch_id)

    async def _cancel(self, request: Request) -> FetchView:
        fetch_id = request.path_params["fetch_id"]
        self._heard("cancel", fetch_id)
        if self._find(fetch_id).state != "done":
            await self.arrives(fetch_id, state="cancelled", reason="cancelled")
        return self.fetches[fetch_id]

    async def _remove(self, request: Request) -> Accepted:
        self._heard("remove", request.path_params["sha256"])
        return Accepted("stopping")

    def _heard(self, what: str, of: str) -> None:
        self.asked.append((what, of))
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal

    def _find(self, fetch_id: str) -> FetchView:
        if fetch_id not in self.fetches:
            raise UnknownModel(f"there is no fetch {fetch_id}")
        return self.fetches[fetch_id]

    def count(self, what: str) -> int:
        return sum(one == what for one, _ in self.asked)


@dataclass
class Played:
    queen: Queen
    hive: FetchingHive
    tape: Tape

    @property
    def library(self) -> Library:
        return self.queen.library

    async def fetching(self, fetch_id: str = "") -> str:
        """The id of the fetch that the hive has been asked for, once it is followed."""
        await until(lambda: self.hive.count("state") > 0)
        return fetch_id or next(iter(self.hive.fetches))

    def row(self, name: str = "bee") -> ModelView:
        return self.library.models.view(self.library.models.model(name))


@asynccontextmanager
async def a_queen(
    folder: Path, notifier: Notifier, hive: FetchingHive | None = None
) -> AsyncIterator[Played]:
    """A queen, with a hive that may be one of a queen before her."""
    tape, systemd = Tape(), PlayedSystemd()
    hive = hive or FetchingHive(folder / "hive.sock", notifier, systemd)
    hive.systemd = systemd
    systemd.programs[HIVE_UNIT] = hive
    try:
        async with open_queen(folder, tape, systemd=systemd) as queen:
            hive.queen = queen
            queen.hives.begin()
            yield Played(queen, hive, tape)
    finally:
        await hive.stop()


def texts(events: list[tuple[str, Any]]) -> list[str]:
    """The lines of a story, without those of its hive."""
    return [data["text"] for kind, data in events if kind == "line" and "model" in data["event"]]


async def story(job: Job) -> list[tuple[str, Any]]:
    return await told(job)
