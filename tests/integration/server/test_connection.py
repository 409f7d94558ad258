"""Clients that send too much, too slowly or nothing, and that do not read: each is told, and none is kept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from rbee.server import connection, uvicorn
from rbee.server.app import build_app
from rbee.server.connection import BODY_LIMIT, FRAMING_LIMIT, HEAD_LIMIT, PIPELINE_LIMIT, Connection
from rbee.server.limits import Bound
from rbee.server.requests import read_shape
from rbee.server.responses import event_stream
from rbee.server.uvicorn import serve
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.hives import AddHive
from rbee.wire.jobs import JobStarted
from rbee.wire.routes import QueenRoutes
from tests.integration.listening import listen
from tests.integration.unix_http import TIMEOUT, Answer, nothing, post, raw, read_answer, request, served
from tests.unit.wait import until

SOON = 0.05
JOB = "7" * 32
EVENTS = f"/v1/jobs/{JOB}/events"


async def health(_request: Request) -> Health:
    return Health("ok", "1")


async def add_hive(request: Request) -> JobStarted:
    asked = await read_shape(request, AddHive)
    return JobStarted(asked.host, JOB, "/")


async def endless() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    await asyncio.Event().wait()


async def events(_request: Request) -> Response:
    return event_stream(endless())


def no_answer(_peer: object, _body: bytes) -> None:
    return None


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


@pytest.fixture(params=[{}, {QueenRoutes.ADD_HIVE: no_answer}], ids=["the app", "no quick answer"])
def quick(request: pytest.FixtureRequest) -> Any:
    """Quick answers, of which none is found: the app has to get each request as it came."""
    return request.param


@pytest.fixture
def talk(tmp_path: Path, silent_notifier: Notifier, quick: Any) -> Callable[[Talk], Awaitable[Any]]:
    """What a client on a connection of its own makes of the server, which it must find as it left it."""

    async def talk(client: Talk) -> Any:
        app = build_app(
            "a test",
            "1",
            {
                QueenRoutes.HEALTH: health,
                QueenRoutes.ADD_HIVE: add_hive,
                QueenRoutes.EVENTS: events,
                QueenRoutes.OPENAPI: health,
            },
        )
        async with served(app, tmp_path / "s", silent_notifier, quick=quick):
            before = descriptors()
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            try:
                result = await client(reader, writer)
            finally:
                writer.close()
            assert (await raw(tmp_path / "s", request("GET", "/health", Connection="close"))).status == 200
            await until(lambda: descriptors() == before)
            return result

    return talk


def descriptors() -> int:
    """How many are open, without those that nobody can reach any more: earlier tests may have left some."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def refusal(told: bytes) -> Any:
    """The one problem document that the connection ended with."""
    head, _, content = told.partition(b"\r\n\r\n")
    status, *lines = head.decode().lower().split("\r\n")
    assert "content-type: application/problem+json" in lines
    assert "connection: close" in lines
    problem = json.loads(content)
    assert status.startswith(f"http/1.1 {problem['status']} ")
    return problem


def sending(*parts: bytes) -> Talk:
    """A client that sends these, one after the other, and reads to the end."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        with contextlib.suppress(ConnectionError):  # it is told why
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)
        return await to_the_end(reader)

    return client


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes; a server that closes before it has read all resets the connection after its answer."""
    told = b""
    async with asyncio.timeout(TIMEOUT):
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                told += part
    return told


# Too slow


def slow(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float = SOON) -> None:
    monkeypatch.setattr(connection, name, seconds)


