"""A queen that is served on a Unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rbee.narration import SHUTTING_DOWN_HIVES, Narrator
from rbee.queen.hives.hives import Hives as Rules
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Job, Jobs, Stories
from rbee.queen.store.store import Store
from rbee.systemd.daemon import Notifier
from rbee.wire.jobs import Done
from tests.integration.unix_http import TIMEOUT, Answer, raw, served
from tests.unit.played_systemd import PlayedSystemd
from tests.unit.queens import a_queen as open_queen

HIVE_UID = 990
ME, ROOT, HIVE, SOMEBODY = os.geteuid(), 0, HIVE_UID, 1000
BEAT = {
    "hive_id": "localhost",
    "timestamp": "2026-01-31T12:00:00Z",
    "workers": [],
    "instance": "1" * 32,
}
NO_JOB = "7" * 32


@dataclass
class Served:
    path: Path
    rules: Rules
    work: HiveWork
    jobs: Jobs
    catalog: Store
    narrator: Narrator
    systemd: PlayedSystemd
    stop: Callable[[], Awaitable[None]]

    async def ask(self, asked: bytes) -> Answer:
        return await raw(self.path, asked)


@asynccontextmanager
async def a_queen(tmp_path: Path, notifier: Notifier) -> AsyncIterator[Served]:
    systemd = PlayedSystemd()
    async with open_queen(tmp_path, systemd=systemd, jobs_max=8) as queen:

        async def stopping() -> None:
            await queen.work.end()
            await queen.hives.end()
            queen.jobs.close()
            queen.feed.close()

        async with served(queen.app(), tmp_path / "queen.sock", notifier, stopping=stopping) as stop:
            yield Served(
                tmp_path / "queen.sock",
                queen.hives,
                queen.work,
                queen.jobs,
                queen.catalog,
                queen.narrator,
                systemd,
                stop,
            )


async def stream(queen: Served, asked: bytes) -> tuple[str, list[dict[str, str]]]:
    """Head and events of an answer, up to the end of its connection."""
    reader, writer = await asyncio.open_unix_connection(str(queen.path))
    writer.write(asked.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close"))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode()
    body = b""
    while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    writer.close()
    await writer.wait_closed()
    blocks = body.decode().strip("\n").split("\n\n")
    return head, [dict(one.split(": ", 1) for one in block.split("\n")) for block in blocks]


def ended(jobs: Jobs, lines: int) -> Job:
    job = jobs.open("shutdown", None)
    stories = Stories(jobs)
    for number in range(lines):
        stories.narrate(SHUTTING_DOWN_HIVES, f"line {number + 1}", job_id=job.id)
    job.done(Done(None))
    return job
