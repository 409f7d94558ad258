"""The routes for clients' keys, and for the gateway's TCP socket."""

from __future__ import annotations

import pytest

from rbee.wire.codec import decode
from rbee.wire.keys import CreatedKey, Gateway, Keys, KeyView
from tests.integration.queen.served_queen import ME, Served
from tests.integration.unix_http import post, request

pytestmark = pytest.mark.deadline(10)


async def test_a_key_is_made_listed_and_revoked_in_the_name_of_who_asks(queen: Served) -> None:
    made = await queen.ask(post("/v1/keys", {"name": "ada", "models": ["bee"], "ttl_s": 60}))
    created = decode(CreatedKey, made.json)
    listed = await queen.ask(request("GET", "/v1/keys"))
    revoked = await queen.ask(request("DELETE", "/v1/keys/ada"))

    assert made.status == 201
    assert created.text.startswith("rbee-sk-")
    assert created.text.encode() not in listed.content
    (key,) = decode(Keys, listed.json).keys
    assert (key.name, key.models, key.expires_at_ms) == ("ada", ("bee",), created.expires_at_ms)
    assert (key.is_revoked, decode(KeyView, revoked.json).is_revoked) == (False, True)
    assert {entry.actor_uid for entry in await queen.catalog.audit.last(9, None)} == {ME}


async def test_the_gateway_is_opened_and_closed(queen: Served) -> None:
    seen = [decode(Gateway, (await queen.ask(request("GET", "/v1/gateway"))).json)]
    for is_open in (True, False):
        seen.append(decode(Gateway, (await queen.ask(post("/v1/gateway", {"is_open": is_open}))).json))
        seen.append(decode(Gateway, (await queen.ask(request("GET", "/v1/gateway"))).json))

    assert [one.is_open for one in seen] == [False, True, True, False, False]
    assert {one.listens for one in seen} == {()}


@pytest.mark.parametrize(
    ("asked", "status", "slug", "field"),
    [
        (request("DELETE", "/v1/keys/bob"), 404, "unknown-key", "key"),
        (request("DELETE", "/v1/keys/-"), 400, "bad-input", "key"),
        (post("/v1/keys", {"name": "ada"}), 409, "name-taken", "name"),
        (post("/v1/keys", {"name": "!"}), 400, "bad-input", "name"),
        (post("/v1/keys", {"name": "bob", "ttl_s": 0}), 400, "bad-input", "ttl_s"),
        (post("/v1/gateway", {}), 400, "bad-input", "is_open"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    queen: Served, asked: bytes, status: int, slug: str, field: str
) -> None:
    await queen.ask(post("/v1/keys", {"name": "ada"}))
    answer = await queen.ask(asked)

    assert (answer.status, answer.json["type"]) == (status, f"urn:rbee:problem:{slug}")
    assert answer.json.get("field") == field
