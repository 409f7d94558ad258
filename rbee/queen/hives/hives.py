"""All hives of a queen: which there are, and who of them is heard.

What becomes of one hive is the hive's own (hive.py), and what operators ask of hives is work.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rbee.client.link import HiveClient
from rbee.errors import UnknownHive
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.local import LocalHive
from rbee.queen.hives.relay import Relay
from rbee.queen.hives.remote import CONNECTION_CLOSED, RemoteHive
from rbee.queen.hives.standing import Shared
from rbee.queen.hives.watch import Watch
from rbee.queen.store.records import Actor, Row
from rbee.scope import HIVE_UNIT
from rbee.systemd.aio import AsyncBus
from rbee.uplink.accept import Uplink, Uplinks
from rbee.wire.hives import Heartbeat, HeartbeatAck, HiveView, State
from rbee.wire.types import LOCALHOST, spelled

log = logging.getLogger("rbee")


class Hives:
    """`bus` and `client` lead to the local hive's unit, and to its socket."""

    def __init__(self, shared: Shared, relay: Relay, bus: AsyncBus, client: HiveClient) -> None:
        self._shared = shared
        self._relay = relay
        self._bus = bus
        self._client = client
        self._hives: dict[str, Hive] = {}
        self._when_removed: Callable[[str], None] = lambda hive_id: None
        self._watch = Watch(shared, self._hives)
        self.uplinks = Uplinks(self._uplink_closed)

    # Which there are

    async def load(self) -> None:
        """Take up the hives of the catalog, as unknown until they are heard of."""
        for row in await self._shared.catalog.hives.all():
            self.take_in(row, "unknown", f"no heartbeat since the queen started (last known: {row.status})")

    def take_in(self, row: Row, state: State, reason: str) -> Hive:
        """A hive that has come into the catalog."""
        hive: Hive
        if row.id == LOCALHOST:
            hive = LocalHive(row, self._shared, state, reason, bus=self._bus, client=self._client)
        else:
            hive = RemoteHive(row, self._shared, state, reason, uplinks=self.uplinks)
        name = row.id
        while name in self._hives:  # rows whose names cannot be read have one and the same
            name += "+"
        self._hives[name] = hive
        self._shared.pace.remote += row.id != LOCALHOST
        self._shared.changed()
        return hive

    def forget(self, hive: Hive) -> None:
        """A hive that is in the catalog no more."""
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
        """Stop all work; what was going on is taken up when it is asked for again."""
        self.uplinks.close()
        self._shared.restraint.close()
        await asyncio.gather(*(hive.samples.end() for hive in self._hives.values()))
        await self._shared.tasks.end()

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
            self.take_in(row, "pending", "just joined")

    def _uplink_closed(self, uplink: Uplink) -> None:
        """Its process has gone, or its connection broke; if it lives, it is back in a moment."""
        hive = self.find(uplink.hive_id)
        if isinstance(hive, RemoteHive):
            self._shared.tasks.begin(self.lose(hive, hive.end_of_connection()))

    async def lose(self, hive: RemoteHive, reason: str) -> None:
        """A hive is offline for a reason, which may be that many are."""
        await hive.standing.set_offline(reason)
        if reason == CONNECTION_CLOSED:
            self._watch.note_loss(hive)
