"""Reads a request: its peer, its body and its query."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from starlette.requests import ClientDisconnect, Request

from rbee.errors import BadInput, TooLarge
from rbee.server.connection import BODY_LIMIT
from rbee.server.peer import AnyPeer, Peer, RemotePeer
from rbee.wire.codec import Shape, decode
from rbee.wire.routes import Route


def peer_of(request: Request) -> Peer:
    """Return the process that sent the request over a Unix socket."""
    peer = any_peer_of(request)
    assert isinstance(peer, Peer)
    return peer


def remote_peer_of(request: Request) -> RemotePeer:
    """Return the peer that sent the request over TCP."""
    peer = any_peer_of(request)
    assert isinstance(peer, RemotePeer)
    return peer


def any_peer_of(request: Request) -> AnyPeer:
    """Return the peer that sent the request."""
    peer: AnyPeer = request.scope["rbee.peer"]
    return peer


async def read_shape(request: Request, kind: type[Shape]) -> Shape:
    """Return the request's body as a shape. Raises TooLarge beyond BODY_LIMIT, or BadInput."""
    try:
        content = await read_body(request)
    except ClientDisconnect as error:
        raise BadInput("the client disconnected before its body had arrived") from error
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}", hint="Send a JSON object.") from error
    return decode(kind, value)


def read_query(request: Request, route: Route[Any]) -> dict[str, Any]:
    """Return those of the route's parameters that the query has. BadInput names one that is not valid."""
    given = request.query_params
    return {name: _read_parameter(name, kind, given[name]) for name, kind in route.query if name in given}


def _read_parameter(name: str, kind: Any, text: str) -> Any:
    is_number = get_args(kind)[0] is int and re.fullmatch("-?[0-9]{1,18}", text)
    try:
        return decode(kind, int(text) if is_number else text)
    except BadInput as error:
        raise BadInput(f"{name} {error.message.removeprefix('the body ')}", field=name) from error


async def read_body(request: Request) -> bytes:
    """Return the request's body. Raises TooLarge beyond BODY_LIMIT."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > BODY_LIMIT:
        raise _too_large()
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > BODY_LIMIT:
            raise _too_large()
    return content


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {BODY_LIMIT} bytes", hint=f"Send at most {BODY_LIMIT} bytes.")
