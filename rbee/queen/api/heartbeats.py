"""The route for heartbeats of the local hive, and the quick answer to those that change nothing."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from rbee.errors import NotPermitted, RbeeError
from rbee.queen.api.asked import actor
from rbee.queen.fleet import Fleet
from rbee.queen.hives.hives import Hives
from rbee.server.app import Admit, Handler
from rbee.server.peer import AnyPeer
from rbee.server.quick import Quick
from rbee.server.requests import read_shape
from rbee.wire.codec import decode
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import QueenRoutes, Route


def routes(hives: Hives, fleet: Fleet) -> dict[Route[Any], Handler]:
    """Return the handler of this route."""

    async def heartbeat(request: Request) -> HeartbeatAck:
        beat: Heartbeat = await read_shape(request, Heartbeat)
        if fleet.is_member(beat.hive_id):
            raise NotPermitted(
                f"the hive {beat.hive_id} is on another machine, and sends heartbeats over TCP"
            )
        return await hives.heartbeat(beat, actor(request))

    return {QueenRoutes.HEARTBEAT: heartbeat}


def quick(hives: Hives, fleet: Fleet, admit: Admit) -> dict[Route[Any], Quick]:
    """Return the quick answer to heartbeats that change nothing, as most do; the route answers the others."""

    def answer(peer: AnyPeer, body: bytes) -> Any:
        try:
            admit(peer, QueenRoutes.HEARTBEAT)
            beat = decode(Heartbeat, json.loads(body.decode()))
        except (RbeeError, ValueError, RecursionError):
            return None
        if fleet.is_member(beat.hive_id):
            return None
        hive = hives.find(beat.hive_id)
        return None if hive is None else hive.take_plain(beat)

    return {QueenRoutes.HEARTBEAT: answer}
