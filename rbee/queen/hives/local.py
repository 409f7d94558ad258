"""The hive on the queen's own machine: a unit of the same systemd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from rbee import config
from rbee.client.link import HiveClient
from rbee.errors import HiveNotOnline, RbeeError, TimedOut, UnitFailed
from rbee.narration import HIVE_AWAKE, WAKING, Narrator
from rbee.queen.hives.arrival import Arrival
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.liveness import Patience
from rbee.queen.hives.standing import ENDS, STOPPED_BY_ADMIN, STOPPED_WITH_QUEEN, Shared
from rbee.queen.store.records import Actor, Row
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, Scope
from rbee.systemd.aio import AsyncBus
from rbee.systemd.exitstatus import describe_exit
from rbee.systemd.unit import UnitState
from rbee.wire.types import LOCALHOST

if TYPE_CHECKING:
    from rbee.wire.devices import Devices
    from rbee.wire.heartbeats import HiveHealth
    from rbee.wire.hives import State
    from rbee.wire.samples import Sample

log = logging.getLogger("rbee")

STOP_TIMEOUT = 10.0
"""Seconds within which its unit must stop; its TimeoutStopSec= is 5 s."""

RETRY_AFTER = 1.0
"""Seconds after which a failed query of its unit is retried."""

HEALTH_TIMEOUT = 2.0
"""Seconds for its answer to HEALTH; a hive that hangs is judged by its heartbeats."""


class LocalHive(Hive):
    """The local hive. `bus` controls its unit, `client` sends requests to its socket."""

    def __init__(
        self, row: Row, shared: Shared, state: State, reason: str, *, bus: AsyncBus, client: HiveClient
    ) -> None:
        self._bus = bus
        self._client = client
        self._was_up = False
        scope = shared.scope
        hint = scope.systemctl(f"status {HIVE_UNIT}")
        super().__init__(row, shared, state, reason, scope=scope, hint=hint)

    @property
    def interval(self) -> float:
        return self._shared.pace.interval

    @property
    def patience(self) -> Patience:
        return self._shared.pace.patience_with_local(self.standing.life.interval)

    def client(self) -> HiveClient:
        return self._client

    async def reach(self) -> HiveClient:
        return self._client

    async def sample(self) -> Sample:
        # Its end may not be known yet, and connecting to its socket would start it again.
        if self.standing.is_online and not (await self._bus.state(HIVE_UNIT)).is_active:
            hint = self._shared.scope.rbeectl(f"status {self.id}")
            raise HiveNotOnline(f"the beehive {self.id} is being stopped", hint=hint)
        return await super().sample()

    # Starting

    async def reconcile(self) -> None:
        """Start it at the queen's start if it is desired: when the queen died, BindsTo= stopped it."""
        async with self.lock:
            if self.is_removed:
                return
            try:
                if not (await self._bus.state(HIVE_UNIT)).is_active:
                    if not self.standing.row.wanted:
                        self.standing.set("offline", STOPPED_BY_ADMIN)
                        return
                    text = f"waking up the bee hive at {self.standing.row.host}"
                    self._shared.narrator.narrate(WAKING, text, hive=self.id)
                    await self._bus.start(HIVE_UNIT, timeout=self._shared.config.hive_start_timeout)
                await self._check_own()
            except RbeeError as error:
                await self.refused(error)

    async def bring_up(self, story: Narrator, arrival: Arrival, by: Actor) -> Devices:
        if (await self._bus.state(HIVE_UNIT)).is_active:
            arrival.is_started = True
            story.narrate(HIVE_AWAKE, f"the bee hive at {self.standing.row.host} is awake already")
            return await self._ask_awake(story, arrival, by)
        await self._wake(story, arrival, by)
        return await self.inventory.ask_first(story, arrival.job.id)

    async def _ask_awake(self, story: Narrator, arrival: Arrival, by: Actor) -> Devices:
        """Return the devices of a hive that runs already, once it has sent a heartbeat."""
        timeout = self._shared.config.hive_start_timeout
        try:
            await self._check_own()
            arrival.awaits_beat = False
            devices = await self.inventory.ask(story, arrival.job.id)
            arrival.awaits_beat = True
            await self._judge_unit()  # it may have died since
            async with asyncio.timeout(timeout):
                await arrival.outcome  # mostly set by then
        except TimeoutError as error:
            late = await self._late(f"{HIVE_UNIT} runs, and sent no heartbeat within {timeout:g} s")
            await self.refused(late, by=by, is_narrated=False)
            raise late from error
        except UnitFailed as error:
            await self.refused(error, by=by, is_narrated=False)
            raise
        return devices

    async def _wake(self, story: Narrator, arrival: Arrival, by: Actor) -> None:
        """Start its unit and wait for its first heartbeat."""
        timeout = self._shared.config.hive_start_timeout
        story.narrate(WAKING, f"waking up the bee hive at {self.standing.row.host}")
        self.standing.set("pending", "waking up")
        try:
            if (await self._bus.state(HIVE_UNIT)).active == "failed":
                # An operator asks for it: earlier failures do not count towards StartLimitBurst=.
                await self._bus.reset_failed(HIVE_UNIT)
            await self._bus.start(HIVE_UNIT, timeout=timeout)
            arrival.is_started = True
            await self._judge_unit()  # it may be dead already
            await self._check_own()
            async with asyncio.timeout(timeout):
                await arrival.outcome
        except TimeoutError as error:
            late = await self._late(f"{HIVE_UNIT} started, and no heartbeat came within {timeout:g} s")
            await self.standing.set_offline(late.message, is_narrated=False, by=by)
            raise late from error
        except RbeeError as error:
            await self.standing.set_offline(error.message, is_narrated=False, by=by)
            raise

    async def _late(self, message: str) -> TimedOut:
        return TimedOut(f"{message}{await self._destination_of_beats()}", hint=self.hint)

    # Stopping

    async def leave(self, story: Narrator, *, is_forced: bool) -> bool:
        unit = await self._bus.state(HIVE_UNIT)
        self._was_up = not unit.is_stopped
        # If rbee-hive is not installed there is nothing to stop, and systemd would refuse.
        if unit.load != "not-found" or not unit.is_stopped:
            await self._bus.stop(HIVE_UNIT, timeout=STOP_TIMEOUT)
        return True

    async def stay(self) -> None:
        if self._was_up:
            with contextlib.suppress(RbeeError):
                await self._bus.start(HIVE_UNIT, timeout=self._shared.config.hive_start_timeout)
        await self._judge_unit()  # an end that was ignored while it was leaving counts now

    # Judged by its unit, and by its silence

    async def unit_changed(self) -> None:
        """Judge its unit after a change that systemd reports: its death is noticed at once."""
        while True:
            try:
                return await self._judge_unit()
            except RbeeError as error:
                log.error("querying %s failed, retrying: %s", HIVE_UNIT, error.message)
            await asyncio.sleep(RETRY_AFTER)

    async def _judge_unit(self) -> None:
        state = await self._bus.state(HIVE_UNIT)
        arrival = self.arrival
        if self.is_removed or self.is_leaving:
            return
        if arrival is not None and not arrival.is_started:
            return  # it does not run yet; the start job reports how that ends
        # 'auto-restart-queued' is of systemd 254 and later.
        if state.sub.startswith("auto-restart") or state.active == "failed":
            ended = f"its process ended ({_end_of(state)})"
            if arrival is not None and arrival.is_waiting and state.active == "failed":
                arrival.dies(ended)
            else:
                await self.standing.set_offline(ended)
        elif state.active == "inactive" and not await self._bus.has_job(HIVE_UNIT):
            # A job for the queen's unit means that both are being stopped or restarted together.
            end, is_with_queen = await self._bus.machine_end(), await self._bus.has_job(QUEEN_UNIT)
            if self.is_removed or self.is_leaving or await self._bus.state(HIVE_UNIT) != state:
                return  # it changed while systemd was slow to answer; that change is judged separately
            if end is not None:
                # Still desired: it is started again after the machine's next boot.
                await self.standing.set_offline(ENDS[end])
            elif is_with_queen:
                await self.standing.set_offline(STOPPED_WITH_QUEEN)
            elif arrival is not None and arrival.is_waiting:
                arrival.dies(STOPPED_BY_ADMIN)
            else:
                await self.standing.set_offline(STOPPED_BY_ADMIN, wanted=False)

    def fell_silent(self) -> bool:
        self._shared.tasks.begin(self._explain_silence())
        return False

    async def _explain_silence(self) -> None:
        """Check whether it was started for another queen, or under another name."""
        try:
            if (await self._bus.state(HIVE_UNIT)).is_active:
                await self._check_own()
        except RbeeError as error:
            if not self.standing.is_online:
                await self.refused(error)

    # Which queen it belongs to

    async def _check_own(self) -> None:
        """Raise UnitFailed if the hive that runs here will never send this queen a heartbeat as localhost."""
        health = await self._health()
        if health is not None and (fault := fault_of(health, self._shared.scope)) is not None:
            raise fault

    async def _destination_of_beats(self) -> str:
        """Return the end of a sentence about missing beats: a socket that is not the default, or ''."""
        health, scope = await self._health(), self._shared.scope
        if health is None or health.queen in (None, str(scope.queen_socket)):
            return ""
        return f"; it sends them to {health.queen}, by [Hive] Queen= in {_where_set('Queen', scope)}"

    async def _health(self) -> HiveHealth | None:
        try:
            return await self._client.health(timeout=HEALTH_TIMEOUT)
        except RbeeError:
            return None


