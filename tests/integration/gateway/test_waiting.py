"""What clients and the journal get while a worker is started."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from rbee.errors import HiveFailed
from rbee.gateway import waiting
from rbee.wire.leases import Ask, Wait
from tests.integration.gateway.stage import (
    ASKED,
    CHAT,
    JOB,
    STREAMED,
    LeaseEnd,
    Request,
    Stage,
    ask,
    client_of,
    error_in,
    event,
    loading,
    refusal,
    run,
)
from tests.integration.house import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "HEAD_AFTER", 0.05)
    monkeypatch.setattr(waiting, "COMMENT_INTERVAL", 0.05)


def test_a_stream_gets_comments_and_then_its_answer(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        is_ready = asyncio.Event()

        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(loading(40))
            await is_ready.wait()
            await lease.grant(was_cold=True, job_id=JOB)

        stage.queen.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            status, headers = await client.head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            while (comment := await client.chunk()) == b": waiting for bee\n\n":
                pass  # the queen has not said anything yet
            assert comment == b": loading bee, 40 %\n\n"
            is_ready.set()
            content = b""
            while part := await client.chunk():
                content += part
            assert event("I") in content
            assert content.endswith(b"data: [DONE]\n\n")
        ((text, fields),) = stage.tape.of("request-woke")
        assert "bee-1 was ready" in text
        assert fields["job_id"] == JOB
        assert fields["actor_uid"] == str(os.getuid())
        assert fields["request"] == headers["x-request-id"]
        assert [fields["job_id"] for _, fields in stage.tape.of("request-held")] == [JOB]

    run(tmp_path, act)


def test_a_stream_that_cannot_be_answered_after_all_gets_an_event(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        may_fail = asyncio.Event()

        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(Wait("waiting\nfor \x1b[31mmemory"))
            await may_fail.wait()
            await lease.send(refusal(HiveFailed("the engine exited with status 1"), 9))

        stage.queen.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            assert await client.chunk() == b": waiting for \\x1b[31mmemory\n\n"
            may_fail.set()
            part = await client.chunk()
            while part.startswith(b":"):
                part = await client.chunk()
            error = error_in(part.removeprefix(b"data: "))
            assert error["message"] == "the engine exited with status 1"
            assert await client.reader.read() == b""

    run(tmp_path, act)


def test_an_engine_that_refuses_a_stream_whose_head_was_sent_is_heard(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def refuses(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(b'HTTP/1.1 400 No\r\nContent-Length: 24\r\n\r\n{"error":\n{"code": 400}}')

        has_head = asyncio.Event()

        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await has_head.wait()
            await lease.grant()

        stage.engine.play, stage.queen.play = refuses, play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            assert (await client.chunk()).startswith(b": waiting for bee")
            has_head.set()
            part = await client.chunk()
            while part.startswith(b":"):
                part = await client.chunk()
            assert json.loads(part.removeprefix(b"data: ")) == {"error": {"code": 400}}

    run(tmp_path, act)


def test_a_request_for_a_whole_answer_is_held_without_a_word(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        is_ready = asyncio.Event()

        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(loading(40))
            await is_ready.wait()
            await lease.grant()

        stage.queen.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, ASKED)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.reader.read(1)
            is_ready.set()
            assert (await client.answer())[0] == 200

    run(tmp_path, act)


def test_fifty_clients_wait_together(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await until(lambda: len(stage.queen.asks) == 50)
            await lease.grant(was_cold=True, job_id=JOB)

        stage.queen.play = play
        answers = await asyncio.gather(*(ask(stage) for _ in range(50)))
        assert {status for status, _, _ in answers} == {200}

    run(tmp_path, act)
