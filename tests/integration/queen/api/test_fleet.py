"""The routes for access over TCP, and for tokens."""

from __future__ import annotations

import pytest

from rbee.wire.codec import decode
from rbee.wire.fleet import CreatedToken, Tcp, Tokens, TokenView
from tests.integration.queen.served_queen import ME, Served
from tests.integration.unix_http import post, request

pytestmark = pytest.mark.deadline(10)


async def open_to_others(queen: Served, is_open: bool = True) -> Tcp:
    return decode(Tcp, (await queen.ask(post("/v1/tcp", {"is_open": is_open}))).json)


async def test_opening_is_seen_by_who_asks_next(queen: Served) -> None:
    before = decode(Tcp, (await queen.ask(request("GET", "/v1/tcp"))).json)
    opened = await open_to_others(queen)
    after = decode(Tcp, (await queen.ask(request("GET", "/v1/tcp"))).json)
    closed = await open_to_others(queen, False)

    assert [one.is_open for one in (before, opened, after, closed)] == [False, True, True, False]
    assert before.fingerprint is None
    assert opened.fingerprint == after.fingerprint == closed.fingerprint


async def test_a_token_is_made_listed_and_revoked_in_the_name_of_who_asks(queen: Served) -> None:
    await open_to_others(queen)
    made = await queen.ask(post("/v1/tokens", {"uses": 2, "hive": "gpu1"}))
    created = decode(CreatedToken, made.json)
    listed = decode(Tokens, (await queen.ask(request("GET", "/v1/tokens"))).json)
    revoked = await queen.ask(request("DELETE", f"/v1/tokens/{created.token.id}"))

    assert created.text.startswith(f"{created.token.id}.")
    assert listed.tokens == (created.token,)
    assert (created.token.hive, created.token.uses_left) == ("gpu1", 2)
    assert decode(TokenView, revoked.json).is_revoked
    assert {entry.actor_uid for entry in await queen.catalog.audit.last(9, None)} == {ME}


async def test_a_queen_who_is_not_open_makes_no_token(queen: Served) -> None:
    answer = await queen.ask(post("/v1/tokens", {}))

    assert answer.json["type"] == "urn:rbee:problem:tcp-closed"
    assert answer.json["hint"] == "rbeectl tcp enable"


@pytest.mark.parametrize(
    ("asked", "status", "slug", "field"),
    [
        (request("DELETE", "/v1/tokens/0123abcd"), 404, "unknown-token", None),
        (request("DELETE", "/v1/tokens/none"), 400, "bad-input", "token_id"),
        (post("/v1/tokens", {"uses": 0}), 400, "bad-input", "uses"),
        (post("/v1/tokens", {"ttl_s": 31 * 86400}), 400, "bad-input", "ttl_s"),
        (post("/v1/tcp", {"is_open": 1}), 400, "bad-input", "is_open"),
        (post("/v1/tcp", {}), 400, "bad-input", "is_open"),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else None,
)
async def test_what_is_wrong_is_a_problem_and_changes_nothing(
    queen: Served, asked: bytes, status: int, slug: str, field: str | None
) -> None:
    answer = await queen.ask(asked)

    assert (answer.status, answer.json["type"]) == (status, f"urn:rbee:problem:{slug}")
    if field is not None:
        assert answer.json["field"] == field
    assert await queen.catalog.tokens.all() == []
    assert await queen.catalog.audit.last(9, None) == []
