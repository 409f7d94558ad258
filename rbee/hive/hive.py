"""A hive: builds all its parts in one place, and ends them in one place."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from starlette.types import ASGIApp

from rbee import __version__, hivestatus
from rbee.config import Config
from rbee.errors import BadConfig
from rbee.files import explained
from rbee.hive import app
from rbee.hive.devices import Detector, Sampler
from rbee.hive.heartbeat import Heart
from rbee.hive.membership import Membership, Memberships
from rbee.hive.queen import FindMachineEnd, LocalQueen, Queen
from rbee.hive.serving import Serving
from rbee.hive.work import Serials, Work
from rbee.narration import CONFIG_WARNING, GOODBYE, HIVE_STARTED, MEMBERSHIP_RESTORED, Narrator
from rbee.scope import HIVE_PROGRAM, Scope
from rbee.server.uvicorn import serve
from rbee.systemd.daemon import Notifier
from rbee.wire.leases import CONNECT_PROTOCOL

log = logging.getLogger("rbee")


class Site(NamedTuple):
    """The surroundings of a hive: its scope, its state directory, and the Unix sockets that it serves.

    `instance` identifies this process; by default it is random. `queen_uid` is the user of the local queen.
    `find_machine_end` returns how the machine is going down, if it is; it may block for a moment.
    `engine_journal` takes what engines print.
    """

    scope: Scope
    state: Path
    sockets: Sequence[socket.socket] = ()
    instance: str | None = None
    queen_uid: int | None = None
    find_machine_end: FindMachineEnd = lambda: None
    engine_journal: Narrator = Narrator()


class Hive:
    """The parts of a hive; open() builds them, serve() runs them."""

    def __init__(
        self, settings: Config, site: Site, notifier: Notifier, journal: Narrator, detector: Detector
    ) -> None:
        self._site = site
        self._notifier = notifier
        self._journal = journal
        for warning in settings.warnings:
            journal.narrate(CONFIG_WARNING, warning, speaker="bee hive")
        self._memberships = Memberships(site.state, site.scope)
        membership = self._take_up_membership()
        self.queen: Queen
        if membership is None:
            self.queen = LocalQueen(settings.hive.id, settings.hive.queen, site.scope)
        else:
            from rbee.hive.remote import RemoteQueen  # which the local hive does not need

            self.queen = RemoteQueen(self._memberships, membership, site.scope)
        self.detector = detector
        self.sampler = Sampler(self.queen.hive_id, detector)
        self.mark = Work(Serials(), self._hurry)
        self.heart = Heart(
            self.queen.hive_id,
            self.queen.beats,
            journal,
            status=notifier.status,
            queen_name=self.queen.name,
            fingerprint=self.sampler.fingerprint,
            work=lambda: self.mark.mark,
            instance=site.instance,
            scope=site.scope,
        )
        engine_journal = site.engine_journal.about(hive=self.queen.hive_id)
        self.serving = Serving(site.scope, site.state, detector, self.heart, self.mark, engine_journal)
        self._exit_status = 0
        self._stop_requested = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._has_ended_early = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Config,
        site: Site,
        notifier: Notifier,
        journal: Narrator,
        *,
        detector: Detector | None = None,
    ) -> AsyncIterator[Hive]:
        """Yield a hive of the queen in its membership, or without one of the local queen; end it afterwards.

        Raises BadConfig if the membership cannot be read.
        """
        detector = detector or Detector(Path("/"), nvml_timeout=settings.hive.nvml_timeout)
        hive = cls(settings, site, notifier, journal, detector)
        async with AsyncExitStack() as at_the_end:
            at_the_end.push_async_callback(hive.queen.close)
            at_the_end.push_async_callback(hive.sampler.close)
            at_the_end.callback(detector.close)
            at_the_end.push_async_callback(hive.serving.close)
            at_the_end.push_async_callback(hive._stop_working)
            yield hive

    async def serve(self, stop_requested: asyncio.Event) -> int:
        """Serve the sockets and send heartbeats until stopped; return the exit status.

        Raises the error that has ended work(), or RuntimeError if work() has returned.
        """
        self._stop_requested = stop_requested
        served = self.app()
        queen_uid = self._site.queen_uid
        await serve(
            served,
            self._site.sockets,
            self._notifier,
            stop_requested,
            status=lambda: hivestatus.no_beat_yet(self.queen.name),
            started=partial(self._begin_work, served),
            stopping=self.end_work,
            daemons=() if queen_uid is None else (queen_uid,),
            upgrades=(CONNECT_PROTOCOL,),
        )
        if self._working is not None and self._working.done() and not self._working.cancelled():
            self._working.result()
        if self._has_ended_early:
            raise RuntimeError("the hive's work has ended before the hive was stopped")
        return self._exit_status

    def app(self) -> ASGIApp:
        """Return the app that the hive serves, on its Unix socket and to a queen on another machine."""
        forget = self.queen.forget
        return app.build(
            self.heart,
            self.detector.detect,
            self._shut_down,
            look=self.sampler.look,
            leave=None if forget is None else self._leaving(forget),
            holdings=self.serving.holdings,
            scope=self._site.scope,
            more=self.serving.routes(),
        )

    def _hurry(self) -> None:
        self.heart.hurry()

    async def work(self, served: ASGIApp) -> None:
        """Resume what an earlier hive process has left, and then work for the queen until cancelled."""
        try:
            await self.serving.take_up()
        except Exception:
            log.exception("workers or fetches of the previous hive process could not be resumed")
        await self.queen.work(self.heart, served)

    async def end_work(self) -> None:
        """Do the first steps of a stop, while the hive still answers requests."""
        self.heart.narrate(GOODBYE, "Received shutdown signal, goodbye")
        async with self.queen.farewell(self.heart, self._site.find_machine_end):
            await self._stop_working()
            self.detector.close()
            await self.sampler.close()
        self.heart.stop()

    def _take_up_membership(self) -> Membership | None:
        """Return the membership, None with a local queen. One that rbee-hive-join has left is adopted."""
        with explained(self._site.state / "membership", "written", BadConfig):
            is_back = self._memberships.adopt()
        membership = self._memberships.load()
        if is_back and membership is not None:
            text = (
                f"the hive did not become ready with its new membership; it is again the hive "
                f"{membership.hive_id} of the queen at {membership.queen()}"
            )
            self._journal.narrate(MEMBERSHIP_RESTORED, text, hive=membership.hive_id)
        return membership

    def _begin_work(self, served: ASGIApp) -> None:
        text = f"{HIVE_PROGRAM} {__version__} is awake"
        self._journal.narrate(HIVE_STARTED, text, hive=self.queen.hive_id)
        try:
            self._memberships.confirm()
        except OSError as error:
            log.error("the previous membership could not be removed, and may be restored: %s", error)
        self._working = asyncio.get_running_loop().create_task(self.work(served))
        # A hive that sends no heartbeats is of no use: it ends with an error, and systemd restarts it.
        self._working.add_done_callback(self._work_ended)

    async def _stop_working(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    def _work_ended(self, _working: asyncio.Task[None]) -> None:
        self._has_ended_early = not self._stop_requested.is_set()
        self._stop_requested.set()

    def _shut_down(self) -> None:
        self._exit_status = self.queen.status_after_shutdown
        self._stop_requested.set()

    def _leaving(self, forget: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()

        def leave() -> None:
            forget()
            loop.call_soon_threadsafe(self._stop_requested.set)

        return leave
