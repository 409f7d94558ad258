"""Event streams as a client reads them, and what an answer repeats of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from rbee.server.responses import event_stream
from rbee.server.streams import Growth, Reading
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import QueenRoutes
from tests.integration.server.example import JOB, app, ask
from tests.integration.unix_http import TIMEOUT, request, served


async def next_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT), 16)
    return (await asyncio.wait_for(reader.readexactly(size + 2), TIMEOUT))[:-2]


async def test_a_story_is_told_as_it_happens_and_ends_when_it_ends(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    go_on = asyncio.Event()

    async def story() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await go_on.wait()
        yield b"data: 2\n\n"

    async def events(_request: Request) -> Response:
        return event_stream(story())

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode().lower()
        chunks = [await next_chunk(reader)]
        go_on.set()
        chunks += [await next_chunk(reader), await next_chunk(reader)]
        writer.close()
        await writer.wait_closed()
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert "cache-control: no-store" in head
    assert "content-length" not in head
    assert chunks == [b"data: 1\n\n", b"data: 2\n\n", b""]


async def test_a_reader_who_leaves_ends_the_telling(tmp_path: Path, silent_notifier: Notifier) -> None:
    ended = asyncio.Event()

    async def story() -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def events(_request: Request) -> Response:
        return event_stream(story())

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
        await asyncio.wait_for(reader.readuntil(b"data: 1"), TIMEOUT)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(ended.wait(), TIMEOUT)


async def test_a_story_that_breaks_keeps_its_traceback_in_the_journal(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        raise ZeroDivisionError

    async def events(_request: Request) -> Response:
        return event_stream(story())

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
        told = await asyncio.wait_for(reader.read(), TIMEOUT)
        writer.close()
        await writer.wait_closed()

    assert b"data: 1" in told
    assert not told.endswith(b"0\r\n\r\n"), "a story that broke must not look like one that ended"
    assert ZeroDivisionError in [record.exc_info[0] for record in caplog.records if record.exc_info]


async def test_a_reader_who_stalls_misses_nothing_and_keeps_no_other_waiting(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    growth, lines = Growth(), [b"data: 0\n\n"]

    def reading() -> Reading:
        number = 0

        def unread() -> Iterator[bytes]:
            nonlocal number
            while number < len(lines):
                number += 1
                yield lines[number - 1]

        return Reading(growth, unread, lambda: lines[-1] == b"data: end\n\n")

    async def events(_request: Request) -> Response:
        return event_stream(reading())

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        # With a small limit a StreamReader stops reading from its socket.
        opened = [await asyncio.open_unix_connection(str(tmp_path / "s"), limit=256) for _ in range(2)]
        for reader, writer in opened:
            writer.write(request("GET", f"/v1/jobs/{JOB}/events"))
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            assert await next_chunk(reader) == lines[0]
        (stalled, _), (other, _) = opened
        for number in range(200):  # 800 KB, far more than a socket takes
            lines.append(b"data: %d %s\n\n" % (number, b"x" * 4000))
            growth.announce()
            assert await next_chunk(other) == lines[-1]
        lines.append(b"data: end\n\n")
        growth.announce()

        assert [await next_chunk(stalled) for _ in lines] == [*lines[1:], b""]
        assert [await next_chunk(other) for _ in range(2)] == [lines[-1], b""]
        for _, writer in opened:
            writer.close()
            await writer.wait_closed()


async def test_what_an_answer_repeats_of_a_request_is_escaped(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    (answer,) = await ask(tmp_path, silent_notifier, request("GET", "/%1B%5B2J%C2%9B%E2%80%AE%7F%C3%BC"))

    assert answer.json["detail"] == "there is nothing at /\x1b[2J\x9b\u202e\x7fü"
    assert answer.content.isascii()
    assert answer.content.decode().isprintable()
