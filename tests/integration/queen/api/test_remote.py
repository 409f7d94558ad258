"""What the queen serves over TCP: to hives alone, each by its credential."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp

from rbee import __version__, tls
from rbee.client.link import Link, QueenAddress
from rbee.errors import (
    BadInput,
    BadToken,
    Disconnected,
    HiveNotOnline,
    NameTaken,
    NoSuchMethod,
    NoSuchRoute,
    NotPermitted,
    RbeeError,
    TooLarge,
    UnknownHive,
    VersionSkew,
)
from rbee.queen.api.remote import OF_BEFORE, OPEN, build
from rbee.server.app import build_app
from rbee.server.connection import BODY_LIMIT
from rbee.server.upgrade import Upgraded
from rbee.systemd.daemon import Notifier
from rbee.uplink.accept import Uplink
from rbee.uplink.dial import dial
from rbee.uplink.frames import UplinkRoutes
from rbee.uplink.offer import Offer
from rbee.wire.fleet import Join, Joined, Renew
from rbee.wire.heartbeats import HeartbeatAck, HiveHealth
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER, FleetRoutes, HiveRoutes, QueenRoutes, Route
from tests.integration.remote_queen import queen_address, served_over_tcp
from tests.unit.queen.joined import INSTANCE, MACHINE, OPERATOR, OTHER, Queen, a_queen, beat
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)

DIAL_ID = "7" * 32
ROUTES = (*FleetRoutes.ALL, *UplinkRoutes.ALL, OF_BEFORE)
STREAM = {INSTANCE_HEADER: INSTANCE, VERSION_HEADER: __version__}


async def _health(_request: Request) -> HiveHealth:
    return HiveHealth("ok", "1")


HIVE = build_app("a hive", "1", {HiveRoutes.HEALTH: _health})


class Remote:
    """A queen who is open, as machines see her from where they are."""

    def __init__(self, queen: Queen, port: int, folder: Path, at_the_end: AsyncExitStack) -> None:
        self.queen = queen
        self.port = port
        self._folder = folder
        self._at_the_end = at_the_end

    def link(self, certificate: Path | None = None) -> Link:
        link = Link(queen_address(self.queen.access.authority, self.port, certificate), timeout=5)
        self._at_the_end.push_async_callback(link.close)
        return link

    async def join(self, name: str = "gpu1", machine: str = MACHINE) -> Path:
        """Join over the wire; what is returned has the key and the certificate."""
        key = tls.new_key()
        asked = Join(await self.queen.token(), name, machine, tls.request_for(key), __version__)
        joined: Joined = await self.link().ask(FleetRoutes.JOIN, asked)
        assert joined.hive_id == name
        path = self._folder / f"{name}.pem"
        path.write_text(key + joined.certificate)
        return path

    @asynccontextmanager
    async def uplink(self, certificate: Path, app: ASGIApp = HIVE) -> AsyncIterator[tuple[Uplink, Offer]]:
        """A hive that is connected: what the queen has of it, and its own end."""
        (hive_id,) = {member for member in self.queen.fleet._members.values() if member == certificate.stem}
        offer = Offer(queen_address(self.queen.access.authority, self.port, certificate))
        async with offer.hold(INSTANCE, app):
            uplink = self.queen.hives.uplinks.find(hive_id)
            assert uplink is not None
            yield uplink, offer


@pytest.fixture
@asynccontextmanager
async def remote(tmp_path: Path, silent_notifier: Notifier) -> AsyncIterator[Remote]:
    """A queen who is served over TCP and TLS."""
    async with a_queen(tmp_path / "state") as queen:
        await queen.access.set(True)
        app = build(queen.access, queen.fleet, queen.hives)
        async with (
            served_over_tcp(app, await queen.access.context(), silent_notifier) as port,
            AsyncExitStack() as at_the_end,
        ):
            yield Remote(queen, port, tmp_path, at_the_end)


async def refusal_of(link: Link, route: Route, body: Any = None, **headers: str) -> RbeeError:
    """What a route refuses with."""
    try:
        if route.success == 101:
            assert isinstance(link._place, QueenAddress)
            await dial(link._place, route, headers, Upgraded(), **path_values(route))
        else:
            await link.ask(replace(route, answers=route.answer or dict), body, headers=headers)
    except RbeeError as error:
        return error
    raise AssertionError(f"{route.name} was not refused")


def path_values(route: Route) -> dict[str, str]:
    return {"dial_id": DIAL_ID} if "{dial_id}" in route.path else {}


# Which routes


async def test_every_route_of_a_fleet_is_served_and_none_is_open_but_those_to_join(remote: Remote) -> None:
    stranger = remote.link()
    assert await stranger.ask(FleetRoutes.CA) == remote.queen.access.authority.ca.encode()
    for route in ROUTES:
        if route is FleetRoutes.CA:
            continue
        error = await refusal_of(stranger, route, b"{}")
        if route in OPEN:
            assert isinstance(error, BadInput), route.name
        else:
            assert isinstance(error, NotPermitted), route.name
            assert "sudo rbeectl join" in (error.hint or "")
        assert error.status in route.problems
    assert OPEN == (FleetRoutes.CA, FleetRoutes.JOIN)


async def test_no_route_of_an_operator_is_served_to_anybody(remote: Remote) -> None:
    theirs = {route.path for route in ROUTES}
    hive, stranger = remote.link(await remote.join()), remote.link()
    asked = 0
    for route in QueenRoutes.ALL:
        if route.path in theirs:
            continue
        path = route.url(hive_id="gpu1", job_id="0" * 32, token_id="0" * 8, model="bee", key="ada")
        plain = replace(route, path=path, answers=route.answer or dict)
        for link in (hive, stranger):
            error = await refusal_of(link, plain, b"{}" if route.body else None)
            assert isinstance(error, NoSuchRoute), route.name
            asked += 1
    assert asked == 2 * len(QueenRoutes.ALL)


async def test_a_method_that_a_route_of_a_fleet_does_not_have_is_refused(remote: Remote) -> None:
    hive = remote.link(await remote.join())
    for route in ROUTES:
        other = replace(
            route, method="DELETE", path=route.url(**path_values(route)), answers=dict, success=200
        )
        assert isinstance(await refusal_of(hive, other), NoSuchMethod), route.name


# What they do


async def test_a_machine_joins_connects_beats_answers_and_renews(remote: Remote) -> None:
    certificate = await remote.join()
    async with remote.uplink(certificate) as (uplink, offer):
        assert (uplink.hive_id, uplink.instance, uplink.address) == ("gpu1", INSTANCE, "127.0.0.1")
        assert await uplink.client.health(timeout=5) == HiveHealth("ok", "1")
        assert await offer.beat(beat("starting")) == HeartbeatAck("ok", 15_000)
        assert remote.queen.hives.view("gpu1").is_remote

        request = Renew(tls.request_for(tls.new_key()))
        renewed: Joined = await remote.link(certificate).ask(FleetRoutes.RENEW, request)
        assert renewed.hive_id == "gpu1"
    await until(lambda: remote.queen.hives.uplinks.find("gpu1") is None)


async def test_the_end_of_its_connection_is_told_at_once_and_a_queen_who_goes_says_goodbye(
    remote: Remote,
) -> None:
    certificate = await remote.join()
    there = queen_address(remote.queen.access.authority, remote.port, certificate)
    async with Offer(there).hold(INSTANCE, HIVE) as ended:
        remote.queen.hives.uplinks.drop("gpu1")
        with pytest.raises(Disconnected):
            await ended
    async with Offer(there).hold(INSTANCE, HIVE) as ended:
        remote.queen.hives.uplinks.close()
        await ended  # in order


async def test_a_connection_is_taken_from_the_hive_that_was_asked_for_it_and_once(remote: Remote) -> None:
    first, second = await remote.join(), await remote.join("gpu2", OTHER)
    authority = remote.queen.access.authority
    async with remote.uplink(first) as (uplink, _), remote.uplink(second):
        comes = asyncio.get_running_loop().create_future()
        uplink._dials[DIAL_ID] = comes  # as if she had asked for it
        for there in (second, first, first):
            dialled = dial(
                queen_address(authority, remote.port, there),
                UplinkRoutes.CARRIER,
                {},
                Upgraded(),
                dial_id=DIAL_ID,
            )
            if there is second or comes.done():
                with pytest.raises(HiveNotOnline, match="no request waits for this connection"):
                    await dialled
            else:
                (await dialled).abort()
                await comes


# What is refused


async def test_a_beat_is_taken_from_its_own_hive_and_of_the_process_that_is_connected(remote: Remote) -> None:
    certificate = await remote.join()
    await remote.join("gpu2", OTHER)
    async with remote.uplink(certificate) as (_, offer):
        for name in ("gpu2", "localhost", "nobody"):
            with pytest.raises(NotPermitted, match="this connection is only for the hive gpu1"):
                await offer.beat(beat("starting")._replace(hive_id=name))
        with pytest.raises(NotPermitted):
            await offer.beat(beat("starting")._replace(instance="2" * 32))
        assert await offer.beat(beat("starting")) == HeartbeatAck("ok", 15_000)
    assert remote.queen.hives.view("gpu2").last_beat_ms is None


@pytest.mark.parametrize(
    "head",
    [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: rbee-hive/2\r\n",
        "Connection: Upgrade\r\nUpgrade: rbee-hive/1\r\n\r\nand more",
        "",
    ],
    ids=["another", "another version", "what is not to come yet", "none"],
)
async def test_a_connection_goes_on_with_nothing_but_the_hives_protocol(remote: Remote, head: str) -> None:
    certificate = await remote.join()
    there = queen_address(remote.queen.access.authority, remote.port, certificate)
    reader, writer = await asyncio.open_connection(
        there.host, there.port, ssl=there.context, server_hostname=tls.QUEEN_NAME
    )
    ids = "".join(f"{name}: {value}\r\n" for name, value in STREAM.items())
    writer.write(f"GET /v1/uplink HTTP/1.1\r\nHost: x\r\n{ids}{head}\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    writer.transport.abort()
    await until(lambda: remote.queen.hives.uplinks.all() == [])


async def test_each_refusal_is_one_that_the_route_has(remote: Remote) -> None:
    queen, certificate = remote.queen, await remote.join()
    hive, stranger = remote.link(certificate), remote.link()
    request = tls.request_for(tls.new_key())
    good = Join(await queen.token(), "gpu2", OTHER, request, __version__)
    refused: list[tuple[Link, Route, Any, dict[str, str], type[RbeeError]]] = [
        (stranger, FleetRoutes.JOIN, b"[", {}, BadInput),
        (stranger, FleetRoutes.JOIN, b"{}", {}, BadInput),
        (stranger, FleetRoutes.JOIN, b" " * (BODY_LIMIT + 1), {}, TooLarge),
        (stranger, FleetRoutes.JOIN, good._replace(token="none"), {}, BadInput),
        (stranger, FleetRoutes.JOIN, good._replace(token=f"{'0' * 8}{good.token[8:]}"), {}, BadToken),
        (stranger, FleetRoutes.JOIN, good._replace(request="none"), {}, BadInput),
        (stranger, FleetRoutes.JOIN, good._replace(name="localhost"), {}, BadInput),
        (stranger, FleetRoutes.JOIN, good._replace(name="gpu1"), {}, NameTaken),
        (stranger, FleetRoutes.JOIN, good._replace(machine=MACHINE), {}, NameTaken),
        (stranger, FleetRoutes.JOIN, good._replace(version="99.0.0"), {}, VersionSkew),
        (hive, FleetRoutes.RENEW, Renew("none"), {}, BadInput),
        (hive, FleetRoutes.RENEW, b"{}", {}, BadInput),
        (hive, UplinkRoutes.CONTROL, None, {}, BadInput),
        (hive, UplinkRoutes.CONTROL, None, STREAM | {INSTANCE_HEADER: "1" * 31}, BadInput),
        (hive, UplinkRoutes.CONTROL, None, STREAM | {VERSION_HEADER: "99.0.0"}, VersionSkew),
        (hive, UplinkRoutes.CARRIER, None, {}, HiveNotOnline),
        (hive, OF_BEFORE, None, {VERSION_HEADER: "0.4.0"}, VersionSkew),
    ]  # fmt: skip
    for link, route, body, headers, kind in refused:
        error = await refusal_of(link, route, body, **headers)
        assert type(error) is kind, (route.name, error.message)
        assert error.status in route.problems, route.name
        if headers and kind is BadInput:
            assert error.field in headers
    # Nothing came of any of it.
    assert [row.id for row in await queen.catalog.hives.all()] == ["gpu1"]
    assert queen.hives.uplinks.all() == []
    await stranger.ask(FleetRoutes.JOIN, good)


async def test_a_hive_that_was_removed_is_refused_by_every_route_but_those_to_join(remote: Remote) -> None:
    hive = remote.link(await remote.join())
    job = remote.queen.work.remove("gpu1", OPERATOR, is_forced=True)
    await until(lambda: job.view().state != "running")
    asked: dict[Route, tuple[Any, dict[str, str]]] = {
        FleetRoutes.RENEW: (Renew(tls.request_for(tls.new_key())), {}),
        UplinkRoutes.CONTROL: (None, STREAM),
        UplinkRoutes.CARRIER: (None, {}),
        OF_BEFORE: (None, {}),
    }
    assert {*asked, *OPEN} == set(ROUTES)
    for route, (body, headers) in asked.items():
        error = await refusal_of(hive, route, body, **headers)
        assert isinstance(error, UnknownHive), route.name
        assert error.status in route.problems
        assert "rbeectl join" in (error.hint or "")
