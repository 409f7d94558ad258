"""A queen: its parts, built in one place and shut down in one place."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.routing import Router

from rbee import __version__
from rbee.client.link import HiveClient, Link
from rbee.client.links import Links
from rbee.config import Config
from rbee.errors import RbeeError, Unreachable
from rbee.narration import CONFIG_WARNING, QUEEN_STARTED, QUEEN_STOPPING, TCP_CLOSED, Chorus, Narrator
from rbee.queen.access import TcpAccess
from rbee.queen.api import catalog as catalog_api
from rbee.queen.api import events as events_api
from rbee.queen.api import fleet as fleet_api
from rbee.queen.api import heartbeats as heartbeats_api
from rbee.queen.api import hives as hives_api
from rbee.queen.api import jobs as jobs_api
from rbee.queen.api import leases as leases_api
from rbee.queen.api import remote as remote_api
from rbee.queen.api import workers as workers_api
from rbee.queen.api.admission import Admission
from rbee.queen.authority import credentials_folder
from rbee.queen.boot_marker import BootMarker
from rbee.queen.changes import Changes
from rbee.queen.feed import Feed, FeedFile
from rbee.queen.fleet import Fleet
from rbee.queen.gateway import GatewayAccess
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.liveness import Clocks, Pace
from rbee.queen.hives.relay import Relay
from rbee.queen.hives.remote import REQUEST_TIMEOUT
from rbee.queen.hives.samples import SAMPLE_TIMEOUT
from rbee.queen.hives.standing import Shared
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Jobs, Stories
from rbee.queen.metrics import Metrics
from rbee.queen.models.library import Library
from rbee.queen.restraint import Restraint
from rbee.queen.serving.lazy import LazyServing
from rbee.queen.status import StatusLine
from rbee.queen.store.store import Store
from rbee.queen.tasks import Tasks
from rbee.scope import QUEEN_PROGRAM, TCP_SOCKET_UNIT, Scope
from rbee.server.app import Handler, build_app
from rbee.server.uvicorn import Remote, serve
from rbee.systemd.aio import AsyncBus
from rbee.systemd.bus import Bus
from rbee.systemd.control import Control
from rbee.systemd.daemon import Notifier
from rbee.uplink.frames import PROTOCOL
from rbee.wire.daemon import Health
from rbee.wire.hives import State
from rbee.wire.routes import LEASE_PROTOCOL, QueenRoutes, Route

if TYPE_CHECKING:
    from rbee.queen.serving.parts import Parts

PREPARE_AFTER = 0.1
"""Seconds after the start when the modules for requests to a hive are imported: a hive starts meanwhile."""


class Site(NamedTuple):
    """Where a queen runs: its scope, its state directory, the local hive's socket, and its unit's Control.

    Events are kept in the file `feed`, or in RAM if that is None. `sockets` are Unix sockets; without
    `remote_sockets` the queen does not serve TCP. `find_hive_uid` returns the uid of the local hive's user,
    `find_gateway_uid` that of the gateway's.
    """

    scope: Scope
    state: Path
    hive_socket: Path
    control: Control
    feed: Path | None = None
    sockets: Sequence[socket.socket] = ()
    remote_sockets: Sequence[socket.socket] = ()
    find_hive_uid: Callable[[], int | None] = lambda: None
    find_gateway_uid: Callable[[], int | None] = lambda: None
    find_credentials: Callable[[], Path | None] = credentials_folder

    def daemons(self) -> set[int]:
        """The uids of queen, hive and gateway; empty in a user's own rbee, where all are the operator's."""
        if self.scope.kind == "user":
            return set()
        uids = (os.geteuid(), self.find_hive_uid(), self.find_gateway_uid())
        return {uid for uid in uids if uid is not None}

    def admission(self) -> Admission:
        """Return who may use which route."""
        return Admission(
            self.find_hive_uid(),
            self.find_hive_uid,
            find_gateway_uid=self.find_gateway_uid,
            own_uid=os.geteuid(),
            hive_user=self.scope.hive_user,
            gateway_user=self.scope.gateway_user,
        )

    def open_catalog(self, database: Path | None, narrator: Narrator, metrics: Metrics) -> Store:
        """Open the catalog: `database`, or the one in the state directory. Raises RbeeError."""
        return Store.open(
            database or self.state / "catalog.db",
            narrator,
            wanted=BootMarker(self.state / "wanted").set,
            metrics=metrics,
            scope=self.scope,
            find_daemons=self.daemons,
        )

    def access(self, narrator: Narrator) -> TcpAccess:
        """The access over TCP."""
        return TcpAccess(
            self.state,
            self.remote_sockets,
            narrator,
            find_credentials=self.find_credentials,
            scope=self.scope,
        )

    def gateway(self, bus: AsyncBus, catalog: Store) -> GatewayAccess:
        """The gateway's access over TCP."""
        return GatewayAccess(self.state / self.scope.gateway_is_open.name, bus, catalog)

    def link(self, timeout: float) -> Link:
        """A connection to the local hive; `timeout` in seconds for each answer."""
        return Link(self.hive_socket, timeout=timeout, scope=self.scope)

    def hive_client(self, link: Link, sample_link: Link, work_links: Links) -> HiveClient:
        """A client for the local hive."""
        return HiveClient(
            link, sample_link=sample_link, work_links=work_links, local=self.hive_socket, scope=self.scope
        )

    def work_links(self, timeout: float) -> Links:
        """Connections to the local hive for requests for models; `timeout` in seconds for each answer."""
        return Links(self.hive_socket, timeout=timeout, scope=self.scope)


