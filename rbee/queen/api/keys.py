"""Routes for the keys of the gateway's clients, and for its TCP socket."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from rbee.queen.api.asked import actor, key_name
from rbee.queen.gateway import GatewayAccess
from rbee.queen.keys import ClientKeys
from rbee.server.app import Handler
from rbee.server.requests import read_shape
from rbee.wire.keys import CreatedKey, CreateKey, Gateway, Keys, KeyView, SetGateway
from rbee.wire.routes import QueenRoutes, Route


def routes(keys: ClientKeys, gateway: GatewayAccess) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def listed(_request: Request) -> Keys:
        return keys.all()

    async def create(request: Request) -> CreatedKey:
        return await keys.create(await read_shape(request, CreateKey), actor(request))

    async def revoke(request: Request) -> KeyView:
        return await keys.revoke(key_name(request), actor(request))

    async def show_gateway(_request: Request) -> Gateway:
        return await gateway.view()

    async def set_gateway(request: Request) -> Gateway:
        asked: SetGateway = await read_shape(request, SetGateway)
        return await gateway.set(asked.is_open, actor(request))

    return {
        QueenRoutes.KEYS: listed,
        QueenRoutes.CREATE_KEY: create,
        QueenRoutes.REVOKE_KEY: revoke,
        QueenRoutes.GATEWAY: show_gateway,
        QueenRoutes.SET_GATEWAY: set_gateway,
    }
