"""Loses all hives of a queen at once, and prints the CPU time of that, in all and for each."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rbee.uplink.accept import Uplink
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from tests.bench.many_rows import Count
from tests.unit.queens import a_queen


async def take_no_beat(_beat: Heartbeat) -> HeartbeatAck:
    raise AssertionError("nobody beats")


def fill(path: Path, count: int) -> None:
    """Add hives that were online to the catalog."""
    rows = [(f"hive{n}", f"hive{n}", f"{n:016x}") for n in range(count)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO hives "
            "(id, host, port, status, created_at_ms, updated_at_ms, wanted, credential, machine) "
            "VALUES (?, ?, 8600, 'online', 1, 1, 1, ?3, ?3)",
            rows,
        )


async def lose(folder: Path, count: int) -> tuple[float, float, Count]:
    """Return the seconds of CPU, those on the clock, and the lines that were narrated."""
    async with a_queen(folder):
        pass  # creates the catalog
    fill(folder / "catalog.db", count)
    counted = Count()
    async with a_queen(folder, counted) as queen:
        hives = queen.hives.remote()
        assert len(hives) == count
        for hive in hives:
            hive.standing.set("online", "heartbeats received")
            await queen.hives.uplinks.take(Uplink(hive.id, "1" * 32, "10.0.0.1", take_no_beat))
        cpu, began = time.process_time(), time.perf_counter()
        for uplink in queen.hives.uplinks.all():
            uplink.connection_lost(None)
        await counted.is_stored.wait()
        return time.process_time() - cpu, time.perf_counter() - began, counted


def main() -> None:
    print(f"{'hives':>8}{'CPU s':>10}{'µs a hive':>12}{'clock s':>10}  narrated")
    for count in map(int, " ".join(sys.argv[1:]).split()):
        with tempfile.TemporaryDirectory() as folder:
            cpu, clock, counted = asyncio.run(lose(Path(folder) / "state", count))
        print(f"{count:>8}{cpu:>10.2f}{cpu / count * 1e6:>12.0f}{clock:>10.2f}  {dict(counted.lines)}")


if __name__ == "__main__":
    main()
