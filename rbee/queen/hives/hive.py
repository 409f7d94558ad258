"""One hive: what is so of it, and how it is reached.

A hive is on the queen's own machine (local.py) or on another one (remote.py). The two differ in how they
are reached, woken, stopped and judged by their silence; nobody outside of this room asks which it is.
Work on one hive is done one piece at a time, under its lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime

from rbee.client.link import HiveClient
from rbee.errors import CatalogFailed, HiveNotOnline, RbeeError
from rbee.narration import ADD_FAILED, HAS_DEVICES, Narrator
from rbee.queen.hives.arrival import Arrival
from rbee.queen.hives.describe import describe
from rbee.queen.hives.inventory import Inventory, narrate_changes
from rbee.queen.hives.liveness import Patience
from rbee.queen.hives.samples import SampleCache
from rbee.queen.hives.standing import ENDS, Shared, Standing
from rbee.queen.jobs import Job
from rbee.queen.store.records import Actor, Row
from rbee.wire.devices import Devices, Sample
from rbee.wire.hives import Heartbeat, HeartbeatAck, HiveView, State


class Hive(ABC):
    """`goodbye` is why it stops, where its last beat said that it does; `is_leaving` is whether the queen
    herself has told it to stop, so that its end is expected. `hint` is what to type to see what is wrong
    with it.
    """

    def __init__(self, row: Row, shared: Shared, state: State, reason: str, *, hint: str) -> None:
        self.id = row.id
        self.hint = hint
        self.standing = Standing(row, shared, state, reason)
        timeout = shared.config.detect_timeout
        self.inventory = Inventory(self.standing, self.reach, timeout=timeout, hint=hint)
        self.samples = SampleCache(row.id, self.client)
        self.lock = asyncio.Lock()
        self.arrival: Arrival | None = None
        self.goodbye: str | None = None
        self.is_leaving = False
        self.is_removed = False
        self._shared = shared

    # What differs

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds between its beats from now on."""

    @property
    @abstractmethod
    def patience(self) -> Patience: ...

    @abstractmethod
    def client(self) -> HiveClient:
        """What leads to it now; HiveNotOnline where nothing does."""

    @abstractmethod
    async def reach(self) -> HiveClient:
        """As client(), but it may be about to connect."""

    @abstractmethod
    async def bring_up(self, story: Narrator, arrival: Arrival, by: Actor) -> Devices:
        """See it beat, whatever state it is in, and its devices."""

    @abstractmethod
    async def leave(self, story: Narrator, *, is_forced: bool) -> bool:
        """Have it stop because it is removed; False where that could not be told, by force.

        Raises HiveFailed where it could not be told, UnitFailed where systemd cannot stop it.
        """

    @abstractmethod
    async def stay(self) -> None:
        """It was told to leave, and the catalog keeps it: have it be as it was."""

    @abstractmethod
    def fell_silent(self) -> bool:
        """It is offline by its silence; is that the loss of a hive that was online?"""

    # Heard

    async def heartbeat(self, beat: Heartbeat, sender: Actor | None) -> HeartbeatAck:
        """Take a beat. Nothing is written to disk, unless the hive was not online before.

        `sender` is who then asked for the write.
        """
        arrival = self.arrival
        self.inventory.fingerprint.heard = beat.fingerprint
        self.goodbye = ENDS[beat.machine] if beat.state == "stopping" else None
        if beat.state == "ready":
            await self._lives(beat, sender)
        job_id = arrival.job.id if arrival is not None else None
        return HeartbeatAck(status="ok", interval_ms=round(self.interval * 1000), job_id=job_id)

    async def _lives(self, beat: Heartbeat, sender: Actor | None) -> None:
        shared, life = self._shared, self.standing.life
        lateness = life.lateness(beat.instance, shared.pace.interval)
        if lateness is not None:
            shared.metrics.beat_was_late(lateness)
        is_first = life.beat(beat.instance, beat.version or None, self.interval, _skew_ms(beat.timestamp))
        if self.arrival is not None:
            self.arrival.beats()
        elif is_first:
            shared.tasks.begin(self._welcome(sender))
        elif self.lock.locked():
            pass  # whoever works on the hive says what becomes of it
        elif life.state == "pending":
            if self._may_be_asked():
                shared.tasks.begin(self._welcome(sender))  # the last try failed
        elif life.state in ("suspect", "offline"):
            await self.standing.is_back(sender)
        elif self.inventory.fingerprint.is_other and self._may_be_asked():
            shared.tasks.begin(self._look_again(sender))

    def _may_be_asked(self) -> bool:
        """May the queen ask it for its devices once more now, as its beats have her do?"""
        restraint = self._shared.restraint
        may = restraint.looks.take(self.id)
        if not may:
            restraint.beyond(self.id, "says that its devices change more often than they are asked for")
        return may

    async def _welcome(self, sender: Actor | None) -> None:
        """A process of the hive's that no job waits for: it came back, or somebody started it."""
        async with self.lock:
            standing = self.standing
            if self.is_removed or standing.life.instance is None:
                return  # or gone
            if not standing.is_online:
                standing.set("pending", "its first heartbeat has come")
            story = self._shared.narrator.about(hive=self.id)
            before = standing.row.devices
            try:
                devices = await self.inventory.ask_first(story, job_id=None)
                await standing.store_online(devices, sender)
            except RbeeError as error:
                story.narrate(ADD_FAILED, f"asking {self.id} for its devices failed: {error.message}")
                return
            narrate_changes(story, self.id, before, devices)
            standing.narrate_online()

    async def _look_again(self, sender: Actor | None) -> None:
        async with self.lock:
            # It may have gone, or somebody else has asked meanwhile.
            if not self.is_removed and self.standing.is_online and self.inventory.fingerprint.is_other:
                await self.inventory.renew(self._shared.narrator.about(hive=self.id), sender)

    # Asked for

    async def add(self, job: Job, story: Narrator, by: Actor) -> HiveView:
        """See it online, with its devices; the lock is taken."""
        with self._expecting(job) as arrival:
            devices = await self.bring_up(story, arrival, by)
        await self.standing.store_online(devices, by)
        story.narrate(HAS_DEVICES, describe(self.id, devices))
        return self.standing.view()

    async def remove(self, story: Narrator, by: Actor, *, is_forced: bool) -> bool:
        """Have it leave, and delete its row; the lock is taken. Is it known to have stopped?"""
        catalog = self._shared.catalog
        try:
            self.is_leaving = True
            try:
                # Before it is stopped, or forgets its queen, for a catalog that then keeps it.
                await catalog.hives.touch(self.id)
                is_stopped = await self.leave(story, is_forced=is_forced)
                await catalog.hives.remove(self.id, by=by)
            finally:
                self.is_leaving = False
        except CatalogFailed:
            await self.stay()
            raise
        return is_stopped

    def removed(self) -> None:
        """It is in the catalog no more."""
        self.is_removed = True
        self.standing.forget()

    async def sample(self) -> Sample:
        """What the machine of a hive that is online does right now; nobody is woken to tell it."""
        if not self.standing.is_online:
            state, reason = self.standing.life.state, self.standing.life.reason
            raise HiveNotOnline(
                f"the beehive {self.id} is {state}, and tells nothing of its machine: {reason}",
                hint=f"rbeectl {'add-hive' if state == 'offline' else 'status'} {self.id}",
            )
        return await self.samples.sample()

    async def refused(self, error: RbeeError, *, by: Actor | None = None, is_told: bool = True) -> None:
        """Its process lives, and the queen cannot have it as one of hers."""
        await self.standing.set_offline(error.message, by=by, is_told=is_told)
        self.standing.set("offline", error.message)  # it was offline for another reason

    @contextlib.contextmanager
    def _expecting(self, job: Job) -> Iterator[Arrival]:
        self.arrival = Arrival(job)
        try:
            yield self.arrival
        finally:
            self.arrival = None


def _skew_ms(timestamp: str) -> int:
    """How far the sender's clock is ahead of ours, its way here taken for nothing."""
    sent = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", timestamp.upper()))
    return round(sent.timestamp() * 1000) - time.time_ns() // 1_000_000
