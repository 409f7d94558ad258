"""Tokens, on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbee.errors import TooMany, UnknownToken
from rbee.queen.store import tokens
from rbee.queen.store.store import Store
from rbee.queen.store.tokens import Token
from rbee.wire.fleet import TokenView
from tests.unit.queen.joined import OPERATOR, Queen
from tests.unit.queen.store.engines import BY, Journal


def token(number: int, **other: Any) -> TokenView:
    fields = {"hive": None, "uses_left": 1, "expires_at_ms": 10_000} | other
    return TokenView(id=f"{number:08}", created_at_ms=number, is_revoked=False, **fields)


async def add(store: Store, *tokens: TokenView) -> None:
    for one in tokens:
        await store.tokens.add(one, "hash", by=BY)


async def test_tokens_are_listed_in_the_order_in_which_they_were_made(store: Store) -> None:
    made = [token(2, hive="gpu1"), token(1), token(3, uses_left=7)]

    await add(store, *made)

    assert await store.tokens.all() == sorted(made, key=lambda one: one.created_at_ms)


async def test_a_token_is_told_with_what_it_is_for(store: Store, journal: Journal) -> None:
    await add(store, token(1), token(2, hive="gpu1", uses_left=3))

    assert journal.told == [
        ("token 00000001 was made, for 1 use", BY),
        ("token 00000002 for the hive gpu1 was made, for 3 uses", {"hive": "gpu1", **BY}),
    ]


async def test_a_token_is_revoked_once_and_stays_so(store: Store, journal: Journal) -> None:
    await add(store, token(1), token(2))

    revoked = [await store.tokens.revoke("00000001", by=BY) for _ in range(2)]

    assert [(one.id, one.is_revoked) for one in revoked] == [("00000001", True)] * 2
    assert [one.is_revoked for one in await store.tokens.all()] == [True, False]
    assert journal.texts[2:] == ["token 00000001 is revoked"]
    with pytest.raises(UnknownToken, match="there is no token 9"):
        await store.tokens.revoke("9", by=BY)


async def test_tokens_are_revoked_with_the_ca_that_they_name(store: Store, journal: Journal) -> None:
    await add(store, token(1))  # as 0.4.0 has left it, which did not note the CA
    await store.tokens.keep_to("first")
    await add(store, token(2), token(3))
    await store.tokens.keep_to("first")
    assert [one.is_revoked for one in await store.tokens.all()] == [False] * 3

    await store.tokens.keep_to("second")
    await add(store, token(4))
    await store.tokens.keep_to("second")

    assert [one.is_revoked for one in await store.tokens.all()] == [True] * 3 + [False]
    assert [text for text in journal.texts if "revoked" in text] == [
        "3 tokens are revoked: the queen has another CA"
    ]
    await store.tokens.keep_to("first")
    assert journal.texts[-1] == "1 token is revoked: the queen has another CA"


async def test_tokens_are_bounded_and_the_oldest_of_no_use_makes_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "TOKENS_MAX", 4)
    await add(store, token(1), token(2, uses_left=0), token(3, expires_at_ms=5), token(4))

    await add(store, token(5))
    assert [one.id[-1] for one in await store.tokens.all()] == ["1", "3", "4", "5"]
    await add(store, token(6))
    assert [one.id[-1] for one in await store.tokens.all()] == ["1", "4", "5", "6"]
    with pytest.raises(TooMany, match="there are 4 tokens") as caught:
        await add(store, token(7))

    assert caught.value.hint == "rbeectl token revoke"
    assert [one.id[-1] for one in await store.tokens.all()] == ["1", "4", "5", "6"]


@pytest.mark.parametrize(
    ("kept", "fault"),
    [
        (Token("a", "hash", None, 1, 11, 0), None),
        (Token("a", "hash", None, 1, 10, 0), "has expired"),
        (Token("a", "hash", None, 0, 11, 0), "is spent"),
        (Token("a", "hash", None, -3, 11, 0), "is spent"),
        (Token("a", "hash", None, 0, 10, 1), "has been revoked"),
    ],
)
def test_a_token_is_of_use_until_it_is_spent_has_expired_or_is_revoked(
    kept: Token, fault: str | None
) -> None:
    assert kept.why_useless(10) == fault


def test_a_token_is_for_one_hive_or_for_any() -> None:
    assert Token("a", "hash", None, 1, 1, 0).is_for("gpu1")
    assert Token("a", "hash", "GPU1", 1, 1, 0).is_for("gpu1")
    assert not Token("a", "hash", "gpu2", 1, 1, 0).is_for("gpu1")


@pytest.mark.deadline(10)
async def test_a_token_s_secret_is_in_no_file(queen: Queen, tmp_path: Path) -> None:
    secret = (await queen.token()).split(".")[1]
    await queen.catalog.check()
    for path in (tmp_path / "state").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


@pytest.mark.deadline(10)
async def test_tokens_are_bounded_and_who_is_of_no_use_makes_room(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "TOKENS_MAX", 3)

    made = [await queen.token() for _ in range(3)]
    with pytest.raises(TooMany, match="there are 3 tokens") as caught:
        await queen.token()
    assert caught.value.hint == "rbeectl token revoke"
    await queen.catalog.tokens.revoke(made[1][:8], by=OPERATOR)
    last = await queen.token()
    kept = [token.id for token in await queen.catalog.tokens.all()]
    assert sorted(kept) == sorted(token[:8] for token in (made[0], made[2], last))
    with pytest.raises(UnknownToken):
        await queen.catalog.tokens.revoke(made[1][:8], by=OPERATOR)
