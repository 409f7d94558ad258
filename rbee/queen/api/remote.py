"""Routes over TCP: for remote hives only, each with its credential."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

from rbee import __version__
from rbee.errors import BadInput, HiveNotOnline, NotPermitted, RbeeError
from rbee.queen.access import TcpAccess
from rbee.queen.fleet import Fleet
from rbee.queen.hives.hives import Hives
from rbee.scope import REMOTE
from rbee.server.app import Handler, build_app
from rbee.server.peer import RemotePeer
from rbee.server.requests import read_shape, remote_peer_of
from rbee.server.upgrade import upgrade_to
from rbee.uplink.frames import PROTOCOL, UplinkRoutes
from rbee.wire.codec import decode
from rbee.wire.fleet import Join, Joined, Renew
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER, FleetRoutes, Route
from rbee.wire.types import JobId, Text

OPEN = (FleetRoutes.CA, FleetRoutes.JOIN)
"""Routes that need no credential."""

OF_BEFORE: Route[None] = Route(
    "GET", "/v1/requests", "Where hives before 0.5.0 connect: refused, with the hint to upgrade",
    None, problems=(400, 403, 404, 409),
)  # fmt: skip


def admit(peer: RemotePeer, route: Route[Any]) -> None:
    """Raise NotPermitted if the route needs a credential and the peer has shown none."""
    if peer.credential is None and route not in OPEN:
        raise NotPermitted(
            "over TCP the queen serves hives only, and a hive must show its certificate",
            hint=f"To join: {REMOTE.rejoin}",
        )


def build(access: TcpAccess, fleet: Fleet, hives: Hives) -> Router:
    """Return the app that is served over TCP. Long because each handler is a small function in here."""

    async def ca(_request: Request) -> Response:
        return Response(access.authority.ca, media_type=FleetRoutes.CA.media_type)

    async def join(request: Request) -> Joined:
        peer = remote_peer_of(request)
        # Before any of the body is read.
        fleet.check_joins(peer)
        # Sent by a hive that joins again while its process with this instance is connected.
        instance = request.headers.get(INSTANCE_HEADER)
        try:
            return await fleet.join(await read_shape(request, Join), peer, instance)
        except RbeeError:
            fleet.join_failed(peer)
            raise

    async def renew(request: Request) -> Joined:
        asked = await read_shape(request, Renew)
        return await fleet.renew(asked.request, remote_peer_of(request))

    async def uplink(request: Request) -> Response:
        check_protocol(request)
        instance = _header(request, INSTANCE_HEADER, JobId)
        version = _header(request, VERSION_HEADER, Text)
        return upgrade_to(await fleet.connect(remote_peer_of(request), instance, version))

    async def carrier(request: Request) -> Response:
        check_protocol(request)
        hive_id = fleet.hive_of(remote_peer_of(request))
        hive_uplink = hives.uplinks.find(hive_id)
        if hive_uplink is None:
            # The hive may not have noticed yet that its link was cut.
            raise HiveNotOnline(f"the beehive {hive_id} is not connected, and dials again", hint=None)
        return upgrade_to(hive_uplink.take_carrier(request.path_params["dial_id"]))

    async def of_before(request: Request) -> Response:
        version = _header(request, VERSION_HEADER, Text)
        raise await fleet.refuse_older(remote_peer_of(request), version)

    handlers: dict[Route[Any], Handler] = {
        FleetRoutes.CA: ca,
        FleetRoutes.JOIN: join,
        FleetRoutes.RENEW: renew,
        UplinkRoutes.CONTROL: uplink,
        UplinkRoutes.CARRIER: carrier,
        OF_BEFORE: of_before,
    }
    return build_app("rbee queen, for hives", __version__, handlers, admit=admit)


def check_protocol(request: Request) -> None:
    """Raise BadInput unless the request upgrades the connection to the hives' protocol."""
    if "rbee.upgrade" not in request.scope:
        raise BadInput(f"the header Upgrade must be {PROTOCOL}", hint="Upgrade rbee-hive.", field="Upgrade")


def _header(request: Request, name: str, kind: Any) -> Any:
    try:
        return decode(kind, request.headers.get(name, ""))
    except BadInput as error:
        raise BadInput(f"{name} {error.message.removeprefix('the body ')}", field=name) from error
