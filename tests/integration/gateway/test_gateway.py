"""The gateway's own life."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rbee.config import GatewayConfig
from tests.integration.gateway.stage import CHAT, CHUNKED, STREAMED, Request, Stage, ask, client_of, run
from tests.integration.house import until


def test_it_ends_when_it_is_idle_and_not_while_it_answers(tmp_path: Path) -> None:
    may_end = asyncio.Event()

    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED)
            await may_end.wait()
            writer.write(b"0\r\n\r\n")

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            await asyncio.sleep(0.4)
            assert not stage.server_task.done()
            may_end.set()
            assert await client.chunk() == b""
        await stage.server_task
        assert stage.tape.of("gateway-stopping")[0][0] == "the gateway goes to sleep, as it has no requests"

    run(tmp_path, act, config=GatewayConfig(idle_exit=0.2))


def test_a_scrape_does_not_keep_it_awake(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        while not stage.server_task.done():
            try:
                await ask(stage, method="GET", path="/metrics")
            except (OSError, asyncio.IncompleteReadError):
                break
            await asyncio.sleep(0.02)
        await stage.server_task

    run(tmp_path, act, config=GatewayConfig(idle_exit=0.5))


def test_its_status_line_counts(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        assert stage.told.statuses[0] == "requests: 0 in flight"
        stage.engine.play = hang
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await until(lambda: "requests: 1 in flight" in stage.told.statuses)
        assert stage.tape.of("gateway-started")

    run(tmp_path, act)


async def hang(_request: Request, reader: asyncio.StreamReader, _writer: object) -> None:
    await reader.read()
