"""One hive: its state, and how it is reached.

A hive is on the queen's own machine (local.py) or on another one (remote.py). The two differ in how they
are reached, started, stopped and judged by their silence; no code outside this package asks which it is.
Operations on one hive are done one at a time, under its lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rbee.client.link import HiveClient
from rbee.errors import CatalogFailed, HiveNotOnline, RbeeError
from rbee.narration import ADD_FAILED, HAS_DEVICES, Narrator
from rbee.queen.hives.arrival import Arrival
from rbee.queen.hives.describe import describe
from rbee.queen.hives.inventory import Inventory, narrate_changes
from rbee.queen.hives.liveness import Patience
from rbee.queen.hives.samples import SampleCache
from rbee.queen.hives.standing import ENDS, Shared, Standing
from rbee.queen.hives.workload import Workload
from rbee.queen.jobs import Job
from rbee.queen.store.records import Actor, Row
from rbee.scope import Scope
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck

if TYPE_CHECKING:
    from rbee.wire.devices import Devices
    from rbee.wire.hives import HiveView, State
    from rbee.wire.samples import Sample


class Hive(ABC):
    """A hive in the catalog.

    `goodbye` is why it stops, if its last beat announced that; `is_leaving` is true while the queen has
    asked it to stop, so that its end is expected. `hint` is the command that shows what is wrong with it;
    `scope` is that of its own rbee.
    """

    def __init__(
        self, row: Row, shared: Shared, state: State, reason: str, *, scope: Scope, hint: str
    ) -> None:
        self.id = row.id
        self.hint = hint
        self.standing = Standing(row, shared, state, reason)
        timeout = shared.config.detect_timeout
        self.inventory = Inventory(self.standing, self.reach, timeout=timeout, hint=hint)
        self.samples = SampleCache(row.id, self.client, scope)
        self.workload = Workload()
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
    def patience(self) -> Patience:
        """The silence after which it is suspect, and offline."""

    @abstractmethod
    def client(self) -> HiveClient:
        """Return a client for it; HiveNotOnline if it is not connected."""

    @abstractmethod
    async def reach(self) -> HiveClient:
        """As client(), but wait for a hive that is about to connect."""

    @abstractmethod
    async def bring_up(self, story: Narrator, arrival: Arrival, by: Actor) -> Devices:
        """Wait for its heartbeat, starting it if possible, and return its devices. Raises RbeeError."""

    @abstractmethod
    async def leave(self, story: Narrator, *, is_forced: bool) -> bool:
        """Stop it because it is removed, and return whether it has stopped.

        Raises HiveFailed if it cannot be asked and not `is_forced`, UnitFailed if systemd cannot stop it.
        """

    @abstractmethod
    async def stay(self) -> None:
        """Undo leave(), for a hive that the catalog keeps."""

    @abstractmethod
    def fell_silent(self) -> bool:
        """React when silence has made it offline; return whether that counts towards an outage."""

    # Heartbeats

    async def heartbeat(self, beat: Heartbeat, sender: Actor | None) -> HeartbeatAck:
        """Take a beat and acknowledge it. Nothing is written to disk if the hive was online before.

        `sender` is entered in the audit for writes that follow.
        """
        if (ack := self.take_plain(beat)) is not None:
            return ack
        self._shared.metrics.beat_came(beat.state)
        arrival = self.arrival
        self.inventory.fingerprint.heard = beat.fingerprint
        if not self.standing.is_online or self.standing.life.instance != beat.instance:
            self.workload.forget()
        self.workload.heard = beat.work
        self.goodbye = ENDS[beat.machine] if beat.state == "stopping" else None
        if beat.state == "ready":
            await self._take_ready(beat, sender)
            if self.workload.is_other and not self._shared.work_changed(self.id):
                self.workload.came_with(beat.work)
        job_id = arrival.job.id if arrival is not None else None
        return HeartbeatAck("ok", round(self.interval * 1000), job_id)

    def take_plain(self, beat: Heartbeat) -> HeartbeatAck | None:
        """Take a beat that only confirms that an online hive is alive; return None if it says more."""
        life, fingerprint = self.standing.life, self.inventory.fingerprint
        if (
            beat.state != "ready"
            or beat.lines
            or life.state != "online"
            or life.instance != beat.instance
            or self.arrival is not None
            or self.goodbye is not None
            or fingerprint.heard != beat.fingerprint
            or fingerprint.is_other
            or self.workload.heard != beat.work
            or self.workload.is_other
        ):
            return None
        self._shared.metrics.beat_came(beat.state)
        self.standing.take_beat(beat, self.interval)
        return HeartbeatAck("ok", round(self.interval * 1000))

    async def _take_ready(self, beat: Heartbeat, sender: Actor | None) -> None:
        shared, life = self._shared, self.standing.life
        is_first = self.standing.take_beat(beat, self.interval)
        if self.arrival is not None:
            self.arrival.beats()
        elif is_first and not self.inventory.recall():
            shared.tasks.begin(self._welcome(sender))
        elif self.lock.locked():
            pass  # the operation that holds the lock decides the hive's state
        elif life.state == "pending":
            if shared.restraint.may_detect(self.id):
                shared.tasks.begin(self._welcome(sender))  # the last attempt failed
        elif life.state in ("unknown", "suspect", "offline"):
            await self.standing.is_back(sender)
        elif self.inventory.fingerprint.is_other and shared.restraint.may_detect(self.id):
            shared.tasks.begin(self._renew_devices(sender))

    async def _welcome(self, sender: Actor | None) -> None:
        """Ask a hive that no job waits for (it came back, or was started by hand) for its devices."""
        async with self.lock:
            standing = self.standing
            if self.is_removed or standing.life.instance is None:
                return  # or its process is gone
            if not standing.is_online:
                standing.set("pending", "its first heartbeat has come")
            story = self._shared.narrator.about(hive=self.id)
            before = standing.row.devices
            try:
                devices = await self.inventory.ask_first(story, job_id=None)
                await standing.store_online(devices, self.inventory.report, sender)
            except RbeeError as error:
                story.narrate(ADD_FAILED, f"asking {self.id} for its devices failed: {error.message}")
                return
            now = standing.with_holdings(devices) if before is None else devices
            narrate_changes(story, self.id, before, now)
            standing.narrate_online()

    async def _renew_devices(self, sender: Actor | None) -> None:
        async with self.lock:
            # It may have gone meanwhile, or the devices may have been asked for.
            if not self.is_removed and self.standing.is_online and self.inventory.fingerprint.is_other:
                await self.inventory.renew(self._shared.narrator.about(hive=self.id), sender)

    # Operations

    async def add(self, job: Job, story: Narrator, by: Actor) -> HiveView:
        """Bring it online and store its devices; the caller holds the lock. Raises RbeeError."""
        with self._expecting(job) as arrival:
            devices = await self.bring_up(story, arrival, by)
        await self.standing.store_online(devices, self.inventory.report, by)
        story.narrate(HAS_DEVICES, describe(self.id, self.standing.with_holdings(devices)))
        return self.standing.view()

    async def remove(self, story: Narrator, by: Actor, *, is_forced: bool) -> bool:
        """Have it leave, delete its row, and return whether it has stopped; the caller holds the lock.

        Raises CatalogFailed, and what leave() raises.
        """
        catalog = self._shared.catalog
        try:
            self.is_leaving = True
            try:
                # Fails before the hive is stopped, or forgets its queen, if the catalog cannot be written.
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
        """Note that its row was deleted."""
        self.is_removed = True
        self.standing.forget()

    async def sample(self) -> Sample:
        """Return a sample of its machine; HiveNotOnline if it is not online: it is not started for that."""
        if not self.standing.is_online:
            state, reason = self.standing.life.state, self.standing.life.reason
            raise HiveNotOnline(
                f"the beehive {self.id} is {state} and reports no sample of its machine: {reason}",
                hint=self._shared.scope.rbeectl(
                    f"{'add-hive' if state == 'offline' else 'status'} {self.id}"
                ),
            )
        return await self.samples.sample()

    async def refused(self, error: RbeeError, *, by: Actor | None = None, is_narrated: bool = True) -> None:
        """Set it offline because the queen cannot accept its process."""
        await self.standing.set_offline(error.message, by=by, is_narrated=is_narrated)
        self.standing.set("offline", error.message)  # if it was offline for another reason

    @contextlib.contextmanager
    def _expecting(self, job: Job) -> Iterator[Arrival]:
        self.arrival = Arrival(job, self.hint)
        try:
            yield self.arrival
        finally:
            self.arrival = None
