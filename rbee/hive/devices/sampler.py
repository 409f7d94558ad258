"""Samples of what the machine does right now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from rbee.hive.devices.cards import unread
from rbee.hive.devices.detector import Detector
from rbee.hive.devices.load import CpuMeter, load_averages, memory
from rbee.hive.threads import in_daemonic_thread
from rbee.narration import now_rfc3339
from rbee.wire.samples import GpuSample, Sample

log = logging.getLogger("rbee")

SHARED_FOR = 0.5
"""Seconds for which a sample is returned again."""

CARDS_TIMEOUT = 3.0
"""Seconds that a sample waits for the drivers of the cards; NVML's READ_TIMEOUT is less."""


class Sampler:
    """Takes a sample when asked; requests at the same time share one.

    Files of the kernel are read at once. Drivers of cards may hang: they are asked in a thread, one at
    any time, and a sample leaves out what they have not answered in time.
    """

    def __init__(
        self,
        hive_id: str,
        detector: Detector,
        root: Path = Path("/"),
        *,
        cards_timeout: float = CARDS_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hive_id = hive_id
        self._detector = detector
        self._root = root
        self._cards_timeout = cards_timeout
        self._clock = clock
        self._meter = CpuMeter(root, clock=clock)
        self._sampling: asyncio.Task[Sample] | None = None
        self._begun_at = 0.0
        self._reading: asyncio.Task[tuple[GpuSample, ...]] | None = None
        self._reading_since = 0.0

    def fingerprint(self) -> str:
        """Return the detector's fingerprint for a heartbeat; also note the CPU usage, for the next sample."""
        self._meter.note()
        return self._detector.fingerprint()

    async def look(self) -> Sample:
        """Return a sample that is at most SHARED_FOR seconds old."""
        sampling = self._sampling
        if sampling is None or (sampling.done() and self._clock() - self._begun_at >= SHARED_FOR):
            sampling = self._sampling = asyncio.get_running_loop().create_task(self._sample())
            self._begun_at = self._clock()
        # A caller that is cancelled does not end it for the others.
        return await asyncio.shield(sampling)

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [task for task in (self._sampling, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sample(self) -> Sample:
        load_1, load_5, load_15 = load_averages(self._root)
        cpu_percent, cpu_span_seconds = self._meter.look()
        memory_used_bytes, memory_total_bytes = memory(self._root)
        return Sample(
            hive_id=self._hive_id,
            at=now_rfc3339(),
            load_1=load_1,
            load_5=load_5,
            load_15=load_15,
            cpu_percent=cpu_percent,
            cpu_span_seconds=cpu_span_seconds,
            memory_used_bytes=memory_used_bytes,
            memory_total_bytes=memory_total_bytes,
            gpus=await self._cards(),
        )

    async def _cards(self) -> tuple[GpuSample, ...]:
        if self._reading is None or self._reading.done():
            # What came too late for the last look is too old for this one.
            self._reading_since = self._clock()
            self._reading = asyncio.get_running_loop().create_task(
                in_daemonic_thread(self._detector.read_cards)
            )
        left = self._reading_since + self._cards_timeout - self._clock()
        done, _ = await asyncio.wait({self._reading}, timeout=max(0.0, left))
        if not done:
            waited = self._clock() - self._reading_since
            return self._unread(f"the drivers of the cards have not answered for {waited:.0f} s")
        try:
            return self._reading.result()
        except Exception as error:
            log.exception("reading what the cards do failed")
            return self._unread(f"reading what the cards do failed: {error}")

    def _unread(self, problem: str) -> tuple[GpuSample, ...]:
        devices = self._detector.latest
        return unread(devices.gpus, problem) if devices is not None else ()
