"""A hive on another machine: it dials the queen, which cannot start it."""

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
from rbee.scope import HIVE_UNIT, REMOTE
from rbee.uplink.accept import Uplinks
from rbee.wire.devices import Devices
from rbee.wire.hives import State

REQUEST_TIMEOUT = 3.0
"""Seconds for its answer to a request to stop, or to leave."""

CONNECT_TIMEOUT = 5.0
"""Seconds that a request waits for its hive to connect."""

DIAL_TIMEOUT = 16.0
"""Seconds that a job waits for it to connect: it dials at least every 15 s (rbee.hive.dial)."""

REFUSED_TIMEOUT = 3.0
"""The same for a hive that was refused last time: the cause may have been fixed since."""

CONNECTION_CLOSED = "its connection closed"


class RemoteHive(Hive):
    """A remote hive, reached over its connection in `uplinks`."""

    def __init__(self, row: Row, shared: Shared, state: State, reason: str, *, uplinks: Uplinks) -> None:
        self._uplinks = uplinks
        self._refusal: RbeeError | None = None
        """Why the queen refused its last connection; None if it did not."""
        self._was_online = row.status == "online"
        """Was it online when the queen started? If not, and it never beat, its silence is no loss."""
        hint = f"On {row.id}: {REMOTE.systemctl(f'status {HIVE_UNIT}')}"
        super().__init__(row, shared, state, reason, scope=REMOTE, hint=hint)

    @property
    def interval(self) -> float:
        return self._shared.pace.of_remote

    @property
    def patience(self) -> Patience:
        return self._shared.pace.patience_with_remote(self.standing.life.interval)

    @property
    def is_connected(self) -> bool:
        """Does it have a control connection?"""
        return self._uplinks.find(self.id) is not None

    def client(self) -> HiveClient:
        uplink = self._uplinks.find(self.id)
        if uplink is None:
            hint = self._shared.scope.rbeectl(f"status {self.id}")
            raise HiveNotOnline(f"the beehive {self.id} is not connected", hint=hint)
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
                hint=f"On {self.id}: {REMOTE.journalctl(f'-u {HIVE_UNIT} -n 20')}",
            ) from error
        return await self.inventory.ask_first(story, arrival.job.id)

    async def _await_connection(self, arrival: Arrival, patience: float, refusal: RbeeError | None) -> None:
        """Wait until it connects; raise its new refusal, or, if it does not dial, `refusal` or TimedOut."""
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
            message = f"the beehive {self.id} has not connected within {patience:g} s"
            raise TimedOut(message, hint=self.hint) from error
        finally:
            comes.cancel()
            await asyncio.gather(comes, return_exceptions=True)

    # Stopping

    async def leave(self, story: Narrator, *, is_forced: bool) -> bool:
        uplink = self._uplinks.find(self.id)
        try:
            if uplink is None:
                raise HiveNotOnline("it is not connected")
            await uplink.client.leave(timeout=REQUEST_TIMEOUT)
        except RbeeError as error:
            if not is_forced:
                raise HiveFailed(
                    f"the beehive {self.id} cannot be asked to leave: {error.message}",
                    hint="To remove it all the same: "
                    + self._shared.scope.rbeectl(f"remove-hive --force {self.id}"),
                ) from error
            story.narrate(
                HIVE_NOT_TOLD, f"the beehive {self.id} could not be asked to leave: {error.message}"
            )
            return False
        return True

    async def stay(self) -> None:
        """Nothing: if it has left it has forgotten the queen, and only it can join again."""

    async def shut_down(self, story: Narrator) -> None:
        """Ask it to stop with the queen, and narrate whether it does; no error if it cannot be asked."""
        uplink = self._uplinks.find(self.id)
        if uplink is None:
            text = f"the beehive {self.id} is not connected, and was not asked to shut down"
            story.narrate(HIVE_NOT_TOLD, text, hive=self.id)
            return
        self.is_leaving = True
        try:
            await uplink.client.shut_down(timeout=REQUEST_TIMEOUT)
            story.narrate(HIVE_TOLD, f"the beehive {self.id} is shutting down", hive=self.id)
        except RbeeError as error:
            text = f"the beehive {self.id} could not be asked to shut down: {error.message}"
            story.narrate(HIVE_NOT_TOLD, text, hive=self.id)

    # Judged by its connection, and by its silence

    def end_of_connection(self) -> str:
        """Return why its connection has closed; CONNECTION_CLOSED if that was not announced."""
        return STOPPED_WITH_QUEEN if self.is_leaving else self.goodbye or CONNECTION_CLOSED

    def fell_silent(self) -> bool:
        # Nothing arrives over it any more, and an answer would come too late.
        self._uplinks.drop(self.id)
        return self.standing.life.last_beat_ms is not None or self._was_online

    async def refused(self, error: RbeeError, *, by: Actor | None = None, is_narrated: bool = True) -> None:
        self._refusal = error
        if self.arrival is not None:
            self.arrival.refuse(error)
        await super().refused(error, by=by, is_narrated=is_narrated)

    def accepted(self) -> None:
        """Forget why it was refused: its connection is accepted."""
        self._refusal = None

    def joined_anew(self, row: Row) -> None:
        """Drop the connection with its old credential: it has joined again, as `row`."""
        self.standing.row = row
        self.accepted()
        self._uplinks.drop(self.id)

    def removed(self) -> None:
        super().removed()
        self._uplinks.drop(self.id)
