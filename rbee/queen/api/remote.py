"""What the queen serves over TCP: to hives alone, each by its credential."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from rbee import __version__
from rbee.contracts import (
    INSTANCE_HEADER,
    STATUS_HEADER,
    VERSION_HEADER,
    FleetRoutes,
    Heartbeat,
    HeartbeatAck,
    JobId,
    Join,
    Joined,
    Limit,
    Renew,
    Route,
    Taken,
    Text,
    decode,
)
from rbee.errors import BadInput, HiveNotOnline, NotPermitted, RbeeError
from rbee.queen.fleet import Fleet
from rbee.queen.hives.hives import Hives
from rbee.server.app import Handler, build_app
from rbee.server.peer import RemotePeer
from rbee.server.requests import read_body, read_shape, remote_peer_of
from rbee.server.responses import event_stream

OPEN = (FleetRoutes.CA, FleetRoutes.JOIN)
"""Routes for who has no credential yet."""


def admit(peer: RemotePeer, route: Route[Any]) -> None:
    if peer.credential is None and route not in OPEN:
        raise NotPermitted(
            "over TCP the queen serves hives alone, and a hive shows its certificate",
            hint="To join: sudo rbeectl join QUEEN:8500 --token TOKEN",
        )


def build(fleet: Fleet, hives: Hives) -> Starlette:
    async def ca(_request: Request) -> Response:
        return Response(fleet.authority.ca, media_type=FleetRoutes.CA.media_type)

    async def join(request: Request) -> Joined:
        peer = remote_peer_of(request)
        # Before a byte of what it sends is read.
        fleet.check_joins(peer)
        # Of a hive that joins anew, while its process with this instance is connected.
        instance = request.headers.get(INSTANCE_HEADER)
        try:
            return await fleet.join(await read_shape(request, Join), peer, instance)
        except RbeeError:
            fleet.join_failed(peer)
            raise

    async def renew(request: Request) -> Joined:
        asked = await read_shape(request, Renew)
        return await fleet.renew(asked.request, remote_peer_of(request))

    async def heartbeat(request: Request) -> HeartbeatAck:
        peer = remote_peer_of(request)
        beat = await read_shape(request, Heartbeat)
        hive_id = fleet.hive_of(peer)
        if beat.hive_id != hive_id:
            raise NotPermitted(f"this is the credential of the hive {hive_id}, and of no other", hint=None)
        uplink = hives.uplinks.find(hive_id)
        if uplink is None or uplink.instance != beat.instance:
            # It may not know yet that its stream has ended, as it does not where its link was cut.
            raise HiveNotOnline(f"the beehive {hive_id} holds no stream open, and dials again", hint=None)
        return await hives.heartbeat(beat, peer.fields)

    async def requests(request: Request) -> Response:
        instance = _header(request, INSTANCE_HEADER, JobId)
        version = _header(request, VERSION_HEADER, Text)
        drop = request.scope["rbee.drop"]
        return event_stream(await fleet.open_stream(remote_peer_of(request), instance, version, drop))

    async def answer(request: Request) -> Taken:
        hive_id = fleet.hive_of(remote_peer_of(request))
        status = _header(request, STATUS_HEADER, _STATUS)
        uplink, request_id = hives.uplinks.find(hive_id), request.path_params["request_id"]
        try:
            content = await read_body(request)
        except RbeeError as error:
            if uplink is not None:
                uplink.not_answered(request_id, error)
            raise
        if uplink is not None:
            uplink.answered(request_id, status, content)
        return Taken("ok")

    handlers: dict[Route[Any], Handler] = {
        FleetRoutes.CA: ca,
        FleetRoutes.JOIN: join,
        FleetRoutes.RENEW: renew,
        FleetRoutes.HEARTBEAT: heartbeat,
        FleetRoutes.REQUESTS: requests,
        FleetRoutes.ANSWER: answer,
    }
    return build_app("rbee queen, for hives", __version__, handlers, admit=admit)


_STATUS = Annotated[int, Limit(200, 599)]


def _header(request: Request, name: str, kind: Any) -> Any:
    text = request.headers.get(name, "")
    is_number = get_args(kind)[0] is int and text.isascii() and text.isdecimal() and len(text) < 10
    try:
        return decode(kind, int(text) if is_number else text)
    except BadInput as error:
        raise BadInput(f"{name} {error.message.removeprefix('the body ')}", field=name) from error