class Queen:
    """The queen's parts: open() builds them, serve() runs them."""

    def __init__(
        self, settings: Config, site: Site, bus: Bus, notifier: Notifier, journal: Narrator, clocks: Clocks
    ) -> None:
        config = settings.queen
        self._site = site
        self._notifier = notifier
        self._daemons = tuple(site.daemons() - {os.geteuid()})
        self._admission = site.admission()
        self.metrics = Metrics()
        self.feed = Feed(FeedFile(site.feed), journal, self._daemons)
        self.narrator: Narrator = Chorus(journal, self.feed)
        for warning in settings.warnings:
            self.narrator.narrate(CONFIG_WARNING, warning)
        self.catalog = site.open_catalog(config.database, self.narrator, self.metrics)
        self.jobs = Jobs(config.jobs_max, self.metrics, daemons=self._daemons, scope=site.scope)
        tally: Counter[State] = Counter()
        self._tasks = Tasks()
        self._status = StatusLine(notifier, tally, self.jobs)
        self._failure: RbeeError | None = None
        self._stop_event = asyncio.Event()
        self.bus = AsyncBus(bus, site.control, lost=self._bus_is_lost)
        link, sample_link = self._links = site.link(config.detect_timeout), site.link(SAMPLE_TIMEOUT)
        self._work_links = site.work_links(config.hive_start_timeout)
        client = self._client = site.hive_client(link, sample_link, self._work_links)
        changes = Changes(self._hives_changed)
        narrator = Chorus(self.narrator, Stories(self.jobs), self._status)
        restraint = Restraint(narrator)
        pace = Pace(config.heartbeat_interval, config.heartbeat_grace)
        shared = Shared(
            config, self.catalog, narrator, restraint, pace, site.scope, changes=changes,
            metrics=self.metrics, clocks=clocks, tally=tally, tasks=self._tasks,
            work_changed=lambda hive: self.serving.work_changed(hive),
            holdings=lambda hive: self.serving.holdings(hive),
        )  # fmt: skip
        self.hives = Hives(shared, Relay(self.jobs, restraint, self.feed.relay), self.bus, client)
        self.work = HiveWork(shared, self.hives, self.jobs, self.bus)
        self.library = Library(shared, self.hives, self.work, self.jobs, site.gateway(self.bus, self.catalog))
        self.serving = self._lazy_serving(shared)
        self.access = site.access(self.narrator)
        self.fleet = Fleet(self.access, self.catalog, self.hives, self.narrator, restraint, site.scope)

    def _lazy_serving(self, shared: Shared) -> LazyServing:
        library = self.library

        def parts() -> Parts:
            from rbee.queen.serving.parts import Parts

            return Parts(
                self.hives, self.work, library.models, library.keys, self.jobs, shared.narrator, shared.tasks,
                shared.metrics, shared.scope, shared.clocks,
            )  # fmt: skip

        serving = LazyServing(parts, self.hives, library.models)
        library.models.when_served = serving.model_served
        library.models.when_replaced = serving.model_replaced
        library.work.stop_workers = serving.stop_model
        self.work.before_stop = serving.cut
        self.hives.when_removed(serving.hive_removed)
        return serving

    def _hives_changed(self) -> None:
        self._status.update()
        self.serving.hives_changed()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Config,
        site: Site,
        bus: Bus,
        notifier: Notifier,
        journal: Narrator,
        *,
        clocks: Clocks | None = None,
    ) -> AsyncIterator[Queen]:
        """Build all parts and load the catalog's hives; every part is shut down when the context ends.

        Raises RbeeError if the queen cannot run, for example if the catalog cannot be opened.
        """
        queen = cls(settings, site, bus, notifier, journal, clocks or Clocks())
        async with AsyncExitStack() as at_the_end:
            at_the_end.push_async_callback(queen.feed.end)
            at_the_end.callback(queen.catalog.close)
            for link in (*queen._links, queen._work_links):
                at_the_end.push_async_callback(link.close)
            at_the_end.callback(queen._client.close)
            at_the_end.push_async_callback(queen.library.end)
            at_the_end.push_async_callback(queen.serving.end)
            at_the_end.push_async_callback(queen.hives.end)
            at_the_end.push_async_callback(queen.work.end)
            await queen.hives.load()
            await queen.library.load()
            await queen.access.load()
            await queen.fleet.load()
            queen.library.begin()
            queen.bus.attach()
            at_the_end.callback(queen.bus.detach)
            yield queen

    async def serve(self, stop_event: asyncio.Event, *, started: Callable[[], None] = lambda: None) -> None:
        """Serve on the sockets and supervise the hives until `stop_event` is set.

        `started` is called once everything runs. Raises Unreachable if the bus is lost.
        """
        site, access = self._site, self.access
        self._stop_event = stop_event
        remote = await self._remote()
        if access.is_shut_out:
            self._status.trouble = f"{TCP_SOCKET_UNIT} is closed"

        def begin() -> None:
            self.narrator.narrate(QUEEN_STARTED, f"{QUEEN_PROGRAM} {__version__} is awake")
            if access.is_shut_out:
                closed = f"no hive on another machine can reach the queen: {TCP_SOCKET_UNIT} is closed"
                self.narrator.narrate(TCP_CLOSED, f"{closed}; it is retried until its port is free")
            self.hives.begin()
            self._tasks.begin(self._prepare())
            if remote is not None:
                self._tasks.begin(access.keep_keys())
            started()

        await serve(
            self.app(),
            site.sockets,
            self._notifier,
            stop_event,
            status=self._status.counts,
            started=begin,
            stopping=self.end_work,
            daemons=self._daemons,
            remote=remote,
            quick=heartbeats_api.quick(self.hives, self.fleet, self._admission),
            upgrades=(LEASE_PROTOCOL,),
        )
        if self._failure is not None:
            raise self._failure

    async def _prepare(self) -> None:
        await asyncio.sleep(PREPARE_AFTER)
        for link in self._links:
            await link.prepare()

    async def _remote(self) -> Remote | None:
        """Return what is served over TCP, if anything is."""
        if not self._site.remote_sockets:
            return None
        app = remote_api.build(self.access, self.fleet, self.hives)
        return Remote(app, self._site.remote_sockets, await self.access.context(), upgrade=PROTOCOL)

    async def end_work(self) -> None:
        """Stop the work in progress: the first step of stopping, while requests are still answered."""
        self.narrator.narrate(QUEEN_STOPPING, f"{QUEEN_PROGRAM} is going to sleep")
        if self.work.is_asking_hives:
            # systemd counts TimeoutStopSec= from the stop, and remote hives are asked to stop first.
            self._notifier.extend(REQUEST_TIMEOUT + 1)
        await self.work.end()
        await self.serving.end()
        await self.hives.end()
        self.jobs.close()
        self.feed.close()

    def app(self) -> Router:
        """Return the app that is served on the Unix sockets."""

        async def health(_request: object) -> Health:
            return Health("ok", __version__)

        handlers: dict[Route[Any], Handler] = {
            QueenRoutes.HEALTH: health,
            QueenRoutes.OPENAPI: health,  # answered from the route table
            **hives_api.routes(self.hives, self.work, self.jobs),
            **heartbeats_api.routes(self.hives, self.fleet),
            **jobs_api.routes(self.jobs),
            **events_api.routes(
                self.feed, self.hives, self.jobs, self.metrics, self.library.keys, self.serving
            ),
            **catalog_api.routes(self.catalog),
            **self.library.routes(),
            **workers_api.routes(self.serving, self.hives, self.jobs),
            **leases_api.routes(self.serving, self.library.models, self.library.keys),
            **fleet_api.routes(self.access, self.fleet, self.catalog),
        }
        return build_app("rbee queen", __version__, handlers, admit=self._admission)

    def _bus_is_lost(self, error: RbeeError) -> None:
        # Without the bus the queen cannot see its hive: systemd restarts it, with a new connection.
        scope = self._site.scope
        message = f"the {scope.kind} bus is gone: {error.message}"
        self._failure = Unreachable(message, hint=scope.systemctl("status dbus"))
        self._stop_event.set()
