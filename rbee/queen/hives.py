"""The rules: what adding, removing, beating and dying mean for a hive.

What is decided here is told to the narrator, kept in the catalog (what should survive) and
the registry (what is so now). Work on one hive is done one piece at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from rbee.client.link import HiveClient
from rbee.config import QueenConfig
from rbee.contracts import (
    LOCALHOST,
    AddHive,
    Devices,
    Done,
    Heartbeat,
    HeartbeatAck,
    HiveView,
    Label,
    Line,
    MachineEnd,
    Sample,
    Status,
)
from rbee.errors import (
    CatalogFailed,
    HiveFailed,
    HiveNotOnline,
    RbeeError,
    TimedOut,
    UnitFailed,
    UnknownHive,
    UnknownHost,
)
from rbee.exitstatus import describe_exit
from rbee.narration import (
    ADD_FAILED,
    ADDING,
    ASKING_DEVICES,
    DEVICES_CHANGED,
    DEVICES_UNKNOWN,
    FIRST_HEARTBEAT,
    FLEET_LOST,
    HAS_DEVICES,
    HIVE_AWAKE,
    HIVE_EVENTS,
    HIVE_NOT_TOLD,
    HIVE_OFFLINE,
    HIVE_ONLINE,
    HIVE_SAID,
    HIVE_SUSPECT,
    HIVE_TOLD,
    NOTICE,
    REMOVE_FAILED,
    REMOVED,
    REMOVING,
    SHUTDOWN_FAILED,
    SHUTTING_DOWN_HIVES,
    WAKING,
    Event,
    Narrator,
)
from rbee.queen.fingerprints import Fingerprints
from rbee.queen.jobs import Job, Jobs
from rbee.queen.local_hive import check_own, place_of_beats
from rbee.queen.looks import Looks
from rbee.queen.losses import Losses
from rbee.queen.metrics import Metrics
from rbee.queen.registry import Life, Registry
from rbee.queen.restraint import Restraint
from rbee.queen.store.records import Actor, Row
from rbee.queen.store.store import Store
from rbee.queen.units import AsyncBus
from rbee.queen.uplinks import Uplink, Uplinks
from rbee.queen.words import describe, differences
from rbee.systemd import HIVE_UNIT, QUEEN_UNIT, TARGET, UnitState

log = logging.getLogger("rbee")

STOP_TIMEOUT = 10.0
"""Seconds in which a hive's unit must have stopped; its TimeoutStopSec= is 5 s."""

LOOK_AGAIN = 1.0
"""Seconds after which a look at the hive's unit that failed is tried again."""

TELL_TIMEOUT = 3.0
"""Seconds in which a hive on another machine must have taken that it is to stop, or to leave."""

CONNECT_TIMEOUT = 5.0
"""Seconds that a hive whose beats come has for its stream."""

DIAL_TIMEOUT = 16.0
"""Seconds for a hive on another machine to connect: it dials every 15 s at least (rbee.hive.dial)."""

REFUSED_TIMEOUT = 3.0
"""Seconds for a hive that was refused when it dialled last to come again: it may have been mended since."""

STOPPED_BY_ADMIN = "stopped by an administrator"
STOPPED_WITH_QUEEN = "stopped together with the queen"
CONNECTION_CLOSED = "its connection closed"
ENDS: Mapping[MachineEnd | None, str] = {
    None: STOPPED_BY_ADMIN,
    "rebooting": "its machine is rebooting",
    "shutting-down": "its machine is shutting down",
}
"""Why a hive is gone that has said goodbye, by what it said of its machine."""

ASKED_FOR = (STOPPED_WITH_QUEEN, *ENDS.values())
"""Reasons that are nobody's fault."""

LIKELY = "likely the network of the queen's own machine"


