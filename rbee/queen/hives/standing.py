"""The state of a hive: its row in the catalog, and its liveness.

Changes of the state are narrated and stored here; losses, which may be many at once, in mass_loss.py.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rbee.config import QueenConfig
from rbee.errors import CatalogFailed
from rbee.narration import HIVE_OFFLINE, HIVE_ONLINE, HIVE_SUSPECT, NOTICE, Narrator
from rbee.queen.changes import Changes
from rbee.queen.hives.liveness import Clocks, Life, Pace
from rbee.queen.metrics import Metrics
from rbee.queen.restraint import Restraint
from rbee.queen.store.records import Actor, Row
from rbee.queen.store.store import Store
from rbee.queen.tasks import Tasks
from rbee.scope import Scope
from rbee.wire.devices import Devices
from rbee.wire.heartbeats import Heartbeat, MachineEnd
from rbee.wire.hives import HiveView, Label, SetCordon, SetLabels, State, Status

log = logging.getLogger("rbee")

STOPPED_BY_ADMIN = "stopped by an administrator"
STOPPED_WITH_QUEEN = "stopped together with the queen"
ENDS: Mapping[MachineEnd | None, str] = {
    None: STOPPED_BY_ADMIN,
    "rebooting": "its machine is rebooting",
    "shutting-down": "its machine is shutting down",
}
"""Why a hive ended that had announced its end, by what it reported about its machine."""

ASKED_FOR = (STOPPED_WITH_QUEEN, *ENDS.values())
"""Reasons that are not faults."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all hives of a queen share. `changes` are announced when counts in `tally` may have changed.

    `work_changed` is called with the id of a hive whose workers or fetches may have changed, and returns
    whether they will be asked for. `holdings` returns the names of a hive's models, and of its workers.
    """

    config: QueenConfig
    catalog: Store
    narrator: Narrator
    restraint: Restraint
    pace: Pace
    scope: Scope
    changes: Changes = field(default_factory=Changes)
    metrics: Metrics = field(default_factory=Metrics)
    clocks: Clocks = field(default_factory=Clocks)
    tally: Counter[State] = field(default_factory=Counter)
    tasks: Tasks = field(default_factory=Tasks)
    work_changed: Callable[[str], bool] = lambda hive_id: False
    holdings: Callable[[str], tuple[tuple[str, ...], tuple[str, ...]]] = lambda hive_id: ((), ())

    def changed(self) -> None:
        """Announce a change."""
        self.changes.announce()


class Standing:
    """A hive's row and life; `state` and `reason` apply until its first heartbeat."""

    def __init__(self, row: Row, shared: Shared, state: State, reason: str) -> None:
        self.row = row
        self.stored: Status | None = row.status
        """The status that is stored, or is being written; None if that is not known."""
        self.life = Life(state, reason, shared.clocks, shared.tally)
        self.before_online: Callable[[], None] | None = None
        """Narrates its loss, if that is still to be narrated; called before it is narrated as online."""
        self._shared = shared
        self._sent_at: str | None = None
        """The time of the last beat by the hive's own clock, in RFC 3339."""

    @property
    def is_online(self) -> bool:
        """Is its state online?"""
        return self.life.state == "online"

    def set(self, state: State, reason: str) -> None:
        """Set the state, without narrating or storing it."""
        if self.life.set(state, reason):
            self._shared.changed()

    async def store_online(self, devices: Devices, report: str | None, by: Actor | None) -> None:
        """Set it online with these devices; if they cannot be stored, CatalogFailed, and it is pending.

        `report` is Inventory.report.
        """
        # RAM first: a death that is reported during the write is then judged, and written, after it.
        self.set("online", "heartbeats received")
        self.stored = "online"
        try:
            await self._shared.catalog.hives.set_online(self.row.id, devices, report, by=by)
            await self.reload()
        except CatalogFailed as error:
            self.stored = None
            if self.is_online:
                self.set("pending", f"its devices are not stored: {error.message}")
            raise

    async def store_devices(self, devices: Devices, report: str | None, by: Actor | None) -> None:
        """Store its devices; `report` is Inventory.report. Raises CatalogFailed."""
        await self._shared.catalog.hives.set_devices(self.row.id, devices, report, by=by)
        await self.reload()

    async def store_address(self, address: str, credential: str | None, by: Actor) -> bool:
        """Store the address that it connected from, and return True, if that or its credential is new.

        A failure is logged and returns False: the hive is connected; its next connection retries the write.
        """
        hive_id = self.row.id
        if self.row.address == address and self.row.former_credential is None:
            return False
        try:
            await self._shared.catalog.hives.set_address(hive_id, address, credential, by=by)
            await self.reload()
        except CatalogFailed as error:
            log.error("hive %s is at %s, and that could not be stored: %s", hive_id, address, error.message)
            return False
        return True

    async def set_labels(self, asked: SetLabels, by: Actor) -> HiveView:
        """Set and remove labels. Raises BadInput beyond LABELS_MAX, UnknownHive, or CatalogFailed."""
        labels = {label.key: label.value for label in asked.set}
        await self._shared.catalog.hives.set_labels(self.row.id, labels, asked.remove, by=by)
        await self.reload()
        return self.view()

    async def set_cordon(self, asked: SetCordon, by: Actor) -> HiveView:
        """Cordon it for a reason, or uncordon it with None. Raises CatalogFailed."""
        await self._shared.catalog.hives.set_cordon(self.row.id, asked.reason, by=by)
        await self.reload()
        return self.view()

    async def is_back(self, by: Actor | None) -> None:
        """Set it online again, with the devices that it had; narrate and store that."""
        self.set("online", "heartbeats received")
        self.narrate_online()
        await self.remember("online", by=by)

    def narrate_online(self) -> None:
        """Narrate that it is online again."""
        if self.before_online is not None:
            self.before_online()
        hive_id = self.row.id
        self._shared.narrator.narrate(HIVE_ONLINE, f"the beehive {hive_id} is online again", hive=hive_id)

    async def set_offline(
        self, reason: str, *, wanted: bool | None = None, is_narrated: bool = True, by: Actor | None = None
    ) -> None:
        """Set it offline, and store that; with `wanted` also whether it is desired.

        `is_narrated` is false if the caller narrates it; `by` is entered in the audit.
        """
        if not self.life.end(reason, is_final=wanted is False):
            return
        self._shared.changed()
        if is_narrated:
            self.narrate_loss("offline", reason)
        await self.remember("offline", wanted=wanted, by=by)

    def take_beat(self, beat: Heartbeat, interval: float) -> bool:
        """Note a beat of a ready hive, the next due in `interval` seconds; return as Life.beat()."""
        lateness = self.life.lateness(beat.instance, self._shared.pace.interval)
        if lateness is not None:
            self._shared.metrics.beat_was_late(lateness)
        self._sent_at = beat.timestamp
        return self.life.beat(beat.instance, beat.version or None, interval)

    def narrate_loss(self, state: State, reason: str) -> None:
        """Narrate that it is suspect or offline, and why."""
        event = HIVE_SUSPECT if state == "suspect" else HIVE_OFFLINE
        if reason in ASKED_FOR:
            event = event._replace(priority=NOTICE)
        hive_id = self.row.id
        self._shared.narrator.narrate(event, f"the beehive {hive_id} is {state}: {reason}", hive=hive_id)

    async def remember(self, status: Status, *, wanted: bool | None = None, by: Actor | None = None) -> None:
        """Store a change of state; a failure is logged, and the state in RAM stays."""
        if wanted is None and status == self.stored:
            return
        self.stored = status
        try:
            await self._shared.catalog.hives.set_status(self.row.id, status, wanted=wanted, by=by)
            await self.reload()
        except CatalogFailed as error:
            self.stored = None
            log.error("hive %s is %s, and that could not be stored: %s", self.row.id, status, error.message)

    async def reload(self) -> None:
        """Read its row again after a write."""
        self.row = await self._shared.catalog.hives.find(self.row.id) or self.row

    def forget(self) -> None:
        """Stop counting it: its row was deleted."""
        self.life.forget()
        self._shared.changed()

    def view(self) -> HiveView:
        """Return the hive as clients see it."""
        row, life = self.row, self.life
        return HiveView(
            id=row.id,
            host=row.host,
            port=row.port,
            status=row.status,
            devices=None if row.devices is None else self.with_holdings(row.devices),
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
            clock_skew_ms=self._skew_ms() if row.is_remote else None,
            labels=tuple(Label(key, value) for key, value in sorted(row.labels.items())),
            cordoned=row.cordoned,
            problem=row.problem,
        )

    def with_holdings(self, devices: Devices) -> Devices:
        """Return its devices with its models and workers, which the queen knows."""
        models, workers = self._shared.holdings(self.row.id)
        if not models and not workers:
            return devices
        return devices._replace(model_catalog=models, worker_catalog=workers or devices.worker_catalog)

    def _skew_ms(self) -> int | None:
        """Return by how many ms its clock was ahead of ours at the last beat, ignoring time in transit."""
        if self._sent_at is None or self.life.last_beat_ms is None:
            return None
        sent = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", self._sent_at.upper()))
        return round(sent.timestamp() * 1000) - self.life.last_beat_ms
