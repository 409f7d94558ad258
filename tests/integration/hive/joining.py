"""A queen who is joined, played behind the product's server, and the state directory of a hive that joins."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from rbee import tls
from rbee.errors import RbeeError
from rbee.hive.join import Guest
from rbee.hive.membership import Membership, Memberships
from rbee.queen.authority import Authority, Identity
from rbee.server.app import build_app
from rbee.server.requests import read_shape, remote_peer_of
from rbee.wire.fleet import Join, Joined, Renew
from rbee.wire.routes import INSTANCE_HEADER, FleetRoutes
from tests.integration.remote_queen import HERE

SECRET = "s" * 32
MACHINE_ID = "0123456789abcdef0123456789abcdef"
APP_SPECIFIC = "e06cb9c90684420ca566510158fadbe9"
"""What systemd-id128 machine-id --app-specific=6f1b… of systemd 252 says on a machine with that id."""


class Queen:
    """`seen` is every request, with the credential that it came by."""

    def __init__(self, folder: Path, *, shows: str | None = None) -> None:
        self.authority = Authority.open(folder)
        self.shows = self.authority.ca if shows is None else shows
        self.seen: list[tuple[str, str | None]] = []
        self.joins: list[Join] = []
        self.instances: list[str | None] = []
        self.refusal: RbeeError | None = None
        self.renew_refusal: RbeeError | None = None
        self.credential = "c" * 32
        self.when_joined: Callable[[], object] = lambda: None

    @property
    def token(self) -> str:
        return tls.token_text("0" * 8, SECRET, self.authority.fingerprint)

    def _see(self, request: Request) -> None:
        self.seen.append((request.url.path, remote_peer_of(request).credential))

    async def _ca(self, request: Request) -> Response:
        self._see(request)
        return Response(self.shows, media_type=FleetRoutes.CA.media_type)

    async def _join(self, request: Request) -> Joined:
        self._see(request)
        if self.refusal is not None:
            raise self.refusal
        asked: Join = await read_shape(request, Join)
        self.joins.append(asked)
        self.instances.append(request.headers.get(INSTANCE_HEADER))
        self.when_joined()
        return self._sign(asked.name, asked.request)

    async def _renew(self, request: Request) -> Joined:
        self._see(request)
        if self.renew_refusal is not None:
            raise self.renew_refusal
        asked: Renew = await read_shape(request, Renew)
        return self._sign("gpu1", asked.request)

    def _sign(self, name: str, request: str) -> Joined:
        return Joined(name, self.authority.sign(request, Identity(name, self.credential)))

    def app(self) -> ASGIApp:
        handlers = {FleetRoutes.CA: self._ca, FleetRoutes.JOIN: self._join, FleetRoutes.RENEW: self._renew}
        return build_app("a queen", "1", handlers)


ServeQueens = Callable[..., AbstractAsyncContextManager[list[int]]]


class Hive:
    """The state directory of a hive, on a machine with a machine-id of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.machine_id = folder / "machine-id"
        self.machine_id.write_text(f"{MACHINE_ID}\n")
        self.invitation = folder / "invitation"
        self.path = folder / "membership"
        self.memberships = Memberships(folder)
        self.instance: str | None = None
        self.guest = Guest(folder, machine_id=self.machine_id, instance=lambda: self.instance)

    def invite(self, port: int, token: str | None, *, name: str | None = "gpu1", host: str = HERE) -> None:
        self.invitation.write_text(json.dumps({"host": host, "port": port, "name": name, "token": token}))

    async def join(self, queen: Queen, port: int) -> Membership:
        self.invite(port, queen.token)
        membership = await self.guest.take_up_invitation()
        assert membership is not None
        return membership


def block(content: str, what: str) -> str:
    """Of the file below its first line, which has the CA's certificate in it."""
    begin, end = f"\n-----BEGIN {what}-----\n", f"\n-----END {what}-----\n"
    below = content[content.index("\n") :]
    assert below.count(begin) == 1
    return below[below.index(begin) : below.index(end)]


async def two_queens(hive: Hive, queen: Queen, other: Queen, serve_queens: ServeQueens) -> tuple[str, str]:
    """A hive of the first queen, who has joined the other since; what is kept of either."""

    async with serve_queens(queen, other) as (port, other_port):
        await hive.join(queen, port)
        hive.memberships.confirm()
        await hive.join(other, other_port)
    return hive.path.read_text(), (hive.folder / "membership.new").read_text()


def kept(hive: Hive) -> list[str]:
    return sorted(path.name for path in hive.folder.glob("membership*"))
