"""Run in a machine: a queen's hives in one process, without TLS, for scale.py. many_rows.py COUNT SECONDS.

Each has its row, its state and its control connection, whose other end is in this process too: what is
measured is the queen's own work. Prints a line of JSON, whose numbers scale.py names.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import json
import random
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rbee import __version__
from rbee.config import Config, QueenConfig
from rbee.narration import CATALOG_CHANGED, Event, Narrator, now_rfc3339
from rbee.queen import metrics
from rbee.queen.api.pages import in_turn, page_of
from rbee.queen.metrics import Moment
from rbee.queen.queen import Queen, Site
from rbee.queen.store.store import Store
from rbee.scope import SYSTEM
from rbee.systemd.control import Control
from rbee.systemd.daemon import Notifier
from rbee.uplink.accept import Uplink
from rbee.uplink.frames import write_frame
from rbee.wire.codec import encode
from rbee.wire.devices import Cpu, Devices
from rbee.wire.heartbeats import Heartbeat
from rbee.wire.selectors import Selector

DEVICES = Devices(Cpu("AMD EPYC 7763 64-Core Processor", 1, 64, 128, 2**38), ())
INSTANCE = "1" * 32
TICK = 0.01


class Count(Narrator):
    """Counts the narrated lines of each event; the change of the catalog is the last of a loss."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.is_stored = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.lines[event.name] += 1
        if event is CATALOG_CHANGED:
            self._loop.call_soon_threadsafe(self.is_stored.set)


class NoBus:
    """A systemd of which nothing is heard: whatever is asked of it has no answer."""

    scope = SYSTEM

    def __init__(self) -> None:
        self._silent, self._other = socket.socketpair()

    def fileno(self) -> int:
        return self._silent.fileno()

    def close(self) -> None:
        self._silent.close()
        self._other.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None


class NullTransport(asyncio.Transport):
    """Discards what is sent."""

    def write(self, data: Any) -> None:
        pass

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass


class Fleet:
    """The hives of a queen, and their connections."""

    def __init__(self, queen: Queen) -> None:
        self.hives = queen.hives
        self.metrics = queen.metrics
        self.uplinks: list[Uplink] = []

    async def connect(self) -> None:
        """Connect all hives, as online and with the devices in the catalog."""
        for hive in self.hives.remote():
            uplink = Uplink(
                hive.id, INSTANCE, "10.0.0.1", lambda beat: self.hives.heartbeat(beat), hive.take_plain
            )
            uplink.connection_made(NullTransport())
            await self.hives.uplinks.take(uplink)
            self.uplinks.append(uplink)
            hive.standing.set("online", "heartbeats received")
            hive.standing.life.beat(INSTANCE, __version__, hive.interval)

    async def beat(self, seconds: float) -> int:
        """Have all beat at the queen's interval for this many seconds; return the number of heartbeats."""
        interval = next(iter(self.hives.remote())).interval
        due = [(random.uniform(0, interval), number) for number in range(len(self.uplinks))]
        heapq.heapify(due)
        began, beats = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            while due[0][0] <= now:
                at, number = due[0]
                uplink = self.uplinks[number]
                uplink.data_received(beat_of(uplink.hive_id))
                heapq.heapreplace(due, (at + interval * random.uniform(0.9, 1), number))
                beats += 1
            await asyncio.sleep(TICK)
        return beats

    async def pages(self) -> None:
        """List all hives in pages, as rbeectl does."""
        after = ""
        while True:
            content = await page_of(self.hives, limit=1000, after=after, selector=Selector())
            after = json.loads(content[content.rindex(b'"next":') + 7 : -1])
            if after is None:
                return


def beat_of(hive_id: str) -> bytes:
    return write_frame(Heartbeat(hive_id, now_rfc3339(), (), INSTANCE, version=__version__))


def fill(path: Path, count: int) -> None:
    """Add hives that were online, with devices, to the catalog."""
    devices = json.dumps(encode(DEVICES))
    with closing(sqlite3.connect(path)) as catalog, catalog:
        catalog.executemany(
            "INSERT INTO hives "
            "(id, host, port, status, created_at_ms, updated_at_ms, wanted, credential, machine, devices) "
            "VALUES (?1, ?1, 8600, 'online', 1, 1, 1, ?2, ?2, ?3)",
            [(f"hive{n:05}", f"{n:016x}", devices) for n in range(count)],
        )


def pss_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


async def stall(longest: list[float]) -> None:
    """Keep in longest[0] the longest time, in ms, for which the event loop was blocked."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(TICK)
        longest[0] = max(longest[0], 1000 * (time.monotonic() - began - TICK))


async def measure(folder: Path, count: int, seconds: float) -> dict[str, float]:
    counted = Count()
    path = folder / "catalog.db"
    Store.open(path, counted).close()
    fill(path, count)
    results: dict[str, float] = {}
    memory, cpu = pss_kib(), time.process_time()

    def took(name: str) -> None:
        nonlocal cpu
        results[name] = time.process_time() - cpu
        cpu = time.process_time()

    bus: Any = NoBus()
    site = Site(SYSTEM, folder, folder / "hive.sock", Control(SYSTEM), find_credentials=lambda: None)
    async with Queen.open(Config(QueenConfig()), site, bus, Notifier(), counted) as queen:
        fleet = Fleet(queen)
        took("load")
        gc.freeze()  # as the queen does once all is loaded
        await fleet.connect()
        results["memory"] = (pss_kib() - memory) / 1024
        longest = [0.0]
        watching = asyncio.create_task(stall(longest))
        cpu = time.process_time()
        for _ in range(100):
            beat_of("hive00000")
        players = (time.process_time() - cpu) / 100
        fleet.hives.begin()
        cpu = time.process_time()
        beats = await fleet.beat(seconds)
        took("rest")
        results["rest"] = 100 * max(0.0, results["rest"] - beats * players) / seconds
        longest[0] = 0.0
        cpu = time.process_time()
        await fleet.pages()
        took("pages")
        await page_of(fleet.hives, limit=None, after="", selector=Selector())
        took("whole")
        moment = Moment([hive.standing.view() async for _, hive in in_turn(fleet.hives)], {})
        await asyncio.to_thread(metrics.write, fleet.metrics, moment, "")
        took("metrics")
        results["stall"] = longest[0]
        counted.lines.clear()
        for uplink in fleet.uplinks:
            uplink.connection_lost(None)
        await counted.is_stored.wait()
        took("loss")
        results["lines"] = sum(counted.lines.values())
        watching.cancel()
    bus.close()
    return results


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), int(sys.argv[1]), float(sys.argv[2])))))


if __name__ == "__main__":
    main()
