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
    """The fingerprint in a hive's beats: it differs once the devices may have changed. In RAM only.

    `heard` is that of the last beat; None from a hive before 0.3.0, which reports no changes.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        self._known: str | None = None
        self._failed: str | None = None

    def came_with(self, fingerprint: str | None) -> None:
        """Note that the devices are known, as they were reported after a beat with this fingerprint."""
        self._known = fingerprint
        self._failed = None

    @property
    def is_other(self) -> bool:
        """May the devices differ from the known ones?"""
        return self.heard is not None and self.heard != self._known

    def failed(self) -> bool:
        """Note that asking for the devices failed; False if it has failed for this fingerprint before."""
        fingerprint = self.heard or ""
        is_new = self._failed != fingerprint
        self._failed = fingerprint
        return is_new


class Inventory:
    """Asks a hive for its devices. `reach` returns its client; `timeout` in seconds is for the answer."""

    def __init__(
        self, standing: Standing, reach: Callable[[], Awaitable[HiveClient]], *, timeout: float, hint: str
    ) -> None:
        self._standing = standing
        self._reach = reach
        self._timeout = timeout
        self._hint = hint
        self.fingerprint = Fingerprint()
        self.report: str | None = None
        """The process that last reported the devices, a space, and its fingerprint then."""

    def recall(self) -> bool:
        """Are the stored devices still right? If so, note that they are known, and return True.

        They are if this very process reported them, with the fingerprint that it sends now: its connection
        broke, or the queen was restarted. A hive that is not desired is asked again in any case: it is
        store_online(), after the answer, that makes it desired.
        """
        row, report = self._standing.row, self._present_report()
        if report is None or row.report != report or row.devices is None or not row.wanted:
            return False
        self.fingerprint.came_with(self.fingerprint.heard)
        return True

    def _present_report(self) -> str | None:
        instance, fingerprint = self._standing.life.instance, self.fingerprint.heard
        return None if instance is None or fingerprint is None else f"{instance} {fingerprint}"

    async def ask_first(self, story: Narrator, job_id: str | None) -> Devices:
        """As ask(), and narrate the first heartbeat before."""
        hive_id = self._standing.row.id
        story.narrate(
            FIRST_HEARTBEAT,
            f"first heartbeat from a bee hive is received from {hive_id}. checking its capabilities...",
        )
        return await self.ask(story, job_id)

    async def ask(self, story: Narrator, job_id: str | None) -> Devices:
        """Ask for the devices. Raises HiveFailed; the hive is then pending, unless it is offline."""
        standing, hive_id = self._standing, self._standing.row.id
        if standing.row.devices is None:
            asking = f"unknown capabilities of beehive {hive_id}. asking the beehive to detect devices"
        else:
            asking = f"asking the beehive {hive_id} whether its devices have changed"
        story.narrate(ASKING_DEVICES, asking)
        fingerprint, report = self.fingerprint.heard, self._present_report()
        try:
            client = await self._reach()
            devices = _hardware(await client.devices(job_id=job_id, timeout=self._timeout))
        except RbeeError as error:
            if standing.life.state != "offline":
                standing.set("pending", f"its devices are not known: {error.message}")
            raise HiveFailed(
                f"the beehive {hive_id} did not report its devices: {error.message}",
                hint=error.hint or self._hint,
            ) from error
        self.fingerprint.came_with(fingerprint)
        self.report = report
        return devices

    async def renew(self, story: Narrator, by: Actor | None) -> None:
        """Ask for devices that may have changed, store them, and narrate the changes. Raises nothing."""
        standing, fingerprint, report = self._standing, self.fingerprint.heard, self._present_report()
        before = standing.row.devices
        try:
            client = await self._reach()
            devices = _hardware(await client.devices(job_id=None, timeout=self._timeout))
            await standing.store_devices(devices, report, by)
        except RbeeError as error:
            if standing.is_online and self.fingerprint.failed():
                text = f"the devices of the beehive {standing.row.id} may have changed, and are not known"
                story.narrate(DEVICES_UNKNOWN, f"{text}: {error.message}")
            return
        self.fingerprint.came_with(fingerprint)
        narrate_changes(story, standing.row.id, before, devices)


def narrate_changes(story: Narrator, hive_id: str, before: Devices | None, now: Devices) -> None:
    """Narrate the differences that are shown to people, or all devices if none were known before."""
    if before is None:
        story.narrate(HAS_DEVICES, describe(hive_id, now))
    elif changes := differences(before, now):
        text = f"the devices of the beehive {hive_id} have changed"
        story.narrate(DEVICES_CHANGED, f"{text}: {'; '.join(changes)}")


def _hardware(devices: Devices) -> Devices:
    """Return the devices without what runs there, which the queen adds (with_holdings)."""
    return devices._replace(model_catalog=(), worker_catalog=())
