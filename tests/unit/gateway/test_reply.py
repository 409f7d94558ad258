"""The answer to a client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rbee.errors import HiveFailed, TooMany
from rbee.gateway.reply import Reply


class Played:
    """The server's end of an answer."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_closed = False
        self.reply = Reply({"path": "/v1/completions", "rbee.close": self.close}, self.send, "id")

    def close(self) -> None:
        self.is_closed = True

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_an_error_before_the_head_is_an_answer() -> None:
    played = Played()

    await played.reply.fail(TooMany("it is full"))

    assert played.sent[0]["status"] == 503
    assert (b"retry-after", b"5") in played.sent[0]["headers"]
    assert (b"x-request-id", b"id") in played.sent[0]["headers"]
    assert json.loads(played.content)["error"]["message"] == "it is full"
    assert not played.is_closed


async def test_an_error_in_a_stream_is_its_last_event_and_cuts_it() -> None:
    played = Played()

    await played.reply.begin_events()
    await played.reply.comment("a\nb")
    await played.reply.fail(HiveFailed("it broke"))
    await played.reply.fail(HiveFailed("again"))

    comment, event = played.content.split(b"\n\n")[:2]
    assert comment == b": a b"
    assert json.loads(event.removeprefix(b"data: "))["error"]["message"] == "it broke"
    assert b"again" not in played.content
    assert played.is_closed
    assert all(message.get("more_body", True) for message in played.sent)  # without the proper end


@pytest.mark.parametrize(
    ("parts", "between"),
    [
        ([], b""),
        ([b'data: {"a":1}\n\n'], b""),
        ([b'data: {"a":1}\r\n\r\n'], b""),
        ([b'data: {"a":1}\r\r'], b""),
        ([b"data: 1\n", b"\n"], b""),
        ([b"data: 1\r\n", b"\r", b"", b"\n"], b""),
        ([b'data: {"a'], b"\n\n"),
        ([b'data: {"a":1}\n'], b"\n\n"),
        ([b'data: {"a":1}\r\n'], b"\n\n"),
        ([b"data: 1\n\n", b"d"], b"\n\n"),
    ],
)
async def test_an_error_is_an_event_of_its_own_wherever_the_stream_is_cut(
    parts: list[bytes], between: bytes
) -> None:
    played = Played()

    await played.reply.begin_events()
    for part in parts:
        await played.reply.part(part)
    await played.reply.fail(HiveFailed("it broke"))

    assert played.content.startswith(b"".join(parts) + between + b'data: {"error": ')


async def test_a_part_that_the_client_did_not_take_ends_no_event() -> None:
    played = Played()
    send = played.send

    async def never(_message: Any) -> None:
        await asyncio.Event().wait()

    await played.reply.begin_events()
    await played.reply.part(b'data: {"a')
    played.reply._send = never
    part = asyncio.ensure_future(played.reply.part(b'":1}\n\n'))
    await asyncio.sleep(0)
    part.cancel()
    played.reply._send = send
    await played.reply.fail(HiveFailed("it broke"))

    assert played.content.startswith(b'data: {"a\n\ndata: {"error": ')


async def test_an_error_in_any_other_answer_cuts_it_without_a_word() -> None:
    played = Played()

    await played.reply.head(200, [])
    await played.reply.part(b'{"half":')
    await played.reply.fail(HiveFailed("it broke"))

    assert played.content == b'{"half":'
    assert played.is_closed


async def test_nothing_follows_an_answer_that_is_complete() -> None:
    played = Played()

    await played.reply.whole(200, b"{}", "application/json")
    await played.reply.fail(HiveFailed("too late"))

    assert played.content == b"{}"
    assert not played.is_closed
