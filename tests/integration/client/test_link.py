"""The daemons' kept connection, against the product's server and against one that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from rbee.client.answers import ANSWER_LIMIT
from rbee.client.link import HeartbeatClient, HiveClient, Link
from rbee.errors import BadInput, HiveFailed, NotRunning, RbeeError, TimedOut, UnknownHive, Unreachable
from rbee.server.app import Handler, build_app
from rbee.server.requests import read_shape
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.devices import Cpu, Devices
from rbee.wire.hives import Heartbeat, HeartbeatAck
from rbee.wire.routes import HiveRoutes, QueenRoutes, Route
from tests.integration.unix_http import playing, served

DEVICES = Devices(Cpu("a cpu", 1, 2, 4, 8 * 2**30))
BEAT = Heartbeat("localhost", "2026-01-31T12:00:00Z", (), "0" * 32)


@contextlib.asynccontextmanager
async def linked(path: Path, *, timeout: float = 5) -> AsyncIterator[Link]:
    link = Link(path, timeout=timeout)
    try:
        yield link
    finally:
        await link.close()


def app(handlers: dict[Route, Handler] | None = None) -> Starlette:
    async def health(_request: Request) -> Health:
        return Health("ok", "1")

    return build_app("a test", "1", {QueenRoutes.HEALTH: health, **(handlers or {})})


class Connections:
    """Plays a server that counts its connections and answers each request with the next answer."""

    def __init__(self, *answers: bytes) -> None:
        self.count = 0
        self._answers = list(answers)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if not self._answers:
                    await asyncio.Event().wait()
                writer.write(self._answers.pop(0))
                await writer.drain()


def answer(content: bytes = b'{"status": "ok", "version": "1"}', status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


# Keeping a connection


async def test_one_connection_is_kept_for_all_requests(tmp_path: Path) -> None:
    server = Connections(*[answer()] * 3)

    async with playing(tmp_path / "s", server), linked(tmp_path / "s") as link:
        assert [await link.ask(QueenRoutes.HEALTH) for _ in range(3)] == [Health("ok", "1")] * 3
    assert server.count == 1


async def test_requests_at_once_go_one_after_the_other_over_the_one_connection(tmp_path: Path) -> None:
    server = Connections(*[answer()] * 5)

    async with playing(tmp_path / "s", server), linked(tmp_path / "s") as link:
        assert len(await asyncio.gather(*(link.ask(QueenRoutes.HEALTH) for _ in range(5)))) == 5
    assert server.count == 1


async def test_it_is_open_after_a_request_and_no_more_once_the_server_is_gone(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with linked(tmp_path / "s") as link:
        before = link.is_open
        async with served(app(), tmp_path / "s", silent_notifier) as stop:
            await link.ask(QueenRoutes.HEALTH)
            during = link.is_open
            await stop()
        assert (before, during, link.is_open) == (False, True, False)


async def test_it_is_still_open_after_a_refusal(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def refuse(_request: Request) -> Health:
        raise UnknownHive("nobody knows you")

    async with (
        served(app({QueenRoutes.HEALTH: refuse}), tmp_path / "s", silent_notifier),
        linked(tmp_path / "s") as link,
    ):
        with pytest.raises(UnknownHive, match="nobody knows you"):
            await link.ask(QueenRoutes.HEALTH)
        assert link.is_open


async def test_it_is_not_open_while_a_request_is_under_way(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await asyncio.Event().wait()

    async with playing(tmp_path / "s", play), linked(tmp_path / "s") as link:
        asking = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH))
        await asyncio.wait_for(asked.wait(), 5)
        is_open = link.is_open
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not link.is_open, "who was cut off must not be taken up again"
        assert not is_open


async def test_a_server_that_came_back_is_reached_again(tmp_path: Path, silent_notifier: Notifier) -> None:
    told = []
    async with linked(tmp_path / "s") as link:
        for _ in range(2):
            async with served(app(), tmp_path / "s", silent_notifier):
                told.append(await link.ask(QueenRoutes.HEALTH))
            with pytest.raises(NotRunning):
                await link.ask(QueenRoutes.HEALTH)
            (tmp_path / "s").unlink()
    assert told == [Health("ok", "1")] * 2


# What goes wrong


async def failing(path: Path, play: Any, *, timeout: float = 5) -> RbeeError:
    """The error that a request meets with a server that plays so, and then a server that is well."""

    async with linked(path, timeout=timeout) as link:
        async with playing(path, play):
            with pytest.raises(RbeeError) as caught:
                await link.ask(QueenRoutes.HEALTH)
        path.unlink()
        async with playing(path, Connections(answer())):
            assert await link.ask(QueenRoutes.HEALTH) == Health("ok", "1"), "the link must recover"
        return caught.value


def saying(said: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    return play


async def test_a_missing_socket_and_a_refused_connection_mean_that_nobody_listens(tmp_path: Path) -> None:
    async with linked(tmp_path / "s") as link:
        with pytest.raises(NotRunning, match=f"nobody listens on {tmp_path}/s"):
            await link.ask(QueenRoutes.HEALTH)
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(tmp_path / "s"))
        with pytest.raises(NotRunning, match=f"nobody listens on {tmp_path}/s"):
            await link.ask(QueenRoutes.HEALTH)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"220 mail.example ESMTP\r\n\r\n",
        answer(b"<html>"),
        answer(b"[" * 100_000),
        answer(b"<html>", "502 Bad Gateway"),
        answer(b"[]", "500 Internal Server Error"),
        answer(b"[]"),
        answer(b'{"status": "dead"}'),
    ],
    ids=lambda said: said[:60].decode("latin-1"),
)
async def test_an_answer_that_is_not_as_agreed_is_unreachable(tmp_path: Path, said: bytes) -> None:
    assert type(await failing(tmp_path / "s", saying(said))) is Unreachable


async def test_an_answer_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    error = await failing(tmp_path / "s", saying(answer(b" " * (ANSWER_LIMIT + 1))))

    assert type(error) is Unreachable
    assert f"larger than {ANSWER_LIMIT} bytes" in error.message


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status"')
    await asyncio.Event().wait()


async def a_trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("play", [silence, half_an_answer, a_trickle], ids=lambda play: play.__name__)
async def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, play: Any) -> None:
    began = time.monotonic()

    error = await failing(tmp_path / "s", play, timeout=0.1)

    assert type(error) is TimedOut
    assert error.message == f"{tmp_path}/s did not answer within 0.1 s"
    assert time.monotonic() - began < 2


async def test_a_request_may_have_a_deadline_of_its_own(tmp_path: Path) -> None:
    async with playing(tmp_path / "s", silence), linked(tmp_path / "s", timeout=60) as link:
        with pytest.raises(TimedOut, match=r"within 0.05 s"):
            await link.ask(QueenRoutes.HEALTH, timeout=0.05)


# What is asked over it


async def test_a_hive_s_devices_come_back_and_the_job_goes_along(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    jobs = []

    async def devices(request: Request) -> Devices:
        jobs.append(request.headers.get("rbee-job-id"))
        return DEVICES

    async with (
        served(app({HiveRoutes.DEVICES: devices}), tmp_path / "s", silent_notifier),
        linked(tmp_path / "s") as link,
    ):
        hive = HiveClient(link)
        assert [await hive.devices(job_id=job_id, timeout=5) for job_id in ("7" * 32, None)] == [
            DEVICES,
            DEVICES,
        ]
    assert jobs == ["7" * 32, None]


@pytest.mark.parametrize("said", [answer(b'{"cpu": {}}'), answer(b"{}"), answer(b"[]")])
async def test_devices_that_are_not_as_agreed_are_the_hive_s_failure(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async with playing(tmp_path / "s", Connections(said)), linked(tmp_path / "s") as link:
            await HiveClient(link).devices(job_id=None, timeout=5)

    with pytest.raises((HiveFailed, Unreachable)) as caught:
        await scenario()
    assert not isinstance(caught.value, BadInput)


async def test_a_beat_goes_up_and_its_ack_comes_back(tmp_path: Path, silent_notifier: Notifier) -> None:
    beats = []

    async def heartbeat(request: Request) -> HeartbeatAck:
        beats.append(await read_shape(request, Heartbeat))
        return HeartbeatAck("ok", 15_000, "7" * 32)

    async with (
        served(app({QueenRoutes.HEARTBEAT: heartbeat}), tmp_path / "s", silent_notifier),
        linked(tmp_path / "s") as link,
    ):
        queen = HeartbeatClient(link)
        assert not queen.is_open
        assert (await queen.beat(BEAT), queen.is_open) == (HeartbeatAck("ok", 15_000, "7" * 32), True)
    assert beats == [BEAT]
