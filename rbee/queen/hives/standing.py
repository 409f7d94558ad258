"""What is so of a hive: its row in the catalog, and its life.

Here, and nowhere else, a change of its state is narrated and stored.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from rbee.config import QueenConfig
from rbee.errors import CatalogFailed
from rbee.narration import HIVE_OFFLINE, HIVE_ONLINE, HIVE_SUSPECT, NOTICE, Narrator
from rbee.queen.hives.liveness import Clocks, Life, Pace, Patience
from rbee.queen.metrics import Metrics
from rbee.queen.restraint import Restraint
from rbee.queen.store.records import Actor, Row
from rbee.queen.store.store import Store
from rbee.queen.tasks import Tasks
from rbee.wire.devices import Devices
from rbee.wire.hives import HiveView, Label, MachineEnd, SetCordon, SetLabels, State, Status

log = logging.getLogger("rbee")

STOPPED_BY_ADMIN = "stopped by an administrator"
STOPPED_WITH_QUEEN = "stopped together with the queen"
ENDS: Mapping[MachineEnd | None, str] = {
    None: STOPPED_BY_ADMIN,
    "rebooting": "its machine is rebooting",
    "shutting-down": "its machine is shutting down",
}
"""Why a hive is gone that has said goodbye, by what it said of its machine."""

ASKED_FOR = (STOPPED_WITH_QUEEN, *ENDS.values())
"""Reasons that are nobody's fault."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all hives of a queen have in common. `changed` is called when their counts may have changed.

    `tally` has how many are in each state.
    """

    config: QueenConfig
    catalog: Store
    narrator: Narrator
    restraint: Restraint
    pace: Pace
    changed: Callable[[], None] = lambda: None
    metrics: Metrics = field(default_factory=Metrics)
    clocks: Clocks = field(default_factory=Clocks)
    tally: Counter[State] = field(default_factory=Counter)
    tasks: Tasks = field(default_factory=Tasks)


class Standing:
    """`state` and `reason` are what there is to say of a hive before it is heard of."""

    def __init__(self, row: Row, shared: Shared, state: State, reason: str) -> None:
        self.row = row
        self.life = Life(state, reason, shared.clocks, shared.tally)
        self._shared = shared

    @property
    def is_online(self) -> bool:
        return self.life.state == "online"

    def set(self, state: State, reason: str) -> None:
        """Put it into a state that is neither narrated nor stored."""
        if self.life.set(state, reason):
            self._shared.changed()

    async def store_online(self, devices: Devices, by: Actor | None) -> None:
        """It is online with these devices; CatalogFailed if they cannot be stored, and it is pending."""
        # RAM first: a death that is heard of during the write is then judged, and written, after it.
        self.set("online", "heartbeats received")
        try:
            await self._shared.catalog.hives.set_online(self.row.id, devices, by=by)
            await self.reload()
        except CatalogFailed as error:
            if self.is_online:
                self.set("pending", f"its devices are not stored: {error.message}")
            raise

    async def store_devices(self, devices: Devices, by: Actor | None) -> None:
        """Its devices are these now. Raises CatalogFailed."""
        await self._shared.catalog.hives.set_devices(self.row.id, devices, by=by)
        await self.reload()

    async def set_labels(self, asked: SetLabels, by: Actor) -> HiveView:
        """Set labels, and take others away; BadInput beyond LABELS_MAX, CatalogFailed."""
        labels = {label.key: label.value for label in asked.set}
        await self._shared.catalog.hives.set_labels(self.row.id, labels, asked.remove, by=by)
        await self.reload()
        return self.view()

    async def set_cordon(self, asked: SetCordon, by: Actor) -> HiveView:
        """Cordon it for a reason, or with None no more. Raises CatalogFailed."""
        await self._shared.catalog.hives.set_cordon(self.row.id, asked.reason, by=by)
        await self.reload()
        return self.view()

    async def is_back(self, by: Actor | None) -> None:
        """It is online again, with the devices that it had."""
        self.set("online", "heartbeats received")
        self.narrate_online()
        await self.remember("online", by=by)

    def narrate_online(self) -> None:
        hive_id = self.row.id
        self._shared.narrator.narrate(HIVE_ONLINE, f"the beehive {hive_id} is online again", hive=hive_id)

    async def set_offline(
        self, reason: str, *, wanted: bool | None = None, is_told: bool = True, by: Actor | None = None
    ) -> None:
        """`is_told` False where the story that it belongs to says it; `by` whoever asked for that."""
        if not self.life.end(reason, is_final=wanted is False):
            return
        self._shared.changed()
        if is_told:
            event = replace(HIVE_OFFLINE, priority=NOTICE) if reason in ASKED_FOR else HIVE_OFFLINE
            told = f"the beehive {self.row.id} is offline: {reason}"
            self._shared.narrator.narrate(event, told, hive=self.row.id)
        await self.remember("offline", wanted=wanted, by=by)

    def judge(self, patience: Patience) -> bool:
        """Judge by silence, and narrate what that changes; is it offline now, which is still to be stored?"""
        if not self.life.judge(patience):
            return False
        hive_id, state, reason = self.row.id, self.life.state, self.life.reason
        event = HIVE_SUSPECT if state == "suspect" else HIVE_OFFLINE
        self._shared.narrator.narrate(event, f"the beehive {hive_id} is {state}: {reason}", hive=hive_id)
        self._shared.changed()
        return state == "offline"

    async def remember(self, status: Status, *, wanted: bool | None = None, by: Actor | None = None) -> None:
        """Write down a change of state. What is so is so, even if the catalog cannot be written now."""
        try:
            await self._shared.catalog.hives.set_status(self.row.id, status, wanted=wanted, by=by)
            await self.reload()
        except CatalogFailed as error:
            log.error("hive %s is %s, and that could not be stored: %s", self.row.id, status, error.message)

    async def reload(self) -> None:
        """Its row was written."""
        self.row = await self._shared.catalog.hives.find(self.row.id) or self.row

    def forget(self) -> None:
        """It is in the catalog no more."""
        self.life.forget()
        self._shared.changed()

    def view(self) -> HiveView:
        row, life = self.row, self.life
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
