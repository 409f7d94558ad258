"""What the machine does right now, told to whoever looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from rbee.contracts import Sample
from rbee.hive.devices.load import CpuMeter, load_averages, memory
from rbee.narration import now_rfc3339

SHARED_FOR = 0.5
"""Seconds for which a sample is also the answer to who looks next."""


class Sampler:
    """Samples when somebody looks; many who look at once share one sample."""

    def __init__(
        self, hive_id: str, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hive_id = hive_id
        self._root = root
        self._clock = clock
        self._meter = CpuMeter(root, clock=clock)
        self._sampling: asyncio.Task[Sample] | None = None
        self._begun_at = 0.0

    def note(self) -> None:
        """To be called now and then, so that the first to look has something to compare with."""
        self._meter.note()

    async def look(self) -> Sample:
        """What is so now, or was less than SHARED_FOR ago."""
        sampling = self._sampling
        if sampling is None or (sampling.done() and self._clock() - self._begun_at >= SHARED_FOR):
            sampling = self._sampling = asyncio.get_running_loop().create_task(self._sample())
            self._begun_at = self._clock()
        # Who goes does not end it for the others.
        return await asyncio.shield(sampling)

    async def close(self) -> None:
        """End what is under way; the hive stops."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)

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
        )
