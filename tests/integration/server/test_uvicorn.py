"""How serving begins and ends, and what systemd is notified of meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from rbee.server import uvicorn
from rbee.server.responses import event_stream
from rbee.server.uvicorn import serve
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import QueenRoutes
from tests.integration.listening import listen
from tests.integration.server.example import JOB, app
from tests.integration.unix_http import TIMEOUT, nothing, raw, read_answer, request, served
from tests.unit.notified import heard


async def two_then_wait() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"
    await asyncio.Event().wait()


async def test_systemd_hears_ready_then_stopping_then_stopped(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    async with served(app(), tmp_path / "s", notifier):
        await raw(tmp_path / "s", request("GET", "/health"))
        before = heard(systemd_socket)

    assert before == [b"READY=1\nSTATUS=all is well"]
    assert heard(systemd_socket) == [b"STOPPING=1\nSTATUS=stopping", b"STATUS=stopped"]


async def test_who_connects_as_soon_as_ready_is_said_is_served(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    systemd_socket.setblocking(False)
    told_to_stop = asyncio.Event()
    with listen(tmp_path / "s") as listener:
        serving = asyncio.ensure_future(
            serve(
                app(), [listener], notifier, told_to_stop,
                status=lambda: "", started=lambda: None, stopping=nothing,
            )
        )  # fmt: skip
        ready = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(systemd_socket, 4096), TIMEOUT)
        assert ready.startswith(b"READY=1")
        answer = await raw(tmp_path / "s", request("GET", "/health"))
        told_to_stop.set()
        await asyncio.wait_for(serving, TIMEOUT)
    assert answer.status == 200


async def test_a_socket_that_cannot_be_served_is_never_called_ready(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    began = False

    def started() -> None:
        nonlocal began
        began = True

    left, right = socket.socketpair()
    with left, right, pytest.raises(OSError, match="Invalid argument"):
        await serve(
            app(), [left], notifier, asyncio.Event(),
            status=lambda: "all is well", started=started, stopping=nothing,
        )  # fmt: skip

    assert not began
    assert [message for message in heard(systemd_socket) if b"READY" in message] == []


async def test_the_sockets_are_still_served_while_it_is_stopping(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    statuses = []

    async def stopping() -> None:
        statuses.append((await raw(tmp_path / "s", request("GET", "/health"))).status)

    async with served(app(), tmp_path / "s", silent_notifier, stopping=stopping):
        pass

    assert statuses == [200]


async def test_a_stream_ends_at_once_when_the_server_stops(tmp_path: Path, silent_notifier: Notifier) -> None:
    end = asyncio.Event()

    async def story() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await end.wait()
        yield b"data: end\n\n"

    async def events(_request: Request) -> Response:
        return event_stream(story())

    async def stopping() -> None:
        end.set()

    async with served(
        app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier, stopping=stopping
    ) as stop:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
        await asyncio.wait_for(reader.readuntil(b"data: 1"), TIMEOUT)
        began = asyncio.get_running_loop().time()
        await stop()
        took = asyncio.get_running_loop().time() - began
        told = await asyncio.wait_for(reader.read(), TIMEOUT)
        writer.close()
        await writer.wait_closed()

    assert b"data: end\n\n" in told
    assert told.endswith(b"0\r\n\r\n")
    assert took < uvicorn.GRACE


async def test_a_request_that_does_not_end_holds_the_server_for_its_grace_only(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "GRACE", 0.1)

    async def events(_request: Request) -> Response:
        return event_stream(two_then_wait())

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier) as stop:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
        await asyncio.wait_for(reader.readuntil(b"data: 2"), TIMEOUT)
        await stop()
        writer.close()


async def test_an_idle_connection_does_not_hold_the_server(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with served(app(), tmp_path / "s", silent_notifier) as stop:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", "/health"))
        await asyncio.wait_for(read_answer(reader), TIMEOUT)
        began = asyncio.get_running_loop().time()
        await stop()
        took = asyncio.get_running_loop().time() - began
        rest = await asyncio.wait_for(reader.read(), TIMEOUT)
        writer.close()
        await writer.wait_closed()

    assert rest == b""
    assert took < uvicorn.GRACE


async def test_the_watchdog_is_fed_while_it_serves(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async with served(app(), tmp_path / "s", notifier):
        systemd_socket.setblocking(False)
        fed = 0
        while fed < 3:
            message = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(systemd_socket, 4096), TIMEOUT
            )
            fed += message == b"WATCHDOG=1"
        assert fed == 3


async def test_without_a_watchdog_none_is_fed(
    tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)

    async with served(app(), tmp_path / "s", notifier):
        await raw(tmp_path / "s", request("GET", "/health"))

    assert b"WATCHDOG=1" not in heard(systemd_socket)
