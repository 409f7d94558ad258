"""The keeper's client, against the queen's own server and against one that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

import rbee.client.queen
from rbee.client.answers import ANSWER_LIMIT
from rbee.client.queen import FeedBlock, QueenClient, StoryEvent
from rbee.errors import (
    BadInput,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    TooMany,
    UnknownHive,
    Unreachable,
)
from rbee.server.app import Handler, build_app
from rbee.server.requests import read_shape
from rbee.server.responses import event_stream
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.hives import AddHive, Hives
from rbee.wire.jobs import JobStarted
from rbee.wire.routes import QueenRoutes, Route
from tests.integration.unix_http import playing, served
from tests.unit.wire_values import HIVE_VIEW

JOB = "7" * 32

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def app(handlers: dict[Route, Handler]) -> Router:
    return build_app("a test", "1", handlers)


async def with_app(
    handlers: dict[Route, Handler], path: Path, notifier: Notifier, ask: Callable[[], Any]
) -> Any:
    """What `ask`, which may block, gives while the app is served."""

    async with served(app(handlers), path, notifier):
        return await asyncio.to_thread(ask)


async def with_play(play: Play, path: Path, ask: Callable[[], Any]) -> Any:
    async with playing(path, play):
        return await asyncio.to_thread(ask)


def saying(answer: bytes) -> Play:
    """A server that says this to any request and hangs up."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    return play