def fault_of(health: HiveHealth, scope: Scope) -> UnitFailed | None:
    """Return why a hive that runs on the queen's machine cannot be its local hive, or None."""
    if health.is_remote_queen:
        return UnitFailed(
            f"the hive on this machine is the hive {health.hive_id} of the queen at {health.queen}",
            hint=f"To make it this queen's hive: {scope.doctor} --fix; "
            f"{scope.rbeectl(f'add-hive {LOCALHOST}')}\n"
            "To leave it with the other queen: sudo apt remove rbee-queen",
        )
    if health.hive_id not in (None, LOCALHOST):
        place = _where_set("Id", scope)
        restart = scope.systemctl(f"restart {HIVE_UNIT}", as_root=True)
        return UnitFailed(
            f"the hive on this machine calls itself {health.hive_id}, by [Hive] Id= in {place}: "
            f"its queen knows it as {LOCALHOST} only",
            hint=f"Delete the line Id={health.hive_id} in {place}; then: {restart}; "
            + scope.rbeectl(f"add-hive {LOCALHOST}"),
        )
    return None


def _where_set(key: str, scope: Scope) -> str:
    try:
        return str(config.where_set("Hive", key, scope=scope) or "rbee.conf")
    except (RbeeError, OSError):
        return "rbee.conf"  # changed since the hive has read it


def _end_of(state: UnitState) -> str:
    if state.result == "signal":
        return f"killed by signal {state.exit_status}"
    if state.result == "exit-code":
        return describe_exit(state.exit_status)
    return state.result or "no result"
