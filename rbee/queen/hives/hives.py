"""All hives of a queen, and which of them a heartbeat or a connection belongs to.

The state of one hive is in hive.py, and what operators request of hives in work.py.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections.abc import Callable

from rbee.client.link import HiveClient
from rbee.errors import UnknownHive
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.local import LocalHive
from rbee.queen.hives.mass_loss import LossReports
from rbee.queen.hives.relay import Relay
from rbee.queen.hives.remote import CONNECTION_CLOSED, RemoteHive
from rbee.queen.hives.standing import Shared
from rbee.queen.hives.watch import Watch
from rbee.queen.store.records import Actor, Row, free_name
from rbee.scope import HIVE_UNIT
from rbee.systemd.aio import AsyncBus
from rbee.uplink.accept import Uplink, Uplinks
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.hives import HiveView, State
from rbee.wire.types import LOCALHOST, spelled

log = logging.getLogger("rbee")


class Hives:
    """The hives in the catalog, by id. `bus` and `client` are for the local hive's unit and socket."""

    def __init__(self, shared: Shared, relay: Relay, bus: AsyncBus, client: HiveClient) -> None:
        self._shared = shared
        self._relay = relay
        self._bus = bus
        self._client = client
        self._hives: dict[str, Hive] = {}
        self.names: list[str] = []
        """Their ids, in order."""
        self._when_removed: list[Callable[[str], None]] = []
        self._losses = LossReports(shared, self._hives)
        self._watch = Watch(shared, self._losses)
        self.uplinks = Uplinks(self._uplink_closed)

    # The collection

    async def load(self) -> None:
        """Load the hives from the catalog; they are unknown until their first heartbeat."""
        rows = await self._shared.catalog.hives.all()
        for row in sorted(rows, key=lambda row: row.problem is not None):  # readable names first
            self.take_in(row, "unknown", f"no heartbeat since the queen started (last known: {row.status})")

    def take_in(self, row: Row, state: State, reason: str) -> Hive:
        """Create the Hive for a row of the catalog, in the given state."""
        row = row._replace(id=free_name(row.id, self._hives))
        hive: Hive
        if row.id == LOCALHOST:
            hive = LocalHive(row, self._shared, state, reason, bus=self._bus, client=self._client)
        else:
            hive = RemoteHive(row, self._shared, state, reason, uplinks=self.uplinks)
        self._hives[row.id] = hive
        insort(self.names, row.id)
        self._watch.add(hive)
        self._shared.pace.remote += row.id != LOCALHOST
        self._shared.changed()
        return hive

    def forget(self, hive: Hive) -> None:
        """Drop a hive whose row was deleted."""
        del self._hives[hive.id]
        self.names.remove(hive.id)
        self._shared.pace.remote -= hive.id != LOCALHOST
        for removed in self._when_removed:
            removed(hive.id)
        hive.removed()

    def when_removed(self, removed: Callable[[str], None]) -> None:
        """Call `removed` with the id of each hive that is removed from the catalog."""
        self._when_removed.append(removed)

    def find(self, hive_id: str) -> Hive | None:
        """Return the hive, or None if there is none with this id."""
        return self._hives.get(hive_id)

    def hive(self, hive_id: str, *, hint: str | None = None) -> Hive:
        """As find(); raises UnknownHive."""
        hive = self._hives.get(hive_id)
        if hive is None:
            raise UnknownHive(
                f"hive '{hive_id}' is not in the hive catalog",
                hint=hint or f"{self._shared.scope.rbeectl('list-hives')} shows those that are",
                field="hive_id",
            )
        return hive

    def remote_hive(self, hive_id: str) -> RemoteHive:
        """As hive(), for an id that is known to be a remote hive's."""
        hive = self.hive(hive_id)
        assert isinstance(hive, RemoteHive)
        return hive

    def remote(self) -> list[RemoteHive]:
        """Return the remote hives."""
        return [hive for hive in self._hives.values() if isinstance(hive, RemoteHive)]

    @property
    def _local(self) -> LocalHive | None:
        hive = self._hives.get(LOCALHOST)
        return hive if isinstance(hive, LocalHive) else None

    def can_wake(self, hive_id: str) -> bool:
        """May a request add or start it: is it local, and not in the catalog, or desired and offline?"""
        local = self._local
        is_off = local is None or (local.standing.row.wanted and local.standing.life.state == "offline")
        return hive_id == LOCALHOST and is_off

    def spelled(self, name: str) -> str:
        """Return a name in the spelling of its hive; unchanged if there is no such hive."""
        return name if name in self._hives else spelled(name, (LOCALHOST, *self._hives))

    def view(self, hive_id: str) -> HiveView:
        """Return one hive as clients see it; raises UnknownHive."""
        return self.hive(hive_id).standing.view()

    # Start and end

    def begin(self) -> None:
        """Watch the local hive, judge hives by silence, and start the local hive if it is desired.

        Not before READY=1: starting a unit that is ordered after the queen's would wait for that.
        """
        begin = self._shared.tasks.begin
        self._bus.on_unit_changed(HIVE_UNIT, self._local_unit_changed)
        begin(self._watch.run())
        if self._local is not None:
            begin(self._local.reconcile())

    async def end(self) -> None:
        """Close all connections and cancel all work, which continues when a client repeats its request."""
        self.uplinks.close()
        await self._losses.end()
        self._shared.restraint.close()
        await asyncio.gather(*(hive.samples.end() for hive in self._hives.values()))
        await self._shared.tasks.end()

    # Heartbeats

    async def heartbeat(self, beat: Heartbeat, sender: Actor | None = None) -> HeartbeatAck:
        """Take a hive's beat; `sender` is entered in the audit for writes that follow. Raises UnknownHive."""
        try:
            hive = self.hive(beat.hive_id, hint=self._shared.scope.rbeectl(f"add-hive {beat.hive_id}"))
        except UnknownHive:
            self._shared.metrics.beat_refused()
            raise
        self._relay.take(beat)
        return await hive.heartbeat(beat, sender)

    def _local_unit_changed(self) -> None:
        if self._local is not None:
            self._shared.tasks.begin(self._local.unit_changed())

    # Remote hives

    def has_joined(self, row: Row) -> None:
        """Take in a machine that has joined, perhaps again with another credential."""
        hive = self.find(row.id)
        if isinstance(hive, RemoteHive):
            hive.joined_anew(row)
        else:
            self.take_in(row, "pending", "just joined")

    def _uplink_closed(self, uplink: Uplink) -> None:
        """Set a hive offline whose process or connection has ended; if it lives, it soon dials again."""
        hive = self.find(uplink.hive_id)
        if not isinstance(hive, RemoteHive) or self._shared.tasks.is_closed:
            return
        reason = hive.end_of_connection()
        if hive.standing.life.end(reason):
            # A broken connection may be part of an outage.
            self._losses.note(hive, counts=reason == CONNECTION_CLOSED)
