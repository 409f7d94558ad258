"""Quick answers: a client gets what the app would have sent, and no limit of a connection is lost.

That the app gets what no quick answer is found for, test_connection.py shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from rbee.server import connection
from rbee.server.app import build_app
from rbee.server.connection import HEAD_LIMIT
from rbee.server.quick import QUICK_BYTES
from rbee.server.requests import read_shape
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.heartbeats import HeartbeatAck
from rbee.wire.hives import AddHive
from rbee.wire.routes import QueenRoutes
from tests.integration.unix_http import TIMEOUT, Answer, post, raw, read_answer, request, served

ACK = HeartbeatAck("ok", 15000)


class Server:
    """`slow` and `quick` count who has answered; a body that has "app" in it is the app's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slow = 0
        self.quick = 0

    async def in_app(self, request: Request) -> HeartbeatAck:
        await read_shape(request, AddHive)
        self.slow += 1
        return ACK

    def at_once(self, _peer: object, body: bytes) -> HeartbeatAck | None:
        if b"app" in body:
            return None
        self.quick += 1
        return ACK

    async def exchange(self, sent: bytes, answers: int) -> list[Answer]:
        """What is answered on one connection to these bytes."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(sent)
        try:
            async with asyncio.timeout(TIMEOUT):
                return [await read_answer(reader) for _ in range(answers)]
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def a_server(tmp_path: Path, notifier: Notifier) -> AsyncIterator[Server]:
    async def health(_request: Request) -> Health:
        return Health("ok", "1")

    server = Server(tmp_path / "s")
    app = build_app("a test", "1", {QueenRoutes.HEARTBEAT: server.in_app, QueenRoutes.HEALTH: health})
    async with served(
        app,
        server.path,
        notifier,
        quick={QueenRoutes.HEARTBEAT: lambda peer, body: server.at_once(peer, body)},
    ):
        yield server


QUICK = post("/heartbeat", {"host": "quick"})
APP = post("/heartbeat", {"host": "app"})
HEALTH = request("GET", "/health")


async def test_a_quick_answer_is_the_app_s(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_server(tmp_path, silent_notifier) as server:
        quick, slow = [await raw(server.path, one) for one in (QUICK, APP)]
        assert (server.quick, server.slow) == (1, 1)
    for answer in (quick, slow):
        assert answer.headers.pop("date")
    assert quick == slow
    assert list(quick.headers) == list(slow.headers)


async def test_quick_answers_and_others_come_in_the_order_of_the_requests(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    sent = QUICK + QUICK + HEALTH + QUICK + APP + QUICK + HEALTH
    async with a_server(tmp_path, silent_notifier) as server:
        answers = await server.exchange(sent, 7)
        assert server.quick + server.slow == 5
    kinds = ["health" if "version" in answer.json else "ack" for answer in answers]
    assert kinds == ["ack", "ack", "health", "ack", "ack", "ack", "health"]


async def test_a_request_may_come_byte_by_byte(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_server(tmp_path, silent_notifier) as server:
        for sent in (QUICK, APP):
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            for index in range(len(sent)):
                writer.write(sent[index : index + 1])
                await asyncio.sleep(0)
            assert (await asyncio.wait_for(read_answer(reader), TIMEOUT)).status == 200
            writer.close()
        assert (server.quick, server.slow) == (1, 1)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(post("/heartbeat", {"host": "a"}, Connection="close"), id="close"),
        pytest.param(QUICK.replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(post("/heartbeat", {"host": "a", "b": "x" * QUICK_BYTES}), id="large"),
        pytest.param(QUICK.replace(b"/heartbeat", b"/heartbeat?a=b"), id="query"),
    ],
)
async def test_what_is_not_plain_is_the_app_s(tmp_path: Path, silent_notifier: Notifier, sent: bytes) -> None:
    async with a_server(tmp_path, silent_notifier) as server:
        assert (await raw(server.path, sent)).status == 200
        assert (server.quick, server.slow) == (0, 1)


async def test_another_method_is_refused_by_the_app(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_server(tmp_path, silent_notifier) as server:
        assert (await raw(server.path, QUICK.replace(b"POST", b"PUT"))).status == 405


async def test_a_head_that_is_too_large_is_refused(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_server(tmp_path, silent_notifier) as server:
        answer = await raw(server.path, post("/heartbeat", {"host": "a"}, X="a" * HEAD_LIMIT))
        assert answer.status == 431
        assert server.quick == 0


async def test_a_client_that_reads_no_answers_gets_no_more_of_them(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with a_server(tmp_path, silent_notifier) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(str(server.path))
            loop = asyncio.get_running_loop()

            async def send_on() -> None:
                while True:
                    await loop.sock_sendall(client, QUICK * 100)

            sending = asyncio.ensure_future(send_on())
            # It is refused, or nothing more is read of it: the kernel's buffers are what is filled.
            counts = [-1, 0]
            async with asyncio.timeout(TIMEOUT):
                while counts[-1] != counts[-2]:
                    await asyncio.wait((sending,), timeout=0.2)
                    counts.append(server.quick)
            sending.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await sending
        assert (await raw(server.path, HEALTH)).status == 200


async def test_a_connection_that_is_idle_after_a_quick_answer_is_closed(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 0.05)
    async with a_server(tmp_path, silent_notifier) as server:
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        for _ in range(2):
            writer.write(QUICK)
            assert (await asyncio.wait_for(read_answer(reader), TIMEOUT)).status == 200
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        writer.close()


@pytest.mark.parametrize("before", [b"", QUICK, APP], ids=["nothing", "a quick answer", "one of the app's"])
async def test_a_body_that_does_not_arrive_is_not_waited_for(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(connection, "BODY_TIMEOUT", 0.05)
    async with a_server(tmp_path, silent_notifier) as server:
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        if before:
            writer.write(before)
            assert (await asyncio.wait_for(read_answer(reader), TIMEOUT)).status == 200
        writer.write(QUICK[:-5])
        assert (await asyncio.wait_for(read_answer(reader), TIMEOUT)).status == 408
        writer.close()


async def test_a_quick_answer_that_fails_is_the_app_s(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_peer: object, _body: bytes) -> None:
        raise RuntimeError("an internal error")

    async with a_server(tmp_path, silent_notifier) as server:
        server.at_once = fail  # type: ignore[method-assign]
        assert (await raw(server.path, QUICK)).status == 200
        assert server.slow == 1
    assert "an internal error" in caplog.text


async def test_a_connection_is_idle_from_its_last_quick_answer_on(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 0.3)
    loop = asyncio.get_running_loop()
    async with a_server(tmp_path, silent_notifier) as server:
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        end = loop.time() + 1
        while loop.time() < end:
            writer.write(QUICK)
            assert (await asyncio.wait_for(read_answer(reader), TIMEOUT)).status == 200
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        writer.close()


async def test_further_quick_answers_start_no_further_timers(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, started = asyncio.get_running_loop(), 0
    call_at = loop.call_at

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal started
        started += 1
        return call_at(*arguments, **options)

    async with a_server(tmp_path, silent_notifier) as server:
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        for _ in range(5):
            writer.write(QUICK)
            assert (await read_answer(reader)).status == 200
            monkeypatch.setattr(loop, "call_at", counted)  # after the first
        assert (server.quick, started) == (5, 0)
        writer.close()
