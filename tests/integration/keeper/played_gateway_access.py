"""A queen who is asked whether the gateway may be open to TCP."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from rbee.server.app import Handler
from rbee.wire.codec import decode
from rbee.wire.keys import Gateway, SetGateway
from rbee.wire.routes import QueenRoutes, Route


class GatewayAccess:
    """`asked` is what was set."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self.asked: list[bool] = []

    @property
    def handlers(self) -> dict[Route[Any], Handler]:
        async def set_gateway(request: Request) -> Gateway:
            self.asked.append(decode(SetGateway, json.loads(await request.body())).is_open)
            return Gateway(self.asked[-1])

        async def gateway(_request: Request) -> Gateway:
            return Gateway(self.asked[-1] if self.asked else self._is_open)

        return {QueenRoutes.SET_GATEWAY: set_gateway, QueenRoutes.GATEWAY: gateway}
