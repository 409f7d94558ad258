"""All hives of a queen: which there are, and what is asked of them.

What becomes of one hive is the hive's own (hive.py); here are the collection, the jobs that are about
hives, and what is true of many at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from rbee.client.link import HiveClient
from rbee.contracts import LOCALHOST, AddHive, Done, Heartbeat, HeartbeatAck, HiveView, Sample, State, spelled
from rbee.errors import RbeeError, UnknownHive, UnknownHost
from rbee.narration import (
    ADD_FAILED,
    ADDING,
    REMOVE_FAILED,
    REMOVED,
    REMOVING,
    SHUTDOWN_FAILED,
    SHUTTING_DOWN_HIVES,
    Event,
    Narrator,
)
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.local import LocalHive
from rbee.queen.hives.relay import Relay
from rbee.queen.hives.remote import CONNECTION_CLOSED, RemoteHive
from rbee.queen.hives.standing import Shared
from rbee.queen.hives.watch import Watch
from rbee.queen.jobs import Job, Jobs
from rbee.queen.store.records import Actor, Row
from rbee.queen.uplinks import Uplink, Uplinks
from rbee.scope import HIVE_UNIT, TARGET
from rbee.systemd.aio import AsyncBus

log = logging.getLogger("rbee")


class Hives:
    """`bus` and `client` lead to the local hive's unit, and to its socket."""

    def __init__(self, shared: Shared, jobs: Jobs, relay: Relay, bus: AsyncBus, client: HiveClient) -> None:
        self._shared = shared
        self._jobs = jobs
        self._relay = relay
        self._bus = bus
        self._client = client
        self._hives: dict[str, Hive] = {}
        self._when_removed: Callable[[str], None] = lambda hive_id: None
        self._watch = Watch(shared, self._hives)
        self._telling: asyncio.Task[None] | None = None
        self.uplinks = Uplinks(self._uplink_closed)

    # Which there are

    async def load(self) -> None:
        """Take up the hives of the catalog, as unknown until they are heard of."""
        for row in await self._shared.catalog.hives.all():
            self._take_in(row, "unknown", f"not heard of yet since the queen woke; was {row.status}")

    def _take_in(self, row: Row, state: State, reason: str) -> Hive:
        hive: Hive
        if row.id == LOCALHOST:
            hive = LocalHive(row, self._shared, state, reason, bus=self._bus, client=self._client)
        else:
            hive = RemoteHive(row, self._shared, state, reason, uplinks=self.uplinks)
        self._hives[row.id] = hive
        self._shared.pace.remote += row.id != LOCALHOST
        self._shared.changed()
        return hive

    def _forget(self, hive: Hive) -> None:
        del self._hives[hive.id]
        self._shared.pace.remote -= hive.id != LOCALHOST
        self._when_removed(hive.id)
        hive.removed()

    def when_removed(self, removed: Callable[[str], None]) -> None:
        """Call `removed` with the id of each hive that is taken out of the catalog."""
        self._when_removed = removed

    def find(self, hive_id: str) -> Hive | None:
        return self._hives.get(hive_id)

    def hive(self, hive_id: str, *, hint: str = "rbeectl list-hives shows those that are") -> Hive:
        """As find(); UnknownHive where there is none."""
        hive = self._hives.get(hive_id)
        if hive is None:
            raise UnknownHive(f"hive '{hive_id}' is not in the hive catalog", hint=hint, field="hive_id")
        return hive

    def remote_hive(self, hive_id: str) -> RemoteHive:
        """As hive(), of one on another machine."""
        hive = self.hive(hive_id)
        assert isinstance(hive, RemoteHive)
        return hive

    def remote(self) -> list[RemoteHive]:
        return [hive for hive in self._hives.values() if isinstance(hive, RemoteHive)]

    @property
    def _local(self) -> LocalHive | None:
        hive = self._hives.get(LOCALHOST)
        return hive if isinstance(hive, LocalHive) else None

    def spelled(self, name: str) -> str:
        """How the hive of that name spells it; the name itself where there is none."""
        return name if name in self._hives else spelled(name, (LOCALHOST, *self._hives))

    def views(self) -> list[HiveView]:
        """All of them, by name."""
        return [self._hives[hive_id].standing.view() for hive_id in sorted(self._hives)]

    def view(self, hive_id: str) -> HiveView:
        return self.hive(hive_id).standing.view()

    # From the queen's start to her end

    def begin(self) -> None:
        """Once the queen serves: watch the local hive, judge by silence, and wake what is wanted.

        Not before READY=1: starting a unit that is ordered after the queen would wait for her.
        """
        begin = self._shared.tasks.begin
        self._bus.on_unit_changed(HIVE_UNIT, self._local_unit_changed)
        begin(self._watch.run())
        if self._local is not None:
            begin(self._local.reconcile())

    async def end(self) -> None:
        """Stop all work; what was going on is taken up when it is asked for again.

        Hives that are being told to stop are told first.
        """
        self._shared.tasks.close()
        if self._telling is not None:
            await asyncio.wait({self._telling})
        self.uplinks.close()
        self._shared.restraint.close()
        await asyncio.gather(*(hive.samples.end() for hive in self._hives.values()))
        await self._shared.tasks.end()

    # Asked for

    def add(self, request: AddHive, actor: dict[str, str]) -> Job:
        """Begin to add a hive; one that is there already goes on from wherever it is."""
        host = self.spelled(request.host)
        known = self.find(host)
        if host != LOCALHOST and (known is None or not known.standing.row.is_remote):
            raise UnknownHost(
                f"host '{host}' is not known: it is not {LOCALHOST}, and no machine has joined as it",
                hint="rbeectl add-hive HOST, which goes there by ssh\n"
                "Or on that machine: sudo rbeectl join QUEEN:8500 --token TOKEN",
                field="host",
            )
        job = self._jobs.open("add-hive", host)
        story = self._shared.narrator.about(job_id=job.id, hive=host, **actor)
        by = {**actor, "job_id": job.id}
        work = partial(self._add, job, story, replace(request, host=host), by)
        self._shared.tasks.begin(self._run(job, story, ADD_FAILED, f"adding {host}", work))
        return job

    async def _add(self, job: Job, story: Narrator, request: AddHive, by: Actor) -> Done:
        host = request.host
        story.narrate(ADDING, f"Adding {'local pc' if host == LOCALHOST else host} to hive catalog.")
        async with self._in_catalog(request, by) as hive:
            return Done(await hive.add(job, story, by))

    @contextlib.asynccontextmanager
    async def _in_catalog(self, request: AddHive, by: Actor) -> AsyncIterator[Hive]:
        """The hive, in the catalog and wanted, with its lock taken."""
        host = request.host
        while True:
            hive = self.find(host)
            if hive is None:
                row = await self._shared.catalog.hives.add(host, host, request.port, by=by)
                hive = self.find(host) or self._take_in(row, "pending", "just added")
                async with hive.lock:
                    if not hive.is_removed:
                        yield hive
                        return
            else:
                async with hive.lock:
                    if not hive.is_removed:
                        hive.standing.row = await self._shared.catalog.hives.add(
                            host, host, request.port, by=by
                        )
                        yield hive
                        return

    def remove(self, hive_id: str, actor: dict[str, str], *, is_forced: bool = False) -> Job:
        """Begin to stop a hive and forget it; one that is not there is no error.

        One on another machine that cannot be told so is forgotten only where it `is_forced`.
        """
        job = self._jobs.open("remove-hive", hive_id)
        story = self._shared.narrator.about(job_id=job.id, hive=hive_id, **actor)
        by = {**actor, "job_id": job.id}
        work = partial(self._remove, story, hive_id, by, is_forced)
        self._shared.tasks.begin(self._run(job, story, REMOVE_FAILED, f"removing {hive_id}", work))
        return job

    async def _remove(self, story: Narrator, hive_id: str, by: Actor, is_forced: bool) -> Done:
        story.narrate(REMOVING, f"Removing {hive_id} from hive catalog")
        hive = self.find(hive_id)
        if hive is not None:
            async with hive.lock:
                if not hive.is_removed:
                    is_stopped = await hive.remove(story, by, is_forced=is_forced)
                    self._forget(hive)
                    told = "stopped and no longer in the hive catalog"
                    if not is_stopped:
                        told = "no longer in the hive catalog; whether it runs is not known"
                    story.narrate(REMOVED, f"the beehive {hive_id} is {told}")
                    return Done(None, was_there=True)
        story.narrate(REMOVED, f"the beehive {hive_id} was not in the hive catalog")
        return Done(None, was_there=False)

    def shut_down(self, actor: dict[str, str]) -> Job:
        """Have systemd stop the target: hives first, then the queen, whose end ends the story."""
        running = self._jobs.running("shutdown")
        job = running or self._jobs.open("shutdown", None)
        story = self._shared.narrator.about(job_id=job.id, **actor)
        if running is None:
            story.narrate(SHUTTING_DOWN_HIVES, "Shutting down all hives")
        # Again for one that runs: somebody may have started the queen in between.
        self._shared.tasks.begin(self._shut_down(job, story))
        return job

    async def _shut_down(self, job: Job, story: Narrator) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell_hives(story))
        # Not cut off by a stop of the queen, which whoever asked for this may be at already.
        await asyncio.shield(self._telling)
        try:
            self._bus.ask_stop(TARGET)
        except RbeeError as error:
            self._telling = None  # the next try tells them again
            for hive in self.remote():
                hive.is_leaving = False
            story.narrate(SHUTDOWN_FAILED, f"shutting down failed: {error.message}")
            job.failed(error)

    async def _tell_hives(self, story: Narrator) -> None:
        await asyncio.gather(*(hive.shut_down(story) for hive in self.remote()))

    @property
    def is_telling(self) -> bool:
        """Are hives on other machines being told to stop?"""
        return self._telling is not None and not self._telling.done()

    async def _run(
        self,
        job: Job,
        story: Narrator,
        failed: Event,
        doing: str,
        work: Callable[[], Coroutine[Any, Any, Done]],
    ) -> None:
        """Do a job's work to its explicit end, whatever becomes of it."""
        try:
            job.done(await work())
        except RbeeError as error:
            story.narrate(failed, f"{doing} failed: {error.message}")
            job.failed(error)
        except Exception as error:
            log.exception("%s failed", doing)
            job.failed(RbeeError(f"{doing} failed in a way that nobody foresaw: {error!r}"))
        self._shared.changed()

    async def sample(self, hive_id: str) -> Sample:
        """What the machine of a hive that is online does right now; nobody is woken to tell it."""
        return await self.hive(hive_id).sample()

    # Heard

    async def heartbeat(self, beat: Heartbeat, sender: Actor | None = None) -> HeartbeatAck:
        """Take a hive's beat; `sender` is who asks for what it has the queen write."""
        try:
            hive = self.hive(beat.hive_id, hint=f"rbeectl add-hive {beat.hive_id}")
        except UnknownHive:
            self._shared.metrics.beat_refused()
            raise
        self._shared.metrics.beat_came(beat.state)
        self._relay.take(beat)
        return await hive.heartbeat(beat, sender)

    def _local_unit_changed(self) -> None:
        if self._local is not None:
            self._shared.tasks.begin(self._local.unit_changed())

    # Hives on other machines

    def has_joined(self, row: Row) -> None:
        """A machine has become a hive, or is it again with another credential."""
        hive = self.find(row.id)
        if isinstance(hive, RemoteHive):
            hive.joined_anew(row)
        else:
            self._take_in(row, "pending", "just joined")

    def _uplink_closed(self, uplink: Uplink) -> None:
        """Its process has gone, or its connection broke; if it lives, it is back in a moment."""
        hive = self.find(uplink.hive_id)
        if isinstance(hive, RemoteHive):
            self._shared.tasks.begin(self._lose(hive, hive.end_of_connection()))

    async def _lose(self, hive: RemoteHive, reason: str) -> None:
        await hive.standing.set_offline(reason)
        if reason == CONNECTION_CLOSED:
            self._watch.note_loss(hive)
