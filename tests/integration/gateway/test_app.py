"""The routes, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from rbee import __version__
from rbee.gateway import app as module
from tests.integration.gateway.stage import (
    ASKED,
    CHAT,
    STREAMED,
    Stage,
    ask,
    client_of,
    error_in,
    event,
    run,
)
from tests.integration.unix_http import post, raw, request


@pytest.mark.parametrize("path", sorted(module.PASSED))
def test_each_path_of_the_api_is_passed_on(tmp_path: Path, path: str) -> None:
    async def act(stage: Stage) -> None:
        assert (await ask(stage, path=f"{path}?beta=true"))[0] == 200
        assert stage.engine.requests[0].line == f"POST {path}?beta=true HTTP/1.1"

    run(tmp_path, act)


def test_models_are_those_that_the_queen_serves(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        status, _, content = await ask(stage, method="GET", path="/v1/models")
        bee = {"id": "bee", "object": "model", "created": 5, "owned_by": "rbee"}
        assert (status, json.loads(content)["data"]) == (200, [bee, {**bee, "id": "wasp"}])
        status, _, content = await ask(stage, method="GET", path="/v1/models/bee")
        assert (status, json.loads(content)) == (200, bee)
        status, _, content = await ask(stage, method="GET", path="/v1/models/ant")
        assert (status, error_in(content)["code"]) == (404, "model_not_found")

    run(tmp_path, act)


def test_health_and_metrics_are_the_gateway_s_own(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        _, _, content = await ask(stage, method="GET", path="/health")
        assert json.loads(content) == {"status": "ok", "version": __version__}
        await ask(stage)
        await ask(stage, {"model": "bee", "stream": True})
        await ask(stage, b"{}")
        _, headers, content = await ask(stage, method="GET", path="/metrics")
        assert headers["content-type"].startswith("application/openmetrics-text")
        lines = content.decode().splitlines()
        assert 'rbee_gateway_requests_total{model="bee",status="200"} 2.0' in lines
        assert 'rbee_gateway_requests_total{model="",status="400"} 1.0' in lines
        assert 'rbee_gateway_tokens_total{kind="completion",model="bee"} 6.0' in lines
        assert "rbee_gateway_requests_in_flight 0.0" in lines
        assert stage.queen.asks[1].model == "bee"
        assert len(stage.queen.asks) == 2

    run(tmp_path, act)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/nothing", None, 404, "no_such_route"),
        ("POST", "/", {}, 404, "no_such_route"),
        ("GET", CHAT, None, 405, "no_such_method"),
        ("DELETE", "/v1/models/bee", None, 405, "no_such_method"),
        ("POST", CHAT, b"", 400, "bad_input"),
        ("POST", CHAT, b"no", 400, "bad_input"),
        ("POST", CHAT, {"model": 7}, 400, "bad_input"),
    ],
)
def test_a_wrong_request_is_an_error_as_clients_read_it(
    tmp_path: Path, method: str, path: str, body: object, status: int, code: str
) -> None:
    async def act(stage: Stage) -> None:
        got, headers, content = await ask(stage, body, method=method, path=path)
        assert got == status
        assert headers["content-type"] == "application/json"
        error = error_in(content)
        assert (error["code"], error["type"]) == (code, "invalid_request_error")
        if status == 405:
            assert (headers["allow"] in ("GET", "POST"), error["param"]) == (True, None)

    run(tmp_path, act)


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: rbee\r\nContent-Length: {33 * 2**20}\r\n\r\n"
        answer = await raw(stage.path, head.encode())
        assert answer.status == 413
        assert error_in(answer.content)["code"] == "too_large"

    run(tmp_path, act)


def test_what_is_not_http_is_refused_in_the_same_shape(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        answer = await raw(stage.path, b"SSH-2.0\r\n\r\n")
        assert answer.status == 400
        assert error_in(answer.content)["type"] == "invalid_request_error"

    run(tmp_path, act)


def test_an_internal_error_is_an_answer_and_the_journal_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "models_object", fail)

    async def act(stage: Stage) -> None:
        status, _, content = await ask(stage, method="GET", path="/v1/models")
        assert (status, error_in(content)["message"]) == (
            500,
            "internal error. The journal has its traceback.",
        )
        async with client_of(stage) as client:
            await client.send("GET", "/health")
            assert (await client.answer())[0] == 200

    run(tmp_path, act)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("asked", "begin"),
    [
        (post(CHAT, ASKED), b'{"choices": '),
        (request("GET", "/v1/models"), b'{"object": "list"'),
        (request("HEAD", "/v1/models"), b""),
        (post(CHAT, {}), b'{"error": '),
    ],
    ids=["answer", "models", "head", "error"],
)
def test_http_1_0_gets_an_answer_of_known_length(tmp_path: Path, asked: bytes, begin: bytes) -> None:
    async def act(stage: Stage) -> None:
        async with client_of(stage) as client:
            client.writer.write(asked.replace(b"HTTP/1.1", b"HTTP/1.0"))
            _, headers = await client.head()
            got = await client.reader.read()
            assert got.startswith(begin)
            assert len(got) == (int(headers["content-length"]) if begin else 0)
            assert "transfer-encoding" not in headers

    run(tmp_path, act)


def test_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async with client_of(stage) as client:
            client.writer.write(post(CHAT, STREAMED).replace(b"HTTP/1.1", b"HTTP/1.0"))
            _, headers = await client.head()
            assert headers["connection"] == "close"
            assert not {"transfer-encoding", "content-length"} & set(headers)
            got = await client.reader.read()
            assert got.startswith(event("I") + event(" am") + event(" bee."))
            assert got.endswith(b"\n\ndata: [DONE]\n\n")

    run(tmp_path, act)


def test_http_1_0_gets_an_engine_s_answer_of_unknown_length(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: object, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + b"x" * 300_000)

        stage.engine.play = play
        async with client_of(stage) as client:
            client.writer.write(post(CHAT, ASKED).replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (await client.head())[0] == 200
            assert await client.reader.read() == b"x" * 300_000

    run(tmp_path, act)
