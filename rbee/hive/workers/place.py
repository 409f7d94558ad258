"""The resources of the machine that a worker's engine gets."""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

from rbee.errors import BadInput
from rbee.hive.threads import in_daemonic_thread
from rbee.wire.devices import Devices

RAM = "ram"


class Detector(Protocol):
    """The part of the hive's Detector that is used here."""

    @property
    def latest(self) -> Devices | None:
        """The devices of the last detection, None before the first."""

    def detect(self) -> Devices:
        """Detect the devices; may block."""


class Place(NamedTuple):
    """A card or the processors, with the bytes of the pool and the threads for the engine.

    `uuid` is the card's, '' if it is not known, None for the processors.
    """

    uuid: str | None
    total: int | None
    threads: int


async def place_of(pool: str, detector: Detector) -> Place:
    """Return the place for a pool's id. Raises BadInput if the machine has no such card."""
    devices = detector.latest
    if devices is None:
        devices = await in_daemonic_thread(detector.detect)
    allowed = len(os.sched_getaffinity(0))
    threads = max(1, min(devices.cpu.cores or allowed, allowed))
    if pool == RAM:
        return Place(None, devices.cpu.ram_allowed_bytes or devices.cpu.ram_bytes, threads)
    for gpu in devices.gpus:
        if f"gpu{gpu.index}" == pool:
            return Place(gpu.uuid or "", gpu.memory_bytes, threads)
    raise BadInput(f"this hive has no card {pool}", field="pool")
