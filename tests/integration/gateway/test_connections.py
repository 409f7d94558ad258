"""Clients' connections: many of them, over TLS, and with an offer of another protocol."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from rbee.gateway.listeners import CERTIFICATE, KEY, sort_sockets
from rbee.scope import GATEWAY_TCP_SOCKETS, SYSTEM
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
from tests.integration.gateway.test_keys import BEARER, HASH
from tests.integration.unix_http import raw
from tests.self_signed import self_signed

H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
"""As curl and java.net.http send it."""


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The folder of a unit's credentials, with a certificate for 127.0.0.1."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, content in zip((CERTIFICATE, KEY), self_signed(), strict=True):
        (folder / name).write_text(content)
    return folder


def test_over_tls_a_key_gets_an_answer_and_no_key_does_not(tmp_path: Path, credentials: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listeners = sort_sockets({GATEWAY_TCP_SOCKETS: [listener]}, credentials, SYSTEM)
        context = ssl.create_default_context(cafile=credentials / CERTIFICATE)

        async def act(stage: Stage) -> None:
            stage.queen.keys[HASH] = ("bee",)
            async with client_of(listener.getsockname(), ssl=context) as client:
                await client.send("POST", CHAT, ASKED)
                status, _, content = await client.answer()
                assert (status, error_in(content)["code"]) == (401, "invalid_api_key")
                for offered in ({}, {"Connection": "Upgrade", "Upgrade": "h2c"}):
                    await client.send("POST", CHAT, ASKED, **BEARER, **offered)
                    assert (await client.answer())[0] == 200
            assert [asked.address for asked in stage.queen.asks] == ["127.0.0.1"] * 2
            async with client_of(listener.getsockname()) as client:  # plain HTTP
                await client.send("GET", "/v1/models", **BEARER)
                assert await client.reader.read() in (b"", b"\x15\x03\x03\x00\x02\x022")

        run(tmp_path, act, listeners=listeners)


def test_a_thousand_idle_clients_keep_nobody_from_being_answered(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))

    async def act(stage: Stage) -> None:
        idle = [await asyncio.open_unix_connection(stage.path) for _ in range(1000)]
        try:
            assert (await ask(stage))[0] == 200
        finally:
            for _, writer in idle:
                writer.close()

    try:
        run(tmp_path, act)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# With an offer of another protocol, after which the client continues with HTTP/1.1


def asking(method: str, path: str, content: bytes | None = None, **headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: rbee",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if content is not None:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + (content or b"")


def chunked(path: str, content: bytes, **headers: str) -> bytes:
    head = asking("POST", path, **headers, **{"Transfer-Encoding": "chunked"})
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"


BODY = json.dumps(ASKED).encode()


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (asking("GET", "/v1/models", **H2C), "bee"),
        (asking("GET", "/v1/models", b"", **H2C), "bee"),
        (asking("POST", CHAT, BODY, **H2C), "I am bee."),
        (chunked(CHAT, BODY, **H2C), "I am bee."),
        (asking("POST", CHAT, BODY, Connection="Upgrade", Upgrade="websocket"), "I am bee."),
    ],
    ids=["without a body", "with an empty body", "with a body", "with chunks", "to a websocket"],
)
@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_a_request_is_answered_as_if_it_offered_no_other_protocol(
    tmp_path: Path, asked: bytes, names: str, size: int
) -> None:
    async def act(stage: Stage) -> None:
        async with client_of(stage) as client:
            for _ in range(2):  # on one connection
                for begin in range(0, len(asked), size):
                    client.writer.write(asked[begin : begin + size])
                    await asyncio.sleep(0)
                status, _, content = await client.answer()
                assert status == 200
                assert names in content.decode()
        assert [request.body for request in stage.engine.requests] in ([], [BODY] * 2)
        assert not {"upgrade", "http2-settings"} & {
            name for one in stage.engine.requests for name in one.headers
        }

    run(tmp_path, act)


def test_requests_behind_it_are_answered_in_order(tmp_path: Path) -> None:
    offering, plain = asking("POST", CHAT, BODY, **H2C), asking("GET", "/v1/models")

    async def act(stage: Stage) -> None:
        async with client_of(stage) as client:
            client.writer.write((offering + plain) * 3 + asking("GET", "/v1/nothing", **H2C))
            statuses = [(await client.answer())[0] for _ in range(7)]
            assert statuses == [200] * 6 + [404]

    run(tmp_path, act)


def test_a_connection_that_is_to_be_closed_is(tmp_path: Path) -> None:
    headers = {**H2C, "Connection": "close, Upgrade, HTTP2-Settings"}

    async def act(stage: Stage) -> None:
        async with client_of(stage) as client:
            client.writer.write(asking("POST", CHAT, json.dumps(STREAMED).encode(), **headers))
            status, _, content = await client.answer()
            assert status == 200
            assert content.startswith(event("I"))

    run(tmp_path, act)


@pytest.mark.parametrize(
    "asked",
    [
        b"CONNECT example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        asking("POST", CHAT, **H2C, **{"Transfer-Encoding": "chunked"}) + b"hello\r\n",
        asking("POST", CHAT, **H2C, **{"Content-Length": "1x"}),
        asking("GET", "/v1/models", **H2C) + b"\x00garbage\r\n\r\n",
    ],
    ids=["a tunnel", "a tunnel to a path", "a chunk's size", "a length", "what follows"],
)
def test_what_is_no_request_is_refused_even_so(tmp_path: Path, asked: bytes) -> None:
    async def act(stage: Stage) -> None:
        answer = await raw(stage.path, asked)
        assert (answer.status, error_in(answer.content)["code"]) == (400, "bad_input")

    run(tmp_path, act)


def test_a_name_with_a_space_is_not_repeated_without_end(tmp_path: Path) -> None:
    """Debian's parser takes `Upgrade :` for the header, others refuse it."""

    async def act(stage: Stage) -> None:
        for space in (" ", "  ", "\t"):
            asked = asking("GET", "/v1/models", Connection="Upgrade", **{f"Upgrade{space}": "h2c"})
            assert (await raw(stage.path, asked)).status in (200, 400)

    run(tmp_path, act)


def test_the_limits_of_a_head_are_those_of_any_other(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        answer = await raw(stage.path, asking("GET", "/v1/models", **H2C, X="x" * 40_000))
        assert answer.status == 431
        async with client_of(stage) as client:
            client.writer.write(asking("GET", "/v1/models", **H2C) * 100)
            assert await client.reader.read() == b""  # too many at once: as any others, closed

    run(tmp_path, act)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("body", [None, ASKED, STREAMED], ids=["get", "post", "stream"])
def test_curl_that_offers_http2_gets_an_answer(tmp_path: Path, body: object) -> None:
    async def act(stage: Stage) -> None:
        url = "http://rbee/v1/models" if body is None else f"http://rbee{CHAT}"
        data = () if body is None else ("--data", json.dumps(body))
        curl = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--show-error", "--fail", "--http2", "--max-time", "10",
            "--unix-socket", str(stage.path), *data, url, url,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        shown, _ = await curl.communicate()
        assert curl.returncode == 0
        assert shown.count(b"bee") >= 2

    run(tmp_path, act)