async def test_who_connects_and_says_nothing_is_told_so_and_sent_away(
    talk: Callable[[Talk], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "HEAD_TIMEOUT")

    problem = refusal(await talk(sending()))

    assert (problem["status"], problem["type"]) == (408, "urn:rbee:problem:too-slow")
    assert problem["detail"] == "the request's head did not arrive within 0.05 s"


async def test_a_byte_now_and_then_does_not_prolong_the_time_for_a_head(
    talk: Callable[[Talk], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "HEAD_TIMEOUT", 0.1)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        async def drip() -> None:
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Drip: ")
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        told = await to_the_end(reader)
        dripping.cancel()
        return told

    assert refusal(await talk(client))["status"] == 408


async def test_the_head_of_a_further_request_has_its_time_from_its_first_byte(
    talk: Callable[[Talk], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "HEAD_TIMEOUT", 0.2)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for _ in range(2):
            writer.write(request("GET", "/health"))
            await asyncio.wait_for(read_answer(reader), TIMEOUT)
            await asyncio.sleep(0.25)  # an idle connection has more time
        writer.write(b"GET ")
        return await asyncio.wait_for(reader.read(), TIMEOUT)

    assert refusal(await talk(client))["status"] == 408


async def test_a_body_that_does_not_arrive_is_not_waited_for(
    talk: Callable[[Talk], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "BODY_TIMEOUT")

    problem = refusal(await talk(sending(request("POST", "/add-hive", Content_Length="10") + b"{", b"}")))

    assert (problem["status"], problem["type"]) == (408, "urn:rbee:problem:too-slow")
    assert problem["detail"] == "the request's body did not arrive within 0.05 s"


async def test_a_body_that_nobody_reads_and_that_does_not_end_ends_the_connection_without_a_second_answer(
    talk: Callable[[Talk], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "BODY_TIMEOUT")

    told = await talk(sending(request("GET", "/health", Content_Length="10") + b"{", b"}"))

    assert told.startswith(b"HTTP/1.1 200")
    assert told.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(("daemons", "is_kept"), [((), False), ((os.geteuid(),), True)])
async def test_an_idle_connection_is_closed_but_a_daemons(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, daemons: Any, is_kept: bool
) -> None:
    slow(monkeypatch, "IDLE_TIMEOUT")

    told_to_stop, ready = asyncio.Event(), asyncio.Event()
    with listen(tmp_path / "s") as listener:
        app = build_app("a test", "1", {QueenRoutes.HEALTH: health})
        serving = asyncio.ensure_future(
            serve(
                app, [listener], silent_notifier, told_to_stop, daemons=daemons,
                status=lambda: "", started=ready.set, stopping=nothing,
            )
        )  # fmt: skip
        await asyncio.wait_for(ready.wait(), TIMEOUT)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", "/health"))
        await asyncio.wait_for(read_answer(reader), TIMEOUT)
        try:
            async with asyncio.timeout(TIMEOUT if not is_kept else 5 * SOON):
                assert await reader.read() == b""
            is_open = False
        except TimeoutError:
            is_open = True
        writer.close()
        told_to_stop.set()
        await asyncio.wait_for(serving, TIMEOUT)
    assert is_open is is_kept


# Too large


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([request("GET", "/health", X="a" * HEAD_LIMIT)], id="at once"),
        pytest.param([request("GET", "/" + "a" * HEAD_LIMIT)], id="a long path"),
        pytest.param([b"GET /health HTTP/1.1\r\nX: ", *[b"a" * 4096] * 9], id="a header without an end"),
        pytest.param([b"GET /health HTTP/1.1\r\n", *[b"X: a\r\n" * 500] * 12], id="headers without an end"),
        pytest.param([b"\r\n" * 4096] * 5, id="nothing but empty lines"),
    ],
)
async def test_a_head_that_is_too_large_is_refused(
    talk: Callable[[Talk], Awaitable[Any]], parts: list[bytes]
) -> None:
    problem = refusal(await talk(sending(*parts)))

    assert (problem["status"], problem["type"]) == (431, "urn:rbee:problem:head-too-large")
    assert problem["hint"] == f"Send at most {HEAD_LIMIT} bytes of them."


async def test_a_head_up_to_the_limit_is_taken_in_parts_and_with_a_large_body(
    talk: Callable[[Talk], Awaitable[Any]],
) -> None:
    body = json.dumps({"host": "a"}).encode().ljust(BODY_LIMIT)
    asked = request("POST", "/add-hive", body, X="a" * (HEAD_LIMIT - 200), Connection="close")

    told = await talk(sending(asked[:10_000], asked[10_000:31_000], asked[31_000:]))

    assert told.startswith(b"HTTP/1.1 202")


@pytest.mark.parametrize("path", ["/add-hive", EVENTS])
@pytest.mark.parametrize(
    "piece", [b"X: a\r\n" * 10_000, b"a" * 60_000], ids=["trailers without an end", "one without an end"]
)
async def test_what_trails_a_body_is_bounded_and_not_kept(
    talk: Callable[[Talk], Awaitable[Any]], path: str, piece: bytes
) -> None:
    begun = request("POST" if path == "/add-hive" else "GET", path, Transfer_Encoding="chunked")
    begun += b"2\r\n{}\r\n0\r\nX: "

    kept = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        nonlocal kept
        ending = asyncio.ensure_future(to_the_end(reader))
        with contextlib.suppress(ConnectionError):
            writer.write(begun)
            await until(lambda: len(connections()) == 1)
            (one,) = connections()
            for _ in range(2 * FRAMING_LIMIT // len(piece)):
                writer.write(piece)
                await writer.drain()
                kept = max(kept, len(one.headers or ()))
                if ending.done():
                    break
        return await ending

    told = await talk(client)

    assert kept < 10
    if path == "/add-hive":
        problem = refusal(told)
        # The parser of Debian 12 has a bound of its own for what trails a body.
        assert (problem["status"], problem["type"]) in (
            (413, "urn:rbee:problem:too-large"),
            (400, "urn:rbee:problem:bad-input"),
        )
    else:
        assert not told.endswith(b"0\r\n\r\n"), "a story that was cut must not look like one that ended"


def connections() -> list[Connection]:
    """Those that are open, or still in memory although they are not."""
    return [one for one in gc.get_objects() if isinstance(one, Connection)]


def open_connections() -> list[Connection]:
    return [one for one in connections() if one.transport is not None and not one.transport.is_closing()]


async def test_a_body_of_small_chunks_is_a_body(talk: Callable[[Talk], Awaitable[Any]]) -> None:
    body = json.dumps({"host": "a"}).encode().ljust(100_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = request("POST", "/add-hive", Transfer_Encoding="chunked", Connection="close")

    assert (await talk(sending(head, chunks))).startswith(b"HTTP/1.1 202")


async def test_requests_that_are_not_waited_for_are_bounded(talk: Callable[[Talk], Awaitable[Any]]) -> None:
    told = await talk(sending(request("GET", EVENTS) + request("GET", "/health") * (PIPELINE_LIMIT + 1)))

    # The story is cut: an answer to the last would be read as the first's.
    assert told.startswith(b"HTTP/1.1 200") or told == b""
    assert b"too-many" not in told


async def test_who_leaves_a_stream_with_a_request_behind_it_has_left_the_stream(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    ended = asyncio.Event()

    async def beating() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b": still here\n\n"
                await asyncio.sleep(SOON / 5)
        finally:
            ended.set()

    async def events(_request: Request) -> Response:
        return event_stream(beating())

    app = build_app("a test", "1", {QueenRoutes.EVENTS: events, QueenRoutes.HEALTH: health})
    async with served(app, tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", EVENTS) + request("GET", "/health"))
        await asyncio.wait_for(reader.readuntil(b"still here"), TIMEOUT)
        writer.close()
        await asyncio.wait_for(ended.wait(), TIMEOUT)


@pytest.mark.parametrize("behind", [b"", request("GET", "/health")], ids=["alone", "with one behind it"])
async def test_a_stream_that_nobody_takes_is_cut_off_at_the_stop_without_a_word_in_the_journal(
    tmp_path: Path,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    behind: bytes,
) -> None:
    monkeypatch.setattr(uvicorn, "GRACE", SOON)

    app = build_app("a test", "1", {QueenRoutes.EVENTS: events, QueenRoutes.HEALTH: health})
    async with served(app, tmp_path / "s", silent_notifier) as stop:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", EVENTS) + behind)
        await asyncio.wait_for(reader.readuntil(b"data: 1"), TIMEOUT)
        await stop()
        assert not (await asyncio.wait_for(reader.read(), TIMEOUT)).endswith(b"0\r\n\r\n")
        writer.close()

    assert caplog.records == []


async def test_a_few_requests_that_are_not_waited_for_are_answered_in_order(
    talk: Callable[[Talk], Awaitable[Any]],
) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[Answer]:
        writer.write((request("GET", "/health") + post("/add-hive", {"host": "a"})) * (PIPELINE_LIMIT // 2))
        return [await asyncio.wait_for(read_answer(reader), TIMEOUT) for _ in range(PIPELINE_LIMIT)]

    assert [answer.status for answer in await talk(client)] == [200, 202] * (PIPELINE_LIMIT // 2)


# Not HTTP


@pytest.mark.parametrize(
    "asked",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"hello\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbroken header\r\n\r\n",
        b"GET /h\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /add-hive HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        b"POST /add-hive HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
        b"POST /add-hive HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
        request("GET", "/health", Upgrade="websocket", Connection="Upgrade"),
        request("GET", "/health", Upgrade="h2c", Connection="Upgrade, HTTP2-Settings"),
        request("GET", "/health") + b"\x00garbage\r\n\r\n",
    ],
    ids=lambda asked: repr(asked[:40]),
)
async def test_what_is_not_http_is_answered_with_a_problem_document_and_no_line_in_the_journal(
    talk: Callable[[Talk], Awaitable[Any]], caplog: pytest.LogCaptureFixture, asked: bytes
) -> None:
    with caplog.at_level(logging.WARNING):
        problem = refusal(await talk(sending(asked)))

    assert (problem["status"], problem["type"]) == (400, "urn:rbee:problem:bad-input")
    assert caplog.records == []


async def test_garbage_after_a_story_began_does_not_end_up_in_the_story(
    talk: Callable[[Talk], Awaitable[Any]],
) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(request("GET", EVENTS))
        begun = await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), TIMEOUT)
        writer.write(b"\x00garbage\r\n\r\n")
        return begun + await to_the_end(reader)

    told = await talk(client)

    assert told.count(b"HTTP/1.1") == 1
    assert not told.endswith(b"0\r\n\r\n")


# Readers that do not read


async def test_a_reader_who_takes_nothing_is_cut_and_nothing_runs_ahead_for_it(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "SEND_TIMEOUT", 0.2)
    made = 0
    ended = asyncio.Event()

    async def story() -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def events(_request: Request) -> Response:
        return event_stream(story())

    app = build_app("a test", "1", {QueenRoutes.HEALTH: health, QueenRoutes.EVENTS: events})
    async with served(app, tmp_path / "s", silent_notifier):
        before = descriptors()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.sendall(request("GET", EVENTS))
            await asyncio.wait_for(ended.wait(), TIMEOUT)
            # The client's end is all that is left, and what the kernel holds for it is all that was made.
            await until(lambda: descriptors() == before + 1)
            assert made < 10
        assert (await raw(tmp_path / "s", request("GET", "/health"))).status == 200


async def test_an_answer_that_nobody_takes_does_not_hold_the_connection_when_it_is_closed(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "SEND_TIMEOUT", 0.2)

    async def large(_request: Request) -> Response:
        return Response(b"x" * 4 * 2**20)

    app = build_app("a test", "1", {QueenRoutes.HEALTH: large})
    async with served(app, tmp_path / "s", silent_notifier):
        before = descriptors()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.sendall(request("GET", "/health", Connection="close"))
            await until(lambda: descriptors() == before + 2)
            await until(lambda: descriptors() == before + 1)


async def test_a_reader_who_takes_its_time_but_reads_is_told_all(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "SEND_TIMEOUT", 0.5)

    async def story() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"#" * 65536

    async def events(_request: Request) -> Response:
        return event_stream(story())

    app = build_app("a test", "1", {QueenRoutes.EVENTS: events})
    async with served(app, tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"), limit=65536)
        writer.write(request("GET", EVENTS, Connection="close"))
        count = 0
        while part := await asyncio.wait_for(reader.read(131072), TIMEOUT):
            count += part.count(b"#")
            await asyncio.sleep(0.03)
        writer.close()
        assert count == 40 * 65536


# Too many


async def test_a_process_with_too_many_connections_is_told_so_at_once_and_gets_the_place_back(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "CONNECTIONS", Bound(total=10, kept=3, a_user=6, a_process=2))

    app = build_app("a test", "1", {QueenRoutes.HEALTH: health})
    async with served(app, tmp_path / "s", silent_notifier):
        held = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(2)]
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        told = await asyncio.wait_for(reader.read(), TIMEOUT)
        for _, other in (*held, (reader, writer)):
            other.close()

        async def is_served() -> bool:
            with contextlib.suppress(ConnectionError):
                return (await raw(tmp_path / "s", request("GET", "/health"))).status == 200
            return False

        await until(is_served)
        problem = refusal(told)

    assert (problem["status"], problem["type"]) == (503, "urn:rbee:problem:too-many")
    assert problem["detail"] == (
        f"2 connections are held by process {os.getpid()}, the limit for one process"
    )


async def test_more_clients_than_are_accepted_at_once_wait_and_are_served(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "ACCEPTED_AT_ONCE", 2)

    app = build_app("a test", "1", {QueenRoutes.HEALTH: health})
    async with served(app, tmp_path / "s", silent_notifier):
        asked = [raw(tmp_path / "s", request("GET", "/health")) for _ in range(100)]
        assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 100


async def test_nothing_is_kept_of_connections_that_are_gone(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    gc.collect()
    app = build_app("a test", "1", {QueenRoutes.HEALTH: health})
    async with served(app, tmp_path / "s", silent_notifier):
        for _ in range(50):  # kept alive, and closed by the client
            await raw(tmp_path / "s", request("GET", "/health"))

        def are_gone() -> bool:
            gc.collect()
            return len(connections()) <= 1

        await until(are_gone)
