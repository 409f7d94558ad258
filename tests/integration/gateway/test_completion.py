"""Requests that are passed to an engine, and everything that may happen to them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from rbee.errors import HiveFailed, TooMany, UnknownModel
from rbee.wire.leases import Ask
from tests.integration.gateway.stage import (
    ASKED,
    CHAT,
    CHUNKED,
    JOB,
    STREAMED,
    LeaseEnd,
    Request,
    Stage,
    ask,
    chunk,
    client_of,
    error_in,
    event,
    loading,
    refusal,
    run,
)
from tests.integration.house import until


def test_a_request_gets_the_engine_s_answer_and_its_bytes_arrive_unchanged(tmp_path: Path) -> None:
    body = b'{ "model":"bee",\n "messages":[], "seed": 1e2 }'

    async def act(stage: Stage) -> None:
        status, headers, content = await ask(
            stage, body, Authorization="Bearer sk-none", Content_Type="application/json", X_Stainless="1"
        )

        assert status == 200
        assert json.loads(content)["choices"][0]["message"]["content"] == "I am bee."
        assert headers["content-type"] == "application/json"
        assert "server" not in headers
        assert "keep-alive" not in headers
        assert "access-control-allow-origin" not in headers
        (request,) = stage.engine.requests
        assert request.line == f"POST {CHAT} HTTP/1.1"
        assert request.body == body
        assert request.headers["x-stainless"] == "1"
        assert request.headers["host"] == "localhost"
        assert "authorization" not in request.headers
        (asked,) = stage.queen.asks
        assert asked == Ask("bee", headers["x-request-id"], 10_000, uid=os.getuid())

    run(tmp_path, act)


def test_each_delta_arrives_at_once(tmp_path: Path) -> None:
    may_go_on = asyncio.Event()

    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("one")))
            await may_go_on.wait()
            writer.write(chunk(event("two")) + b"0\r\n\r\n")

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            assert (await client.head())[0] == 200
            assert await client.chunk() == event("one")
            may_go_on.set()
            assert await client.chunk() == event("two")
            assert await client.chunk() == b""
            await client.send("POST", CHAT, ASKED)  # on the same connection
            assert (await client.answer())[0] == 200

    run(tmp_path, act)


def test_a_large_body_arrives_whole(tmp_path: Path) -> None:
    image = "data:image/png;base64," + "QUJD" * 2_000_000

    async def act(stage: Stage) -> None:
        status, _, _ = await ask(stage, {"image": image, **ASKED})
        assert status == 200
        assert json.loads(stage.engine.requests[0].body)["image"] == image

    run(tmp_path, act)


def test_an_engine_s_refusal_is_passed_on(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(b'HTTP/1.1 500 Oh\r\nContent-Length: 14\r\n\r\n{"error":"oh"}')

        stage.engine.play = play
        status, _, content = await ask(stage)
        assert (status, content) == (500, b'{"error":"oh"}')

    run(tmp_path, act)


def test_an_engine_that_dies_in_the_middle_ends_the_stream_with_an_error_and_without_its_end(
    tmp_path: Path,
) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("I am")))

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            assert await client.chunk() == event("I am")
            error = error_in((await client.chunk()).removeprefix(b"data: "))
            assert error["type"] == "server_error"
            assert "bee-1" in error["message"]
            assert "rbeectl status bee" in error["message"]
            assert await client.reader.read() == b""  # cut, and no last chunk
        assert len(stage.tape.of("engine-broke")) == 1

    run(tmp_path, act)


def test_an_engine_that_dies_before_it_answers_is_an_error(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        stage.engine.play = play
        status, _, content = await ask(stage)
        assert status == 502
        assert error_in(content)["code"] == "disconnected"

    run(tmp_path, act)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 999 Oh\r\nContent-Length: 2\r\n\r\noh",
    ],
    ids=lambda answer: repr(answer[:15]),
)
def test_an_engine_that_does_not_speak_http_is_an_error(tmp_path: Path, answer: bytes) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await reader.read()

        stage.engine.play = play
        status, _, content = await ask(stage)
        assert status == 502
        assert error_in(content)["type"] == "server_error"

    run(tmp_path, act)


def test_a_client_that_leaves_ends_its_lease_and_the_engine_s_work(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        left = asyncio.Event()

        async def play(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("I")))
            assert await reader.read() == b""
            left.set()

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
        await left.wait()
        await until(lambda: not stage.queen.held)

    run(tmp_path, act)


def test_a_client_that_leaves_while_it_waits_ends_its_ask(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(loading(1.0))

        stage.queen.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, ASKED)
            await until(lambda: bool(stage.queen.held))
        await until(lambda: not stage.queen.held)

    run(tmp_path, act)


def test_a_refusal_says_what_to_do_and_when(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(ask: Ask, lease: LeaseEnd) -> None:
            if ask.model == "bee":
                error = TooMany("bee needs 5.1 GiB, and gpu0 has 2.0 GiB free", hint="rbeectl place bee")
                await lease.send(loading(62.0), refusal(error, 7))
            else:
                await lease.send(refusal(UnknownModel("there is no model 'ant'", hint="rbeectl model list")))

        stage.queen.play = play
        status, headers, content = await ask(stage)
        assert (status, headers["retry-after"]) == (503, "7")
        assert error_in(content)["message"] == (
            "bee needs 5.1 GiB, and gpu0 has 2.0 GiB free; try: rbeectl place bee"
        )
        ((text, fields),) = stage.tape.of("request-refused")
        assert "5.1 GiB" in text
        assert fields["job_id"] == JOB
        status, headers, content = await ask(stage, {**ASKED, "model": "ant"})
        assert status == 404
        assert error_in(content)["code"] == "model_not_found"
        assert len(stage.tape.of("request-refused")) == 1  # not that of a request that did not wait

    run(tmp_path, act)


def test_a_lease_that_the_queen_ends_ends_the_stream(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("I")))
            await reader.read()

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            assert await client.chunk() == event("I")
            (lease,) = stage.queen.held
            await lease.send(refusal(HiveFailed("bee is being stopped")))
            assert "bee is being stopped" in (await client.chunk()).decode()

    run(tmp_path, act)


def test_a_slow_reader_costs_only_itself_and_holds_the_engine_back(tmp_path: Path) -> None:
    sent = 0

    async def act(stage: Stage) -> None:
        async def play(request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            if b"slow" not in request.body:
                writer.write(CHUNKED + chunk(event("quick")) + b"0\r\n\r\n")
                return
            writer.write(CHUNKED)
            for _ in range(400):
                writer.write(chunk(b"x" * 65_536))
                sent += 65_536
                await writer.drain()
            writer.write(b"0\r\n\r\n")

        stage.engine.play = play
        async with client_of(stage) as slow:
            await slow.send("POST", CHAT, {**STREAMED, "user": "slow"})
            before = -1
            while before != sent or not sent:  # until the engine waits
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 2**21  # what sockets and the gateway keep, of 26 MB
            assert (await ask(stage, STREAMED))[2] == event("quick")
            _, _, content = await slow.answer()
            assert len(content) == 400 * 65_536

    run(tmp_path, act)


def test_twenty_streams_at_once_keep_up(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED)
            for number in range(50):
                writer.write(chunk(event(str(number))))
                await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")

        stage.engine.play = play
        began = time.monotonic()
        answers = await asyncio.gather(*(ask(stage, STREAMED) for _ in range(20)))
        assert time.monotonic() - began < 10
        assert {content for _, _, content in answers} == {b"".join(event(str(one)) for one in range(50))}

    run(tmp_path, act)


def test_a_gateway_that_stops_ends_its_streams_with_an_error(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("I")))
            await reader.read()

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            assert await client.chunk() == event("I")
            stage.stop.set()
            assert error_in((await client.chunk()).removeprefix(b"data: "))["code"] == "stopping"
            await stage.server_task

    run(tmp_path, act)


def test_anthropic_s_clients_get_their_kind_of_error(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(b"event: ping\ndata: {}\n\n"))

        stage.engine.play = play
        async with client_of(stage) as client:
            await client.send("POST", "/v1/messages", STREAMED)
            await client.head()
            await client.chunk()
            name, data = (await client.chunk()).decode().strip().split("\n")
            assert name == "event: error"
            assert json.loads(data.removeprefix("data: "))["type"] == "error"

    run(tmp_path, act)
