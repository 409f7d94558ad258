"""The verbs of token."""

from __future__ import annotations

import json

from starlette.requests import Request

from rbee.wire.codec import decode
from rbee.wire.fleet import CreatedToken, CreateToken, Tokens, TokenView
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import TEXT, Opened, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus

TOKEN = TokenView("0123abcd", None, 1, 1_700_000_000_000, 4_000_000_000_000, False)


def test_a_token_is_printed_alone_for_who_reads_it_by_a_pipe(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    asked: list[CreateToken] = []

    async def create(request: Request) -> CreatedToken:
        asked.append(decode(CreateToken, json.loads(await request.body())))
        return CreatedToken(TEXT, TOKEN)

    handlers = {**Opened(awake, is_open=True).handlers, QueenRoutes.CREATE_TOKEN: create}
    assert with_queen(handlers, lambda: rbeectl("token", "create")).out == f"{TEXT}\n"
    options = ("--ttl", "2h 30min", "--uses", "20", "--hive", "gpu1", "--quiet")
    assert with_queen(handlers, lambda: rbeectl("token", "create", *options)).out == f"{TEXT}\n"
    assert asked == [CreateToken(3600, 1, None), CreateToken(9000, 20, "gpu1")]


def test_tokens_are_listed_with_what_has_become_of_them(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    kept = (
        TOKEN,
        TOKEN._replace(id="00000001", hive="gpu1", uses_left=0),
        TOKEN._replace(id="00000002", expires_at_ms=1_700_000_000_001),
        TOKEN._replace(id="00000003", is_revoked=True),
    )

    async def tokens(_request: Request) -> Tokens:
        return Tokens(kept)

    ran = with_queen({QueenRoutes.TOKENS: tokens}, lambda: rbeectl("token", "list", "--no-legend"))
    assert [line.split()[:4] for line in ran.out.splitlines()] == [
        ["0123abcd", "good", "any", "1"],
        ["00000001", "spent", "gpu1", "0"],
        ["00000002", "expired", "any", "1"],
        ["00000003", "revoked", "any", "1"],
    ]


def test_a_token_is_revoked_by_its_id_or_its_text(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def revoke(request: Request) -> TokenView:
        return TOKEN._replace(id=request.path_params["token_id"], is_revoked=True)

    for given in ("0123abcd", TEXT):
        ran = with_queen(
            {QueenRoutes.REVOKE_TOKEN: revoke}, lambda given=given: rbeectl("token", "revoke", given)
        )
        assert ran.out == "Token 0123abcd is revoked\n"
    assert rbeectl("token", "revoke", "nonsense").code == 2
