"""Reading bodies, with bounds."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.errors import BadInput, TooLarge, TooMany
from rbee.gateway import bodies
from rbee.gateway.bodies import Bodies, ClientGone


async def read(held: Bodies, *parts: bytes, ends: bool = True, length: str | None = None) -> bytes:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": not ends or number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        return messages.pop(0)

    headers = [] if length is None else [(b"content-length", length.encode())]
    try:
        with held.one() as body:
            await body.read({"headers": headers}, receive)
            assert held.held == len(body.content)
            return body.content
    finally:
        assert held.held == 0


async def test_a_body_is_read_in_parts_and_counted_while_it_is_held() -> None:
    assert await read(Bodies(), b"ab", b"", b"cd") == b"abcd"


async def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientGone):
        await read(Bodies(), b"ab", ends=False)


async def test_a_request_without_a_body_is_refused() -> None:
    with pytest.raises(BadInput):
        await read(Bodies(), b"")


async def test_a_body_that_is_too_large_is_refused_before_it_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(TooLarge):
        await read(Bodies(), b"a", length=str(33 * 2**20))
    monkeypatch.setattr(bodies, "BODY_LIMIT", 3)
    with pytest.raises(TooLarge):
        await read(Bodies(), b"ab", b"cd", b"ef")


async def test_all_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODIES_LIMIT", 3)
    with pytest.raises(TooMany):
        await read(Bodies(), b"ab", b"cd")


async def test_what_is_dropped_does_not_count() -> None:
    held = Bodies()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"abc"}

    with held.one() as body:
        await body.read({"headers": []}, receive)
        body.drop()
        assert (held.held, body.content) == (0, b"")
    assert held.held == 0
