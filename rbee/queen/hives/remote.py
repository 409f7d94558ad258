"""A hive on another machine: it dials the queen, and nobody here can wake it."""

from __future__ import annotations

import asyncio
from typing import Any

from rbee.client.link import HiveClient
from rbee.errors import HiveFailed, HiveNotOnline, RbeeError, TimedOut
from rbee.narration import HIVE_AWAKE, HIVE_NOT_TOLD, HIVE_TOLD, Narrator
from rbee.queen.hives.arrival import Arrival
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.liveness import Patience
from rbee.queen.hives.standing import STOPPED_WITH_QUEEN, Shared
from rbee.queen.store.records import Actor, Row
from rbee.scope import HIVE_UNIT
from rbee.uplink.accept import Uplinks
from rbee.wire.devices import Devices
from rbee.wire.hives import State

TELL_TIMEOUT = 3.0
"""Seconds in which it must have taken that it is to stop, or to leave."""

CONNECT_TIMEOUT = 5.0
"""Seconds that a hive whose beats come has to connect."""

DIAL_TIMEOUT = 16.0
"""Seconds for it to connect: it dials every 15 s at least (rbee.hive.dial)."""

REFUSED_TIMEOUT = 3.0
"""Seconds for one that was refused when it dialled last to come again: it may have been mended since."""

CONNECTION_CLOSED = "its connection closed"


class RemoteHive(Hive):
    def __init__(self, row: Row, shared: Shared, state: State, reason: str, *, uplinks: Uplinks) -> None:
        self._uplinks = uplinks
        self._refusal: RbeeError | None = None
        """Why the queen refused it when it dialled last."""
        self._was_online = row.status == "online"
        """One that was not when the queen woke, and never beat since, is no loss."""
        super().__init__(row, shared, state, reason, hint=f"On {row.id}: systemctl status {HIVE_UNIT}")

    @property
    def interval(self) -> float:
        return self._shared.pace.of_remote

    @property
    def patience(self) -> Patience:
        return self._shared.pace.patience_with_remote(self.standing.life.interval)

    @property
    def is_connected(self) -> bool:
        return self._uplinks.find(self.id) is not None

    def client(self) -> HiveClient:
        uplink = self._uplinks.find(self.id)
        if uplink is None:
            raise HiveNotOnline(f"the beehive {self.id} is not connected", hint=f"rbeectl status {self.id}")
        return uplink.client

    async def reach(self) -> HiveClient:
        return (await self._uplinks.wait(self.id, timeout=CONNECT_TIMEOUT)).client

    # Waiting for it

    async def bring_up(self, story: Narrator, arrival: Arrival, by: Actor) -> Devices:
        if self.standing.is_online:
            story.narrate(HIVE_AWAKE, f"the bee hive at {self.standing.row.host} is awake already")
            return await self.inventory.ask(story, arrival.job.id)
        timeout = self._shared.config.hive_start_timeout
        refusal = self._refusal
        try:
            async with asyncio.timeout(timeout):
                if not self.is_connected:
                    patience = DIAL_TIMEOUT if refusal is None else REFUSED_TIMEOUT
                    await self._await_connection(arrival, min(patience, timeout), refusal)
                await arrival.outcome
        except TimeoutError as error:
            raise TimedOut(
                f"the beehive {self.id} is connected, and sent no heartbeat within {timeout:g} s",
                hint=f"On {self.id}: sudo journalctl -u {HIVE_UNIT} -n 20",
            ) from error
        return await self.inventory.ask_first(story, arrival.job.id)

    async def _await_connection(self, arrival: Arrival, patience: float, refusal: RbeeError | None) -> None:
        """Until it connects, or is refused, which raises the refusal; that of before, if it does not come."""
        comes = asyncio.get_running_loop().create_task(self._uplinks.wait(self.id, timeout=patience))
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
            told = f"the beehive {self.id} has not connected within {patience:g} s"
            raise TimedOut(told, hint=self.hint) from error
        finally:
            comes.cancel()
            await asyncio.gather(comes, return_exceptions=True)

    # Stopping

    async def leave(self, story: Narrator, *, is_forced: bool) -> bool:
        uplink = self._uplinks.find(self.id)
        try:
            if uplink is None:
                raise HiveNotOnline("it is not connected")
            await uplink.client.leave(timeout=TELL_TIMEOUT)
        except RbeeError as error:
            if not is_forced:
                raise HiveFailed(
                    f"the beehive {self.id} cannot be told to leave: {error.message}",
                    hint=f"To forget it all the same: rbeectl remove-hive --force {self.id}",
                ) from error
            told = f"the beehive {self.id} could not be told that it is removed: {error.message}"
            story.narrate(HIVE_NOT_TOLD, told)
            return False
        return True

    async def stay(self) -> None:
        """It has forgotten the queen, if it was told to; only it can join again."""

    async def shut_down(self, story: Narrator) -> None:
        """Have it stop with the queen; the story says so where it cannot be told."""
        uplink = self._uplinks.find(self.id)
        if uplink is None:
            told = f"the beehive {self.id} is not connected, and is not told to shut down"
            story.narrate(HIVE_NOT_TOLD, told, hive=self.id)
            return
        self.is_leaving = True
        try:
            await uplink.client.shut_down(timeout=TELL_TIMEOUT)
            story.narrate(HIVE_TOLD, f"the beehive {self.id} is shutting down", hive=self.id)
        except RbeeError as error:
            told = f"the beehive {self.id} could not be told to shut down: {error.message}"
            story.narrate(HIVE_NOT_TOLD, told, hive=self.id)

    # Judged by its connection, and by its silence

    def end_of_connection(self) -> str:
        """Why it is offline now that its connection has closed; CONNECTION_CLOSED if nobody asked for it."""
        return STOPPED_WITH_QUEEN if self.is_leaving else self.goodbye or CONNECTION_CLOSED

    def fell_silent(self) -> bool:
        # What came of it since is not heard, and an answer would come too late.
        self._uplinks.drop(self.id)
        return self.standing.life.last_beat_ms is not None or self._was_online

    async def refused(self, error: RbeeError, *, by: Actor | None = None, is_told: bool = True) -> None:
        self._refusal = error
        if self.arrival is not None:
            self.arrival.refuse(error)
        await super().refused(error, by=by, is_told=is_told)

    def taken(self) -> None:
        """What it was refused for is so no more."""
        self._refusal = None

    def joined_anew(self, row: Row) -> None:
        """Its machine has another credential: what it had before leads nowhere."""
        self.standing.row = row
        self.taken()
        self._uplinks.drop(self.id)

    def removed(self) -> None:
        super().removed()
        self._uplinks.drop(self.id)
