"""Answers to HTTP/1.0, as a client reads them; those of the gateway are in its own test_app.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from rbee.server.responses import event_stream
from rbee.server.streams import Growth, Reading
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import QueenRoutes
from tests.integration.server.example import JOB, app
from tests.integration.unix_http import TIMEOUT, request, served


async def test_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    growth, lines = Growth(), [b"data: 0\n\n"]

    def unread() -> Iterator[bytes]:
        while lines:
            yield lines.pop(0)

    is_ended = asyncio.Event()

    async def events(_request: Request) -> Response:
        return event_stream(Reading(growth, unread, is_ended.is_set))

    async with served(app({QueenRoutes.EVENTS: events}), tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        asked = request("GET", f"/v1/jobs/{JOB}/events", Connection="keep-alive")
        writer.write(asked.replace(b"HTTP/1.1", b"HTTP/1.0"))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        assert b"transfer-encoding" not in head
        assert b"\r\nconnection: close\r\n" in head
        assert await asyncio.wait_for(reader.readexactly(9), TIMEOUT) == b"data: 0\n\n"
        for number in (1, 2):  # while it waits
            lines.append(b"data: %d\n\n" % number)
            growth.announce()
            assert await asyncio.wait_for(reader.readexactly(9), TIMEOUT) == b"data: %d\n\n" % number
        is_ended.set()
        growth.announce()
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        writer.close()
        await writer.wait_closed()
