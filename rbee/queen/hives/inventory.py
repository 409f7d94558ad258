"""A hive's devices, and whether they may have changed since the queen asked for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rbee.client.link import HiveClient
from rbee.errors import HiveFailed, RbeeError
from rbee.narration import (
    ASKING_DEVICES,
    DEVICES_CHANGED,
    DEVICES_UNKNOWN,
    FIRST_HEARTBEAT,
    HAS_DEVICES,
    Narrator,
)
from rbee.queen.hives.describe import describe, differences
from rbee.queen.hives.standing import Standing
from rbee.queen.store.records import Actor
from rbee.wire.devices import Devices


class Fingerprint:
    """A hive's beats bring a fingerprint: another one when its devices may have changed. In RAM only.

    `heard` is that of its last beat; None from a hive of before 0.3.0, which reports no change.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        self._known: str | None = None
        self._failed: str | None = None

    def came_with(self, fingerprint: str | None) -> None:
        """The devices are known that the hive reported after a beat had brought this.

        What has changed since is in the fingerprint of a later beat.
        """
        self._known = fingerprint
        self._failed = None

    @property
    def is_other(self) -> bool:
        """May the devices be others than those that are known?"""
        return self.heard is not None and self.heard != self._known

    def failed(self) -> bool:
        """The hive was asked for its devices in vain; False where that was so for this fingerprint before."""
        fingerprint = self.heard or ""
        is_new = self._failed != fingerprint
        self._failed = fingerprint
        return is_new


class Inventory:
    """`reach` leads to the hive, and may wait for it; `timeout` in seconds is for its answer."""

    def __init__(
        self, standing: Standing, reach: Callable[[], Awaitable[HiveClient]], *, timeout: float, hint: str
    ) -> None:
        self._standing = standing
        self._reach = reach
        self._timeout = timeout
        self._hint = hint
        self.fingerprint = Fingerprint()

    async def ask_first(self, story: Narrator, job_id: str | None) -> Devices:
        """As ask(), after a first heartbeat."""
        hive_id = self._standing.row.id
        story.narrate(
            FIRST_HEARTBEAT,
            f"first heartbeat from a bee hive is received from {hive_id}. checking its capabilities...",
        )
        return await self.ask(story, job_id)

    async def ask(self, story: Narrator, job_id: str | None) -> Devices:
        """Ask for them; HiveFailed where it does not tell them, and it is pending then."""
        standing, hive_id = self._standing, self._standing.row.id
        if standing.row.devices is None:
            asking = f"unknown capabilities of beehive {hive_id}. asking the beehive to detect devices"
        else:
            asking = f"asking the beehive {hive_id} whether its devices are what they were"
        story.narrate(ASKING_DEVICES, asking)
        fingerprint = self.fingerprint.heard
        try:
            client = await self._reach()
            devices = await client.devices(job_id=job_id, timeout=self._timeout)
        except RbeeError as error:
            if standing.life.state != "offline":
                standing.set("pending", f"its devices are not known: {error.message}")
            raise HiveFailed(
                f"the beehive {hive_id} did not tell its devices: {error.message}",
                hint=error.hint or self._hint,
            ) from error
        self.fingerprint.came_with(fingerprint)
        return devices

    async def renew(self, story: Narrator, by: Actor | None) -> None:
        """They may have changed, as its beats say: ask, and store and narrate what has."""
        standing, fingerprint = self._standing, self.fingerprint.heard
        before = standing.row.devices
        try:
            client = await self._reach()
            devices = await client.devices(job_id=None, timeout=self._timeout)
            await standing.store_devices(devices, by)
        except RbeeError as error:
            if standing.is_online and self.fingerprint.failed():
                told = f"the devices of the beehive {standing.row.id} may have changed, and are not known"
                story.narrate(DEVICES_UNKNOWN, f"{told}: {error.message}")
            return
        self.fingerprint.came_with(fingerprint)
        narrate_changes(story, standing.row.id, before, devices)


def narrate_changes(story: Narrator, hive_id: str, before: Devices | None, now: Devices) -> None:
    """What is different from before, if that is anything that people are shown."""
    if before is None:
        story.narrate(HAS_DEVICES, describe(hive_id, now))
    elif changes := differences(before, now):
        told = f"the devices of the beehive {hive_id} have changed"
        story.narrate(DEVICES_CHANGED, f"{told}: {'; '.join(changes)}")
