"""Reading bodies, with bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rbee.errors import BadInput, TooLarge, TooMany
from rbee.gateway import bodies
from rbee.gateway.bodies import Bodies, ClientGone


def read(held: Bodies, *parts: bytes, ends: bool = True, length: str | None = None) -> bytes:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": not ends or number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        return messages.pop(0)

    async def reading() -> bytes:
        headers = [] if length is None else [(b"content-length", length.encode())]
        with held.one() as body:
            await body.read({"headers": headers}, receive)
            assert held.held == len(body.content)
            return body.content

    try:
        return asyncio.run(reading())
    finally:
        assert held.held == 0


def test_a_body_is_read_in_parts_and_counted_while_it_is_held() -> None:
    assert read(Bodies(), b"ab", b"", b"cd") == b"abcd"


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientGone):
        read(Bodies(), b"ab", ends=False)


def test_a_request_without_a_body_is_refused() -> None:
    with pytest.raises(BadInput):
        read(Bodies(), b"")


def test_a_body_that_is_too_large_is_refused_before_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge):
        read(Bodies(), b"a", length=str(33 * 2**20))
    monkeypatch.setattr(bodies, "BODY_LIMIT", 3)
    with pytest.raises(TooLarge):
        read(Bodies(), b"ab", b"cd", b"ef")


def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODIES_LIMIT", 3)
    with pytest.raises(TooMany):
        read(Bodies(), b"ab", b"cd")


def test_what_is_dropped_does_not_count() -> None:
    held = Bodies()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"abc"}

    async def reading() -> None:
        with held.one() as body:
            await body.read({"headers": []}, receive)
            body.drop()
            assert (held.held, body.content) == (0, b"")

    asyncio.run(reading())
    assert held.held == 0