@dataclass(slots=True)
class _Arrival:
    """A job that waits for a hive's first heartbeat, or for systemd's word that none will come.

    Not `awaits_beat` while it is at something else, to which the hive's end is what it is to anybody.
    """

    job: Job
    is_started: bool = False
    awaits_beat: bool = True
    outcome: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def beats(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(None)

    @property
    def is_waiting(self) -> bool:
        return self.awaits_beat and not self.outcome.done()

    def dies(self, reason: str) -> None:
        died = UnitFailed(
            f"{HIVE_UNIT} started and sent no heartbeat: {reason}", hint=f"systemctl status {HIVE_UNIT}"
        )
        self.refuse(died)

    def refuse(self, error: RbeeError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Hives:
    """`changed` is called whenever the counts of the registry may have changed.

    `passed_on` gets each line that a hive's beat brings, with its job's id: again with a beat that
    comes again.
    """

    def __init__(
        self,
        config: QueenConfig,
        catalog: Store,
        registry: Registry,
        jobs: Jobs,
        bus: AsyncBus,
        local_hive: HiveClient,
        narrator: Narrator,
        *,
        changed: Callable[[], None],
        passed_on: Callable[[str, Line, str | None], None] = lambda hive_id, line, job_id: None,
        metrics: Metrics | None = None,
    ) -> None:
        self._removed: Callable[[str], None] = lambda hive_id: None
        self._config = config
        self._catalog = catalog
        self._registry = registry
        self._jobs = jobs
        self._bus = bus
        self._local_hive = local_hive
        self._narrator = narrator
        self._changed = changed
        self._passed_on = passed_on
        self._metrics = metrics or Metrics()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._arrivals: dict[str, _Arrival] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: set[str] = set()
        self._looks = Looks(self._client)
        self.uplinks = Uplinks(self._uplink_closed)
        self.restraint = Restraint(narrator)
        self._losses = Losses()
        self._goodbyes: dict[str, str] = {}
        """Hives whose last beat said that they stop, and why."""
        self._refusals: dict[str, RbeeError] = {}
        """Why the queen refused a hive when it dialled last."""
        self._were_online: set[str] = set()
        """Hives that were so when the queen woke: those that were not are no loss."""
        self._telling: asyncio.Task[None] | None = None
        self._fingerprints = Fingerprints()
        self._is_ended = False

    # Living with the catalog

    def when_removed(self, removed: Callable[[str], None]) -> None:
        """Call `removed` with the id of each hive that is taken out of the catalog."""
        self._removed = removed

    @property
    def catalog(self) -> Store:
        return self._catalog

    async def load(self) -> None:
        """Take the hives of the catalog into the registry, as unknown until they are heard of."""
        for row in await self._catalog.hives.all():
            self._registry.set(row.id, "unknown", f"not heard of yet since the queen woke; was {row.status}")
            if row.is_remote:
                self._registry.track_remote(row.id)
            if row.status == "online":
                self._were_online.add(row.id)

    def begin(self) -> None:
        """Once the queen serves: watch the local hive, judge by silence, and wake what is wanted.

        Not before READY=1: starting a unit that is ordered after the queen would wait for her.
        """
        self._bus.on_unit_changed(HIVE_UNIT, lambda: self._spawn(self._hive_unit_changed()))
        self._spawn(self._judge_by_silence())
        self._spawn(self._reconcile())

    async def end(self) -> None:
        """Stop all work; what was going on is taken up when it is asked for again.

        Hives that are being told to stop are told first.
        """
        self._is_ended = True
        if self._telling is not None:
            await asyncio.wait({self._telling})
        self.uplinks.close()
        self.restraint.close()
        await self._looks.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_telling(self) -> bool:
        """Are hives on other machines being told to stop?"""
        return self._telling is not None and not self._telling.done()

    async def _reconcile(self) -> None:
        """BindsTo= took the local hive along when the queen died; bring it back if it is wanted."""
        async with self._locks[LOCALHOST]:
            try:
                row = await self._catalog.hives.find(LOCALHOST)
                if row is None:
                    return
                if not self._bus.state(HIVE_UNIT).is_active:
                    if not row.wanted:
                        self._set(row.id, "offline", STOPPED_BY_ADMIN)
                        return
                    self._narrator.narrate(WAKING, f"waking up the bee hive at {row.host}", hive=row.id)
                    await self._bus.start(HIVE_UNIT, timeout=self._config.hive_start_timeout)
                await check_own(self._local_hive)
            except RbeeError as error:
                await self.is_refused(LOCALHOST, error)

    async def _explain_silence(self) -> None:
        """Of the local hive: it may have been started as another queen's, or under another name."""
        try:
            if self._bus.state(HIVE_UNIT).is_active:
                await check_own(self._local_hive)
        except RbeeError as error:
            if not self._is_online(LOCALHOST):
                await self.is_refused(LOCALHOST, error)

    async def _judge_by_silence(self) -> None:
        while True:
            for hive_id, life in self._registry.sweep():
                event = HIVE_SUSPECT if life.state == "suspect" else HIVE_OFFLINE
                self._narrator.narrate(
                    event, f"the beehive {hive_id} is {life.state}: {life.reason}", hive=hive_id
                )
                self._changed()
                if life.state == "offline":
                    if life.is_remote:
                        # What came of it since is not heard, and an answer would come too late.
                        self.uplinks.drop(hive_id)
                        if life.last_beat_ms is not None or hive_id in self._were_online:
                            self._note_loss(hive_id)
                    else:
                        self._spawn(self._explain_silence())
                    await self._remember(hive_id, "offline")
            await asyncio.sleep(self._registry.next_verdict())

    # Asked for

    def spelled(self, name: str) -> str:
        """How the hive of that name spells it; the name itself where there is none."""
        return self._registry.spelled(name)

    def add(self, request: AddHive, actor: dict[str, str]) -> Job:
        """Begin to add a hive; one that is there already goes on from wherever it is."""
        request = replace(request, host=self.spelled(request.host))
        if request.host != LOCALHOST and not self._is_remote(request.host):
            raise UnknownHost(
                f"host '{request.host}' is not known: it is not {LOCALHOST}, and no machine has joined as it",
                hint="rbeectl add-hive HOST, which goes there by ssh\n"
                "Or on that machine: sudo rbeectl join QUEEN:8500 --token TOKEN",
                field="host",
            )
        job = self._jobs.open("add-hive", request.host)
        story = self._narrator.about(job_id=job.id, hive=request.host, **actor)
        by = {**actor, "job_id": job.id}
        doing = f"adding {request.host}"
        self._spawn(self._run(job, story, ADD_FAILED, doing, lambda: self._add(job, story, request, by)))
        return job

    def remove(self, hive_id: str, actor: dict[str, str], *, is_forced: bool = False) -> Job:
        """Begin to stop a hive and forget it; one that is not there is no error.

        One on another machine that cannot be told so is forgotten only where it `is_forced`.
        """
        job = self._jobs.open("remove-hive", hive_id)
        story = self._narrator.about(job_id=job.id, hive=hive_id, **actor)
        by = {**actor, "job_id": job.id}
        doing = f"removing {hive_id}"
        work = partial(self._remove, story, hive_id, by, is_forced)
        self._spawn(self._run(job, story, REMOVE_FAILED, doing, work))
        return job

    def shut_down(self, actor: dict[str, str]) -> Job:
        """Have systemd stop the target: hives first, then the queen, whose end ends the story."""
        running = self._jobs.running("shutdown")
        job = running or self._jobs.open("shutdown", None)
        story = self._narrator.about(job_id=job.id, **actor)
        if running is None:
            story.narrate(SHUTTING_DOWN_HIVES, "Shutting down all hives")
        # Again for one that runs: somebody may have started the queen in between.
        self._spawn(self._shut_down(job, story))
        return job

    async def views(self) -> list[HiveView]:
        return [self._view(row) for row in await self._catalog.hives.all()]

    async def view(self, hive_id: str) -> HiveView:
        row = await self._catalog.hives.find(hive_id)
        if row is None:
            raise _unknown(hive_id)
        return self._view(row)

    async def sample(self, hive_id: str) -> Sample:
        """What the machine of a hive that is online does right now; nobody is woken to tell it."""
        life = self._registry.life(hive_id)
        if life is None:
            raise _unknown(hive_id)
        if life.state != "online":
            raise HiveNotOnline(
                f"the beehive {hive_id} is {life.state}, and tells nothing of its machine: {life.reason}",
                hint=f"rbeectl {'add-hive' if life.state == 'offline' else 'status'} {hive_id}",
            )
        # Of its end there may be no word yet, and whoever reaches for its socket then wakes it.
        if not life.is_remote and not self._bus.state(HIVE_UNIT).is_active:
            raise HiveNotOnline(f"the beehive {hive_id} is being stopped", hint=f"rbeectl status {hive_id}")
        return await self._looks.sample(hive_id)

    # Heard

    async def heartbeat(self, beat: Heartbeat, sender: Actor | None = None) -> HeartbeatAck:
        """Take a beat. Nothing is written to disk, unless the hive was not online before.

        `sender` is who then asked for the write.
        """
        arrival = self._arrivals.get(beat.hive_id)
        if self._registry.life(beat.hive_id) is None:
            self._metrics.beat_refused()
            raise _unknown(beat.hive_id, f"rbeectl add-hive {beat.hive_id}")
        self._metrics.beat_came(beat.state)
        self._pass_on(beat)
        self._fingerprints.heard(beat.hive_id, beat.fingerprint)
        if beat.state == "stopping":
            self._goodbyes[beat.hive_id] = ENDS[beat.machine]
        else:
            self._goodbyes.pop(beat.hive_id, None)
        if beat.state == "ready":
            await self._alive(beat, arrival, sender)
        return HeartbeatAck(
            status="ok",
            interval_ms=round(self._registry.pace(beat.hive_id) * 1000),
            job_id=arrival.job.id if arrival else None,
        )

    def _pass_on(self, beat: Heartbeat) -> None:
        """Put the hive's own lines into the feed, and into the story that they belong to."""
        job = self._jobs.find(beat.job_id) or self._jobs.running("shutdown")
        if job is not None and job.hive_id not in (None, beat.hive_id):
            job = None  # a hive speaks in its own stories, and in the shutdown of all
        for said in beat.lines:
            # A word that is the queen's own, or that she does not know, would be taken for what it is not.
            event = said.event if said.event in HIVE_EVENTS else HIVE_SAID.name
            line = Line("bee hive", said.text, event, said.at)
            if not self.restraint.lines.take(beat.hive_id):
                self.restraint.beyond(beat.hive_id, f"says more than is told: {line.text[:200]}")
                continue
            self._passed_on(beat.hive_id, line, job.id if job is not None else None)
            if job is not None:
                job.tell_once(line)

    async def _alive(self, beat: Heartbeat, arrival: _Arrival | None, sender: Actor | None) -> None:
        before = self._registry.life(beat.hive_id)
        lateness = self._registry.lateness(beat.hive_id, beat.instance)
        if lateness is not None:
            self._metrics.beat_was_late(lateness)
        is_first = self._registry.beat(
            beat.hive_id, beat.instance, beat.version or None, skew_ms=_skew_ms(beat.timestamp)
        )
        if arrival is not None:
            arrival.beats()
            return
        if is_first:
            self._spawn(self._welcome(beat.hive_id, sender))
        elif self._locks[beat.hive_id].locked():
            pass  # whoever works on the hive says what becomes of it
        elif before is not None and before.state == "pending":
            if self._may_be_asked(beat.hive_id):
                self._spawn(self._welcome(beat.hive_id, sender))  # the last try failed
        elif before is not None and before.state in ("suspect", "offline"):
            await self._set_online(beat.hive_id, sender)
        elif self._fingerprints.is_other(beat.hive_id) and self._may_be_asked(beat.hive_id):
            self._spawn(self._look_again(beat.hive_id, sender))

    def _may_be_asked(self, hive_id: str) -> bool:
        """May the queen ask it for its devices once more now, as its beats have her do?"""
        may = self.restraint.looks.take(hive_id)
        if not may:
            self.restraint.beyond(hive_id, "says that its devices change more often than they are asked for")
        return may

    async def _welcome(self, hive_id: str, sender: Actor | None) -> None:
        """A hive's process that no job waits for: it came back, or somebody started it."""
        async with self._locks[hive_id]:
            life = self._registry.life(hive_id)
            if life is None or life.instance is None:
                return  # removed meanwhile, or gone
            if not self._is_online(hive_id):
                self._set(hive_id, "pending", "its first heartbeat has come")
            story = self._narrator.about(hive=hive_id)
            try:
                before = await self._catalog.hives.find(hive_id)
                devices = await self._first_devices(hive_id, story, job_id=None)
                await self._store_online(hive_id, devices, sender)
            except RbeeError as error:
                story.narrate(ADD_FAILED, f"asking {hive_id} for its devices failed: {error.message}")
                return
            if before is not None:
                _tell_changes(story, before, devices)
            story.narrate(HIVE_ONLINE, f"the beehive {hive_id} is online again")

    async def _look_again(self, hive_id: str, sender: Actor | None) -> None:
        """The devices of a hive that is online may have changed: ask, and store and tell what has."""
        async with self._locks[hive_id]:
            if not self._is_online(hive_id) or not self._fingerprints.is_other(hive_id):
                return  # it went, or somebody else has asked meanwhile
            story = self._narrator.about(hive=hive_id)
            fingerprint = self._fingerprints.of(hive_id)
            try:
                before = await self._catalog.hives.find(hive_id)
                client = await self._reach(hive_id)
                devices = await client.devices(job_id=None, timeout=self._config.detect_timeout)
                if before is None:
                    return
                await self._catalog.hives.set_devices(hive_id, devices, by=sender)
            except RbeeError as error:
                if self._is_online(hive_id) and self._fingerprints.failed(hive_id):
                    told = f"the devices of the beehive {hive_id} may have changed, and are not known"
                    story.narrate(DEVICES_UNKNOWN, f"{told}: {error.message}")
                return
            self._fingerprints.came_with(hive_id, fingerprint)
            _tell_changes(story, before, devices)

    async def _hive_unit_changed(self) -> None:
        """systemd tells of each change of the local hive's unit; this is how its death is known at once."""
        while True:
            try:
                return await self._judge_hive_unit()
            except RbeeError as error:
                log.error("looking at %s failed, and is tried again: %s", HIVE_UNIT, error.message)
            await asyncio.sleep(LOOK_AGAIN)

    async def _judge_hive_unit(self) -> None:
        state = self._bus.state(HIVE_UNIT)
        life = self._registry.life(LOCALHOST)
        if life is None or LOCALHOST in self._left:
            return
        arrival = self._arrivals.get(LOCALHOST)
        if arrival is not None and not arrival.is_started:
            return  # that it does not run yet is no news; the start's own job tells how it went
        # 'auto-restart-queued' is of systemd 254 and later.
        if state.sub.startswith("auto-restart") or state.active == "failed":
            ended = f"its process ended ({_end_of(state)})"
            if arrival is not None and arrival.is_waiting and state.active == "failed":
                arrival.dies(ended)
            else:
                await self._set_offline(LOCALHOST, ended)
        elif state.active == "inactive" and not self._bus.has_job(HIVE_UNIT):
            # A job of the queen's own means that both are being stopped or restarted together.
            end = self._bus.machine_end()
            if end is not None:
                # Wanted as before: what was online is online again when the machine is.
                await self._set_offline(LOCALHOST, ENDS[end])
            elif self._bus.has_job(QUEEN_UNIT):
                await self._set_offline(LOCALHOST, STOPPED_WITH_QUEEN)
            elif arrival is not None and arrival.is_waiting:
                arrival.dies(STOPPED_BY_ADMIN)
            else:
                await self._set_offline(LOCALHOST, STOPPED_BY_ADMIN, wanted=False)

    # The steps

    async def _add(self, job: Job, story: Narrator, request: AddHive, by: Actor) -> Done:
        hive_id = request.host
        story.narrate(ADDING, f"Adding {'local pc' if hive_id == LOCALHOST else hive_id} to hive catalog.")
        async with self._locks[hive_id]:
            row = await self._catalog.hives.add(hive_id, request.host, request.port, by=by)
            if self._registry.life(hive_id) is None:
                self._set(hive_id, "pending", "just added")
            with self._expecting(hive_id, job) as arrival:
                if row.is_remote:
                    devices = await self._await_remote(row, story, arrival)
                elif self._bus.state(HIVE_UNIT).is_active:
                    arrival.is_started = True
                    story.narrate(HIVE_AWAKE, f"the bee hive at {request.host} is awake already")
                    devices = await self._ask_awake(row, story, arrival, by)
                else:
                    await self._wake(row, story, arrival, by)
                    devices = await self._first_devices(hive_id, story, job.id)
            await self._store_online(hive_id, devices, by)
            story.narrate(HAS_DEVICES, describe(hive_id, devices))
            return Done(await self.view(hive_id))

    async def _await_remote(self, row: Row, story: Narrator, arrival: _Arrival) -> Devices:
        """A hive on another machine comes by itself, or does not: nobody here can wake it."""
        if self._is_online(row.id):
            story.narrate(HIVE_AWAKE, f"the bee hive at {row.host} is awake already")
            return await self._ask_devices(row, story, arrival.job.id)
        timeout = self._config.hive_start_timeout
        refusal = self._refusals.get(row.id)
        try:
            async with asyncio.timeout(timeout):
                if self.uplinks.find(row.id) is None:
                    patience = DIAL_TIMEOUT if refusal is None else REFUSED_TIMEOUT
                    await self._await_stream(row.id, arrival, min(patience, timeout), refusal)
                await arrival.outcome
        except TimeoutError as error:
            raise TimedOut(
                f"the beehive {row.id} is connected, and sent no heartbeat within {timeout:g} s",
                hint=f"On {row.id}: sudo journalctl -u {HIVE_UNIT} -n 20",
            ) from error
        return await self._first_devices(row.id, story, arrival.job.id)

    async def _await_stream(
        self, hive_id: str, arrival: _Arrival, patience: float, refusal: RbeeError | None
    ) -> None:
        """Until it connects, or is refused, which raises the refusal; that of before, if it does not come."""
        comes = asyncio.get_running_loop().create_task(self.uplinks.wait(hive_id, timeout=patience))
        try:
            either: set[asyncio.Future[Any]] = {comes, arrival.outcome}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if arrival.outcome.done():
                arrival.outcome.result()
                return
            comes.result()
        except HiveNotOnline as error:
            if refusal is not None:
                raise refusal from error
            raise TimedOut(
                f"the beehive {hive_id} has not connected within {patience:g} s",
                hint=f"On {hive_id}: systemctl status {HIVE_UNIT}",
            ) from error
        finally:
            comes.cancel()
            await asyncio.gather(comes, return_exceptions=True)

    async def _ask_awake(self, row: Row, story: Narrator, arrival: _Arrival, by: Actor) -> Devices:
        """The devices of the local hive, which runs already: it is online once it has sent a heartbeat."""
        timeout = self._config.hive_start_timeout
        try:
            await check_own(self._local_hive)
            arrival.awaits_beat = False
            devices = await self._ask_devices(row, story, arrival.job.id)
            arrival.awaits_beat = True
            await self._judge_hive_unit()  # it may have died since
            async with asyncio.timeout(timeout):
                await arrival.outcome  # which mostly comes with the answer
        except TimeoutError as error:
            late = await self._late(f"{HIVE_UNIT} runs, and sent no heartbeat within {timeout:g} s")
            await self.is_refused(row.id, late, by=by, is_told=False)
            raise late from error
        except UnitFailed as error:
            await self.is_refused(row.id, error, by=by, is_told=False)
            raise
        return devices

    async def _late(self, message: str) -> TimedOut:
        where = await place_of_beats(self._local_hive)
        return TimedOut(f"{message}{where}", hint=f"systemctl status {HIVE_UNIT}")

    async def _wake(self, row: Row, story: Narrator, arrival: _Arrival, by: Actor) -> None:
        """Start the local hive's unit and wait for its first heartbeat."""
        timeout = self._config.hive_start_timeout
        story.narrate(WAKING, f"waking up the bee hive at {row.host}")
        self._set(row.id, "pending", "waking up")
        try:
            if self._bus.state(HIVE_UNIT).active == "failed":
                # Somebody asks for it: what it failed at before is not counted against it.
                self._bus.reset_failed(HIVE_UNIT)
            await self._bus.start(HIVE_UNIT, timeout=timeout)
            arrival.is_started = True
            await self._judge_hive_unit()  # it may be dead already
            await check_own(self._local_hive)
            async with asyncio.timeout(timeout):
                await arrival.outcome
        except TimeoutError as error:
            late = await self._late(f"{HIVE_UNIT} started, and no heartbeat came within {timeout:g} s")
            await self._set_offline(row.id, late.message, is_told=False, by=by)
            raise late from error
        except RbeeError as error:
            await self._set_offline(row.id, error.message, is_told=False, by=by)
            raise

    async def _first_devices(self, hive_id: str, story: Narrator, job_id: str | None) -> Devices:
        story.narrate(
            FIRST_HEARTBEAT,
            f"first heartbeat from a bee hive is received from {hive_id}. checking its capabilities...",
        )
        row = await self._catalog.hives.find(hive_id)
        if row is None:
            raise _unknown(hive_id)
        return await self._ask_devices(row, story, job_id)

    async def _ask_devices(self, row: Row, story: Narrator, job_id: str | None) -> Devices:
        if row.devices is None:
            asking = f"unknown capabilities of beehive {row.id}. asking the beehive to detect devices"
        else:
            asking = f"asking the beehive {row.id} whether its devices are what they were"
        story.narrate(ASKING_DEVICES, asking)
        fingerprint = self._fingerprints.of(row.id)
        try:
            client = await self._reach(row.id)
            devices = await client.devices(job_id=job_id, timeout=self._config.detect_timeout)
        except RbeeError as error:
            life = self._registry.life(row.id)
            if life is not None and life.state != "offline":
                self._set(row.id, "pending", f"its devices are not known: {error.message}")
            raise HiveFailed(
                f"the beehive {row.id} did not tell its devices: {error.message}",
                hint=error.hint or self._hint(row.id),
            ) from error
        self._fingerprints.came_with(row.id, fingerprint)
        return devices

    async def _store_online(self, hive_id: str, devices: Devices, by: Actor | None) -> None:
        # RAM first: a death that is heard of during the write is then judged, and written, after it.
        self._set(hive_id, "online", "its heartbeats come")
        try:
            await self._catalog.hives.set_online(hive_id, devices, by=by)
        except CatalogFailed as error:
            if self._is_online(hive_id):
                self._set(hive_id, "pending", f"its devices are not stored: {error.message}")
            raise

    async def _remove(self, story: Narrator, hive_id: str, by: Actor, is_forced: bool) -> Done:
        story.narrate(REMOVING, f"Removing {hive_id} from hive catalog")
        absent = f"the beehive {hive_id} was not in the hive catalog"
        if hive_id not in self._locks and self._registry.life(hive_id) is None:
            # No lock is kept for every name that somebody typed.
            story.narrate(REMOVED, absent)
            return Done(None, was_there=False)
        was_up = False
        try:
            async with self._locks[hive_id], self._leaving(hive_id):
                # Before it is stopped, or forgets its queen, for a catalog that then keeps it.
                await self._catalog.hives.touch(hive_id)
                was_up = hive_id == LOCALHOST and not self._bus.state(HIVE_UNIT).is_stopped
                is_stopped = True
                if self._is_remote(hive_id):
                    is_stopped = await self._have_leave(hive_id, story, is_forced)
                else:
                    await self._stop_hive(hive_id)
                was_there = await self._catalog.hives.remove(hive_id, by=by)
                self._registry.forget(hive_id)
                self._removed(hive_id)
                self.uplinks.drop(hive_id)
                self._fingerprints.forget(hive_id)
                self.is_taken(hive_id)
                self._changed()
        except CatalogFailed:
            if was_up:
                with contextlib.suppress(RbeeError):
                    await self._bus.start(HIVE_UNIT, timeout=self._config.hive_start_timeout)
            await self._judge_hive_unit()  # its end was no news, and now is
            raise
        gone = f"the beehive {hive_id} is {'stopped and ' if is_stopped else ''}no longer in the hive catalog"
        if not is_stopped:
            gone += "; whether it runs is not known"
        story.narrate(REMOVED, gone if was_there else absent)
        return Done(None, was_there=was_there)

    async def _stop_hive(self, hive_id: str) -> None:
        if hive_id != LOCALHOST:
            return
        unit = self._bus.state(HIVE_UNIT)
        # Where rbee-hive is not installed there is nothing to stop, and systemd would refuse.
        if unit.load != "not-found" or not unit.is_stopped:
            await self._bus.stop(HIVE_UNIT, timeout=STOP_TIMEOUT)

    async def _have_leave(self, hive_id: str, story: Narrator, is_forced: bool) -> bool:
        """Has the hive taken that it is removed, and stops? False for one that cannot be told, by force."""
        uplink = self.uplinks.find(hive_id)
        try:
            if uplink is None:
                raise HiveNotOnline("it is not connected")
            await HiveClient(uplink).leave(timeout=TELL_TIMEOUT)
            return True
        except RbeeError as error:
            if not is_forced:
                raise HiveFailed(
                    f"the beehive {hive_id} cannot be told to leave: {error.message}",
                    hint=f"To forget it all the same: rbeectl remove-hive --force {hive_id}",
                ) from error
            told = f"the beehive {hive_id} could not be told that it is removed: {error.message}"
            story.narrate(HIVE_NOT_TOLD, told)
            return False

    async def _tell_hives(self, story: Narrator) -> None:
        """Have hives on other machines stop, all at once; those that cannot be told are named."""

        async def tell(uplink: Uplink) -> None:
            self._left.add(uplink.hive_id)
            try:
                await HiveClient(uplink).shut_down(timeout=TELL_TIMEOUT)
                story.narrate(
                    HIVE_TOLD, f"the beehive {uplink.hive_id} is shutting down", hive=uplink.hive_id
                )
            except RbeeError as error:
                told = f"the beehive {uplink.hive_id} could not be told to shut down: {error.message}"
                story.narrate(HIVE_NOT_TOLD, told, hive=uplink.hive_id)

        for row in await self._catalog.hives.all():
            if row.is_remote and self.uplinks.find(row.id) is None:
                told = f"the beehive {row.id} is not connected, and is not told to shut down"
                story.narrate(HIVE_NOT_TOLD, told, hive=row.id)
        await asyncio.gather(*(tell(uplink) for uplink in self.uplinks.all()))

    async def _shut_down(self, job: Job, story: Narrator) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell_hives(story))
        # Not cut off by a stop of the queen, which whoever asked for this may be at already.
        await asyncio.shield(self._telling)
        try:
            self._bus.ask_stop(TARGET)
        except RbeeError as error:
            self._telling = None  # the next try tells them again
            self._left.clear()
            story.narrate(SHUTDOWN_FAILED, f"shutting down failed: {error.message}")
            job.failed(error)

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
        self._changed()

    # Hives on other machines

    def _uplink_closed(self, uplink: Uplink) -> None:
        """Its process has gone, or its connection broke; if it lives, it is back in a moment."""
        hive_id = uplink.hive_id
        if self._registry.life(hive_id) is None or self._is_ended:
            return
        if hive_id in self._left:
            self._spawn(self._set_offline(hive_id, STOPPED_WITH_QUEEN))
        elif hive_id in self._goodbyes:
            self._spawn(self._set_offline(hive_id, self._goodbyes[hive_id]))
        else:
            self._spawn(self._lose(hive_id))

    async def _lose(self, hive_id: str) -> None:
        await self._set_offline(hive_id, CONNECTION_CLOSED)
        self._note_loss(hive_id)

    def _note_loss(self, hive_id: str) -> None:
        """Nobody is called offline with most of the others without its being said what that likely is."""
        online = sum(1 for life in self._registry.remote() if life.state == "online")
        interval = self._registry.pace(hive_id)
        window = interval + self._registry.grace_of(interval)
        lost = self._losses.note(hive_id, online=online, window=window)
        if lost is None:
            return
        if lost.is_news:
            self._narrator.narrate(FLEET_LOST, f"{lost}: {LIKELY}. Lost: {', '.join(lost.hives[:20])}")
        for other in lost.hives:
            life = self._registry.life(other)
            if life is not None and life.state == "offline" and LIKELY not in life.reason:
                self._set(other, "offline", f"{life.reason}; {lost}: {LIKELY}")

    async def is_refused(
        self, hive_id: str, error: RbeeError, *, by: Actor | None = None, is_told: bool = True
    ) -> None:
        """A hive's process lives, and the queen cannot have it as one; a job that waits for it ends."""
        if self._is_remote(hive_id):
            self._refusals[hive_id] = error
            if (arrival := self._arrivals.get(hive_id)) is not None:
                arrival.refuse(error)
        await self._set_offline(hive_id, error.message, by=by, is_told=is_told)
        self._set(hive_id, "offline", error.message)  # it was offline for another reason

    def is_taken(self, hive_id: str) -> None:
        """What it was refused for is so no more."""
        self._refusals.pop(hive_id, None)

    def _client(self, hive_id: str) -> HiveClient:
        """What leads to a hive now; HiveNotOnline where nothing does."""
        if not self._is_remote(hive_id):
            return self._local_hive
        uplink = self.uplinks.find(hive_id)
        if uplink is None:
            raise HiveNotOnline(f"the beehive {hive_id} is not connected", hint=f"rbeectl status {hive_id}")
        return HiveClient(uplink)

    async def _reach(self, hive_id: str) -> HiveClient:
        """As _client(), but a hive on another machine may be about to open its stream."""
        if not self._is_remote(hive_id):
            return self._local_hive
        return HiveClient(await self.uplinks.wait(hive_id, timeout=CONNECT_TIMEOUT))

    def _is_remote(self, hive_id: str) -> bool:
        life = self._registry.life(hive_id)
        return life is not None and life.is_remote

    def _hint(self, hive_id: str) -> str:
        where = f"On {hive_id}: " if self._is_remote(hive_id) else ""
        return f"{where}systemctl status {HIVE_UNIT}"

    def has_joined(self, row: Row) -> None:
        """A machine has become a hive, or is it again with another credential."""
        if self._registry.life(row.id) is None:
            self._set(row.id, "pending", "just joined")
        self._registry.track_remote(row.id)
        self.is_taken(row.id)
        self.uplinks.drop(row.id)
        self._changed()

    # Small print

    @contextlib.contextmanager
    def _expecting(self, hive_id: str, job: Job) -> Iterator[_Arrival]:
        arrival = _Arrival(job)
        self._arrivals[hive_id] = arrival
        try:
            yield arrival
        finally:
            del self._arrivals[hive_id]

    @contextlib.asynccontextmanager
    async def _leaving(self, hive_id: str) -> AsyncIterator[None]:
        """While the queen herself stops a hive, its end is no news."""
        self._left.add(hive_id)
        try:
            yield
        finally:
            self._left.discard(hive_id)

    async def _set_online(self, hive_id: str, by: Actor | None) -> None:
        self._set(hive_id, "online", "its heartbeats come")
        self._narrator.narrate(HIVE_ONLINE, f"the beehive {hive_id} is online again", hive=hive_id)
        await self._remember(hive_id, "online", by=by)

    async def _set_offline(
        self,
        hive_id: str,
        reason: str,
        *,
        wanted: bool | None = None,
        is_told: bool = True,
        by: Actor | None = None,
    ) -> None:
        """`is_told` False where the story that the hive belongs to says it; `by` whoever asked for that."""
        if not self._registry.end(hive_id, reason, is_final=wanted is False):
            return
        self._changed()
        if is_told:
            event = replace(HIVE_OFFLINE, priority=NOTICE) if reason in ASKED_FOR else HIVE_OFFLINE
            self._narrator.narrate(event, f"the beehive {hive_id} is offline: {reason}", hive=hive_id)
        await self._remember(hive_id, "offline", wanted=wanted, by=by)

    async def _remember(
        self, hive_id: str, status: Status, *, wanted: bool | None = None, by: Actor | None = None
    ) -> None:
        """Write down a change of state. What is so is so, even if the catalog cannot be written now."""
        try:
            await self._catalog.hives.set_status(hive_id, status, wanted=wanted, by=by)
        except CatalogFailed as error:
            log.error("hive %s is %s, and that could not be stored: %s", hive_id, status, error.message)

    def _set(self, hive_id: str, state: Any, reason: str) -> None:
        if self._registry.set(hive_id, state, reason):
            self._changed()

    def _is_online(self, hive_id: str) -> bool:
        life = self._registry.life(hive_id)
        return life is not None and life.state == "online"

    def _view(self, row: Row) -> HiveView:
        life = self._registry.life(row.id) or Life("pending", "just added", row.updated_at_ms, 0.0)
        return HiveView(
            id=row.id,
            host=row.host,
            port=row.port,
            status=row.status,
            devices=row.devices,
            created_at_ms=row.created_at_ms,
            updated_at_ms=row.updated_at_ms,
            wanted=row.wanted,
            state=life.state,
            reason=life.reason,
            since_ms=life.since_ms,
            last_beat_ms=life.last_beat_ms,
            version=life.version,
            is_remote=row.is_remote,
            address=row.address,
            interval_ms=round(life.interval * 1000) if life.interval is not None else None,
            clock_skew_ms=life.skew_ms if row.is_remote else None,
            labels=tuple(Label(key, value) for key, value in sorted(row.labels.items())),
            cordoned=row.cordoned,
            problem=row.problem,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._is_ended:
            work.close()  # requests are served a moment longer; what they would begin is not begun
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the queen failed", exc_info=task.exception())


def _tell_changes(story: Narrator, row: Row, devices: Devices) -> None:
    """What is different from what the row has, if that is anything that people are shown."""
    if row.devices is None:
        story.narrate(HAS_DEVICES, describe(row.id, devices))
    elif changes := differences(row.devices, devices):
        told = f"the devices of the beehive {row.id} have changed"
        story.narrate(DEVICES_CHANGED, f"{told}: {'; '.join(changes)}")


def _skew_ms(timestamp: str) -> int:
    """How far the sender's clock is ahead of ours, its way here taken for nothing."""
    sent = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", timestamp.upper()))
    return round(sent.timestamp() * 1000) - time.time_ns() // 1_000_000


def _end_of(state: UnitState) -> str:
    if state.result == "signal":
        return f"killed by signal {state.exit_status}"
    if state.result == "exit-code":
        return describe_exit(state.exit_status)
    return state.result or "no result"


def _unknown(hive_id: str, hint: str = "rbeectl list-hives shows those that are") -> UnknownHive:
    return UnknownHive(f"hive '{hive_id}' is not in the hive catalog", hint=hint, field="hive_id")
