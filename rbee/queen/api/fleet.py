"""Routes for access over TCP, and for the tokens with which machines join."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from rbee.queen.access import TcpAccess
from rbee.queen.api.asked import actor, token_id
from rbee.queen.fleet import Fleet
from rbee.queen.store.store import Store
from rbee.server.app import Handler
from rbee.server.requests import read_shape
from rbee.wire.fleet import CreatedToken, CreateToken, SetTcp, Tcp, Tokens, TokenView
from rbee.wire.routes import QueenRoutes, Route


def routes(access: TcpAccess, fleet: Fleet, catalog: Store) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def tcp(_request: Request) -> Tcp:
        return await access.view()

    async def set_tcp(request: Request) -> Tcp:
        asked: SetTcp = await read_shape(request, SetTcp)
        return await fleet.set_tcp(asked.is_open)

    async def list_tokens(_request: Request) -> Tokens:
        return Tokens(tuple(await catalog.tokens.all()))

    async def create_token(request: Request) -> CreatedToken:
        return await fleet.create_token(await read_shape(request, CreateToken), actor(request))

    async def revoke_token(request: Request) -> TokenView:
        return await catalog.tokens.revoke(token_id(request), by=actor(request))

    return {
        QueenRoutes.TCP: tcp,
        QueenRoutes.SET_TCP: set_tcp,
        QueenRoutes.TOKENS: list_tokens,
        QueenRoutes.CREATE_TOKEN: create_token,
        QueenRoutes.REVOKE_TOKEN: revoke_token,
    }