def answer(content: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def story(*blocks: str) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(f"{len(block.encode()):x}\r\n{block}\r\n".encode() for block in blocks)


# Against the queen's own server


async def test_an_answer_comes_back_as_its_shape(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def hives(_request: Request) -> Hives:
        return Hives((HIVE_VIEW, HIVE_VIEW))

    told = await with_app(
        {QueenRoutes.HIVES: hives},
        tmp_path / "s",
        silent_notifier,
        lambda: QueenClient(tmp_path / "s").ask(QueenRoutes.HIVES),
    )

    assert told == Hives((HIVE_VIEW, HIVE_VIEW))


async def test_a_body_and_the_values_of_a_path_arrive(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def add(request: Request) -> JobStarted:
        asked = await read_shape(request, AddHive)
        return JobStarted(None, JOB, f"{asked.host} {asked.port}")

    async def remove(request: Request) -> JobStarted:
        return JobStarted(None, JOB, request.path_params["hive_id"])

    client = QueenClient(tmp_path / "s")
    added, removed = await with_app(
        {QueenRoutes.ADD_HIVE: add, QueenRoutes.REMOVE_HIVE: remove},
        tmp_path / "s",
        silent_notifier,
        lambda: (
            client.ask(QueenRoutes.ADD_HIVE, AddHive("größe 👑", 7)),
            client.ask(QueenRoutes.REMOVE_HIVE, hive_id="a b?c#d%2e\r\nX: y"),
        ),
    )

    assert added == JobStarted(None, JOB, "größe 👑 7")
    assert removed == JobStarted(None, JOB, "a b?c#d%2e\r\nX: y")


async def test_the_openapi_document_comes_back_as_it_is(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def never(_request: Request) -> Health:
        raise AssertionError

    told = await with_app(
        {QueenRoutes.OPENAPI: never},
        tmp_path / "s",
        silent_notifier,
        lambda: QueenClient(tmp_path / "s").ask(QueenRoutes.OPENAPI),
    )

    assert told["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    "error",
    [
        UnknownHive("no hive x", hint="rbeectl add-hive x", field="hive_id"),
        NotPermitted("not you"),
        TooMany("too much", hint="wait"),
        BadInput("port must be a whole number", field="port"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_comes_back_as_our_error(
    tmp_path: Path, silent_notifier: Notifier, error: RbeeError
) -> None:
    async def refuse(_request: Request) -> Health:
        raise error

    client = QueenClient(tmp_path / "s")
    for ask in (
        lambda: client.ask(QueenRoutes.HEALTH),
        lambda: list(client.tell_story(QueenRoutes.EVENTS, job_id=JOB)),
    ):
        with pytest.raises(type(error)) as caught:
            await with_app(
                {QueenRoutes.HEALTH: refuse, QueenRoutes.EVENTS: refuse},
                tmp_path / "s",
                silent_notifier,
                ask,
            )
        (tmp_path / "s").unlink()
        assert (caught.value.message, caught.value.hint, caught.value.field) == (
            error.message,
            error.hint,
            error.field,
        )


async def test_a_body_that_is_too_large_comes_back_as_the_queen_s_refusal(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async def add(request: Request) -> JobStarted:
        await read_shape(request, AddHive)
        raise AssertionError

    with pytest.raises(RbeeError, match="the body is larger than"):
        await with_app(
            {QueenRoutes.ADD_HIVE: add},
            tmp_path / "s",
            silent_notifier,
            lambda: QueenClient(tmp_path / "s").ask(QueenRoutes.ADD_HIVE, AddHive("x" * 10 * 2**20)),
        )


async def test_a_story_is_told_event_by_event_up_to_its_end(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'id: 0\nevent: job\ndata: {"job_id": "7"}\n\n'
        yield b": still here\n\n"
        yield b'id: 1\nevent: line\ndata: {"text": "a: b: '
        yield b'c"}\n\nid: 2\nevent: done\ndata: {"hive": null}\n\n'
        yield b"id: 3\nevent: line\ndata: {}\n\n"

    async def events(_request: Request) -> Response:
        return event_stream(chunks())

    told = await with_app(
        {QueenRoutes.EVENTS: events},
        tmp_path / "s",
        silent_notifier,
        lambda: list(QueenClient(tmp_path / "s").tell_story(QueenRoutes.EVENTS, job_id=JOB)),
    )

    assert told == [
        StoryEvent(0, "job", {"job_id": "7"}),
        StoryEvent(1, "line", {"text": "a: b: c"}),
        StoryEvent(2, "done", {"hive": None}),
    ]


async def test_a_line_is_heard_before_the_next_is_told(tmp_path: Path, silent_notifier: Notifier) -> None:
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"id: 1\nevent: line\ndata: {}\n\n"
        await go_on.wait()
        yield b"id: 2\nevent: done\ndata: {}\n\n"

    async def events(_request: Request) -> Response:
        return event_stream(chunks())

    def listen() -> list[int]:
        heard = []
        for event in QueenClient(tmp_path / "s", timeout=5).tell_story(QueenRoutes.EVENTS, job_id=JOB):
            heard.append(event.id)
            loop.call_soon_threadsafe(go_on.set)
        return heard

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        assert await asyncio.wait_for(asyncio.to_thread(listen), 5) == [1, 2]


async def test_a_story_that_just_ends_is_an_error(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"id: 1\nevent: line\ndata: {}\n\n"

    async def events(_request: Request) -> Response:
        return event_stream(chunks())

    heard: list[int] = []

    def listen() -> None:
        heard.extend(
            event.id for event in QueenClient(tmp_path / "s").tell_story(QueenRoutes.EVENTS, job_id=JOB)
        )

    with pytest.raises(Unreachable, match="in the middle of the story"):
        await with_app({QueenRoutes.EVENTS: events}, tmp_path / "s", silent_notifier, listen)


async def test_a_story_that_is_left_early_closes_its_connection(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    left = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"id: 1\nevent: line\ndata: {}\n\n"
            await asyncio.Event().wait()
        finally:
            left.set()

    async def events(_request: Request) -> Response:
        return event_stream(chunks())

    def listen() -> None:
        telling = QueenClient(tmp_path / "s").tell_story(QueenRoutes.EVENTS, job_id=JOB)
        assert next(telling).id == 1
        telling.close()  # type: ignore[attr-defined]

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        await asyncio.to_thread(listen)
        await asyncio.wait_for(left.wait(), 5)


# Nobody there


def test_a_missing_socket_means_that_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=f"nobody listens on {tmp_path}/s") as caught:
        QueenClient(tmp_path / "s").ask(QueenRoutes.HEALTH)

    assert "systemctl status" in (caught.value.hint or "")


def test_a_refused_connection_means_that_nobody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "s"))

    with pytest.raises(NotRunning, match="nobody listens"):
        list(QueenClient(tmp_path / "s").tell_story(QueenRoutes.SHUTDOWN))


@pytest.fixture
def nobody() -> Iterator[None]:
    """As somebody who is not root."""
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_that_is_not_open_to_you_says_so(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        os.chmod(tmp_path / "s", 0o660)
        request.getfixturevalue("nobody")
        with pytest.raises(NotPermitted, match="is not open to you"):
            QueenClient(tmp_path / "s").ask(QueenRoutes.HEALTH)


# A queen that misbehaves


def test_a_queen_who_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        began = time.monotonic()
        with pytest.raises(TimedOut, match=r"silent for 0.1 s"):
            QueenClient(tmp_path / "s", timeout=0.1).ask(QueenRoutes.HEALTH)
        with pytest.raises(TimedOut, match=r"silent for 0.1 s"):
            list(QueenClient(tmp_path / "s", timeout=0.1).tell_story(QueenRoutes.SHUTDOWN))
        took = time.monotonic() - began

    assert took < 2


async def test_a_queen_who_falls_silent_in_her_answer_is_not_waited_for(tmp_path: Path) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status"')
        await asyncio.Event().wait()

    with pytest.raises(TimedOut, match="silent for 1 s"):
        await with_play(
            play, tmp_path / "s", lambda: QueenClient(tmp_path / "s", timeout=1).ask(QueenRoutes.HEALTH)
        )


async def test_a_story_may_be_silent_for_longer_than_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.client.queen, "SILENCE", 0.2)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(story("event: line\ndata: {}\n\n"))
        await asyncio.Event().wait()

    began = time.monotonic()
    with pytest.raises(TimedOut, match="silent for 0.2 s"):
        await with_play(
            play,
            tmp_path / "s",
            lambda: list(QueenClient(tmp_path / "s", timeout=0.05).tell_story(QueenRoutes.SHUTDOWN)),
        )

    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"220 mail.example ESMTP\r\n\r\n",
        answer(b""),
        answer(b"<html>"),
        answer(b"\xff"),
        answer(b"[" * 100_000),
        answer(b"[]"),
        answer(b"{}"),
        answer(b'{"status": "dead", "version": "1"}'),
        answer(b"<html>", "502 Bad Gateway"),
        answer(b"[]", "500 Internal Server Error"),
    ],
    ids=lambda said: said[:60].decode("latin-1"),
)
async def test_an_answer_that_is_not_as_agreed_is_unreachable_and_no_fault_of_the_asker(
    tmp_path: Path, said: bytes
) -> None:
    with pytest.raises(Unreachable):
        await with_play(
            saying(said), tmp_path / "s", lambda: QueenClient(tmp_path / "s").ask(QueenRoutes.HEALTH)
        )


@pytest.mark.parametrize(
    "said",
    [
        story(),
        story("event: line\ndata: {}\n\n"),
        story("event: line\ndata: {}\n\n", "event: done\ndata: {}\n"),
        story("event: line\ndata: {not JSON}\n\n"),
        story("id: x\nevent: line\ndata: {}\n\n"),
        story("event: line\ndata: []\n\n"),
        story("words without sense\n\n"),
        answer(b'{"hive_id": null}', "202 Accepted"),
    ],
    ids=repr,
)
async def test_a_story_that_is_cut_short_or_no_story_is_unreachable(tmp_path: Path, said: bytes) -> None:
    def listen() -> list[StoryEvent]:
        told = list(QueenClient(tmp_path / "s").tell_story(QueenRoutes.SHUTDOWN))
        assert all(isinstance(event.data, dict) for event in told)
        return told

    with pytest.raises(Unreachable):
        await with_play(saying(said), tmp_path / "s", listen)


async def test_an_event_may_leave_out_the_space_after_its_colon(tmp_path: Path) -> None:
    told = await with_play(
        saying(story("id:1\nevent:done\ndata:{}\n\n")),
        tmp_path / "s",
        lambda: list(QueenClient(tmp_path / "s").tell_story(QueenRoutes.SHUTDOWN)),
    )

    assert told == [StoryEvent(1, "done", {})]


async def test_a_story_is_taken_however_its_bytes_are_cut(tmp_path: Path) -> None:
    first = 'id: 1\nevent: line\ndata: {"text": "größe 👑"}\n\n'
    text = (first + 'id: 2\nevent: done\ndata: {"hive": null}\n\n').encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in head + b"".join(b"1\r\n%c\r\n" % one for one in text) + b"0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()

    told = await with_play(
        play,
        tmp_path / "s",
        lambda: list(QueenClient(tmp_path / "s").tell_story(QueenRoutes.SHUTDOWN)),
    )

    assert told == [StoryEvent(1, "line", {"text": "größe 👑"}), StoryEvent(2, "done", {"hive": None})]


async def test_an_answer_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    long = answer(json.dumps({"status": "ok", "version": "x" * (ANSWER_LIMIT + 1)}).encode())

    with pytest.raises(Unreachable, match=f"larger than {ANSWER_LIMIT} bytes"):
        await with_play(
            saying(long), tmp_path / "s", lambda: QueenClient(tmp_path / "s").ask(QueenRoutes.HEALTH)
        )


async def test_an_event_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    long = story("data: " + "x" * (ANSWER_LIMIT + 1))

    with pytest.raises(Unreachable, match=f"larger than {ANSWER_LIMIT} bytes"):
        await with_play(
            saying(long),
            tmp_path / "s",
            lambda: list(QueenClient(tmp_path / "s").tell_story(QueenRoutes.SHUTDOWN)),
        )


# The feed


def watched(path: Path, **asked: Any) -> list[FeedBlock]:
    """The blocks of the feed up to its end."""
    blocks: list[FeedBlock] = []
    with contextlib.closing(QueenClient(path).watch(**asked)) as stream:
        blocks += stream.take()
        while not stream.is_ended:
            stream.receive()
            blocks += stream.take()
    return blocks


async def test_the_feed_is_asked_for_from_where_it_is_wanted(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    asked: list[tuple[str | None, dict[str, str]]] = []

    async def nothing_yet() -> AsyncIterator[bytes]:
        yield b"id: a-1\n\n"

    async def feed(request: Request) -> Response:
        asked.append((request.headers.get("Last-Event-ID"), dict(request.query_params)))
        return event_stream(nothing_yet())  # type: ignore[arg-type]

    def watch() -> None:
        for place in ({}, {"after": "a-7"}, {"since_ms": 0}, {"after": "a-7", "since_ms": 5}):
            assert watched(tmp_path / "s", **place) == [FeedBlock("a-1", "", {})]

    await with_app({QueenRoutes.FEED: feed}, tmp_path / "s", silent_notifier, watch)

    assert asked == [
        (None, {}), ("a-7", {}), (None, {"since_ms": "0"}), ("a-7", {"since_ms": "5"}),
    ]  # fmt: skip


async def test_the_feed_is_taken_however_its_bytes_are_cut(tmp_path: Path) -> None:
    text = 'id: a-1\n\n: still here\n\nid: a-2\nevent: narrated\ndata: {"text": "größe 👑"}\n\n'.encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in head + b"".join(b"1\r\n%c\r\n" % one for one in text) + b"0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()

    blocks = await with_play(play, tmp_path / "s", lambda: watched(tmp_path / "s"))

    assert blocks == [FeedBlock("a-1", "", {}), FeedBlock("a-2", "narrated", {"text": "größe 👑"})]


async def test_a_feed_that_is_refused_is_the_queens_refusal(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async def refuse(_request: Request) -> Response:
        raise TooMany("too many watch", hint="wait")

    with pytest.raises(TooMany, match="too many watch"):
        await with_app(
            {QueenRoutes.FEED: refuse}, tmp_path / "s", silent_notifier, lambda: watched(tmp_path / "s")
        )


@pytest.mark.parametrize(
    "said",
    [
        story("id: a-1\n\n"),
        story("id: a-1\nevent: narrated\ndata: {not JSON}\n\n"),
        story("id: a-1\nevent: narrated\ndata: []\n\n"),
        story("id: " + "x" * (ANSWER_LIMIT + 1)),
        answer(b"<html>", "502 Bad Gateway"),
    ],
    ids=["cut short", "no JSON", "no object", "without an end", "no problem document"],
)
async def test_a_feed_that_breaks_or_is_none_is_unreachable(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(Unreachable):
        await with_play(saying(said), tmp_path / "s", lambda: watched(tmp_path / "s"))


async def test_ctrl_c_while_an_answer_is_parsed_is_no_fault_of_the_queen_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser makes an error of its own of what is raised in its callbacks, where a signal may come."""

    def interrupted(_answer: object, _part: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rbee.client.queen._Answer, "on_body", interrupted)

    def ask() -> str:
        try:
            QueenClient(tmp_path / "s").ask(QueenRoutes.HIVES)
        except KeyboardInterrupt:
            return "interrupted"
        return "answered"

    assert await with_play(saying(answer(b'{"hives": []}')), tmp_path / "s", ask) == "interrupted"
