"""The verbs of key."""

from __future__ import annotations

import json

import pytest
from starlette.requests import Request

from rbee.errors import UnknownKey
from rbee.server.app import Handler
from rbee.wire.codec import decode
from rbee.wire.keys import CreatedKey, CreateKey, Gateway, Keys, KeyView
from rbee.wire.models import Models
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.keeper.model_values import MODEL
from tests.unit.played_systemd import PlayedBus

ALICE = KeyView("alice", ("bee",), 1_700_000_000_000, None, False, 3, 1_700_000_000_000)


def keys(asked: list[CreateKey]) -> dict[Route, Handler]:
    async def create(request: Request) -> CreatedKey:
        one = decode(CreateKey, json.loads(await request.body()))
        asked.append(one)
        return CreatedKey(one.name, "rbee-SECRET", one.models, None)

    async def every(_request: Request) -> Keys:
        return Keys((ALICE,))

    async def revoke(request: Request) -> KeyView:
        if request.path_params["key"] != "alice":
            raise UnknownKey("no such key")
        return ALICE

    async def models(_request: Request) -> Models:
        return Models(tuple(MODEL._replace(name=name) for name in ("bee", "wasp")))

    async def gateway(_request: Request) -> Gateway:
        return Gateway(False)

    return {
        QueenRoutes.CREATE_KEY: create, QueenRoutes.KEYS: every, QueenRoutes.REVOKE_KEY: revoke,
        QueenRoutes.GATEWAY: gateway, QueenRoutes.MODELS: models,
    }  # fmt: skip


def test_a_key_is_printed_alone(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    asked: list[CreateKey] = []
    queen = keys(asked)

    assert with_queen(queen, lambda: rbeectl("key", "create", "alice")).out == "rbee-SECRET\n"
    options = ("--models", "bee, Wasp,bee", "--ttl", "2h", "--json")
    ran = with_queen(queen, lambda: rbeectl("key", "create", "bob", *options))
    assert ran.json == [
        {"name": "bob", "text": "rbee-SECRET", "models": ["bee", "wasp"], "expires_at_ms": None}
    ]
    assert asked == [CreateKey("alice"), CreateKey("bob", ("bee", "wasp"), 7200)]


def test_a_key_for_a_model_that_was_mistyped_is_not_made(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    asked: list[CreateKey] = []

    ran = with_queen(keys(asked), lambda: rbeectl("key", "create", "alice", "--models", "wap"))

    assert ran.code == 4
    assert "did you mean wasp?" in ran.err
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [("a b",), ("alice", "--models", "a,,b"), ("alice", "--models", ""), ("alice", "--ttl", "10ms")],
)
def test_a_key_that_cannot_be_made_is_refused_first(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: tuple[str, ...]
) -> None:
    assert rbeectl("key", "create", *arguments).code == 2
    assert bus.asked == []


def test_keys_are_listed_and_revoked(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = keys([])

    ran = with_queen(queen, lambda: rbeectl("key", "list", "--no-legend"))
    assert ran.out.split()[:4] == ["alice", "good", "bee", "3"]
    assert with_queen(queen, lambda: rbeectl("key", "revoke", "alice")).out == "Key alice is revoked\n"
    unknown = with_queen(queen, lambda: rbeectl("key", "revoke", "alise"))
    assert unknown.code == 4
    assert "there is no key 'alise'; did you mean alice?" in unknown.err
