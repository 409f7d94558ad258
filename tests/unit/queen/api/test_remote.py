"""What the queen serves over TCP: the routes of a fleet, to hives alone, each by its credential."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rbee import __version__, tls
from rbee.client.link import Link
from rbee.contracts import (
    INSTANCE_HEADER,
    STATUS_HEADER,
    VERSION_HEADER,
    FleetRoutes,
    Heartbeat,
    HeartbeatAck,
    HiveHealth,
    HiveRoutes,
    Join,
    Joined,
    QueenRoutes,
    Renew,
    Route,
    Taken,
)
from rbee.errors import (
    BadInput,
    BadToken,
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
from rbee.queen.api.remote import OPEN, build
from rbee.queen.uplinks import Uplink
from rbee.server.connection import BODY_LIMIT
from rbee.systemd.daemon import Notifier
from tests.unit.afar import afar, served_afar
from tests.unit.queen.test_fleet import INSTANCE, MACHINE, OPERATOR, OTHER, Queen, a_queen, beat
from tests.unit.serving import until

REQUEST_ID = "7" * 32
STREAM = {INSTANCE_HEADER: INSTANCE, VERSION_HEADER: __version__}
WELL = b'{"status": "ok", "version": "1"}'


class Afar:
    """A queen who is open, as machines see her from where they are."""

    def __init__(self, queen: Queen, port: int, folder: Path, at_the_end: AsyncExitStack) -> None:
        self.queen = queen
        self._port = port
        self._folder = folder
        self._at_the_end = at_the_end

    def link(self, certificate: Path | None = None) -> Link:
        link = Link(afar(self.queen.fleet.authority, self._port, certificate), timeout=5)
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
    async def stream(self, certificate: Path) -> AsyncIterator[Uplink]:
        """The hive's stream, held open; what the queen has of it. Its hive answers nothing of itself."""
        (hive_id,) = {member for member in self.queen.fleet._members.values() if member == certificate.stem}
        async with self.link(certificate).stream(FleetRoutes.REQUESTS, headers=STREAM, silence=5) as parts:
            assert await anext(parts) == b": open\n\n"
            uplink = self.queen.hives.uplinks.find(hive_id)
            assert uplink is not None
            self.parts = parts
            yield uplink


With = Callable[[Callable[[Afar], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def with_queen(tmp_path: Path, silent_notifier: Notifier) -> With:
    """A scenario with a queen who is served over TCP and TLS."""

    def run(scenario: Callable[[Afar], Coroutine[Any, Any, None]]) -> None:
        async def within() -> None:
            async with a_queen(tmp_path / "state") as queen:
                await queen.fleet.set_tcp(True)
                app = build(queen.fleet, queen.hives)
                async with (
                    served_afar(app, await queen.fleet.context(), silent_notifier) as port,
                    AsyncExitStack() as at_the_end,
                ):
                    async with asyncio.timeout(20):
                        await scenario(Afar(queen, port, tmp_path, at_the_end))

        asyncio.run(within())

    return run


def path_values(route: Route) -> dict[str, str]:
    """For {request_id}, which a Link takes from the headers."""
    return {"request_id": REQUEST_ID} if "{request_id}" in route.path else {}


async def refusal_of(link: Link, route: Route, body: Any = None, **headers: str) -> RbeeError:
    """What a route refuses with."""
    try:
        if route.answer is None:
            async with link.stream(route, headers=headers, silence=1):
                pass
        else:
            await link.ask(route, body, headers={**path_values(route), **headers})
    except RbeeError as error:
        return error
    raise AssertionError(f"{route.name} was not refused")


# Which routes


def test_every_route_of_a_fleet_is_served_and_none_is_open_but_those_to_join(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        stranger = afar.link()
        assert await stranger.ask(FleetRoutes.CA) == afar.queen.fleet.authority.ca.encode()
        for route in FleetRoutes.ALL:
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

    with_queen(scenario)


def test_no_route_of_an_operator_is_served_to_anybody(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        theirs = {route.path for route in FleetRoutes.ALL}
        hive, stranger = afar.link(await afar.join()), afar.link()
        asked = 0
        for route in QueenRoutes.ALL:
            if route.path in theirs:
                continue
            path = route.url(hive_id="gpu1", job_id="0" * 32, token_id="0" * 8)
            plain = replace(route, path=path, answer=route.answer or dict)
            for link in (hive, stranger):
                error = await refusal_of(link, plain, b"{}" if route.body else None)
                assert isinstance(error, NoSuchRoute), route.name
                asked += 1
        assert asked == 2 * (len(QueenRoutes.ALL) - 1)  # all but the heartbeat

    with_queen(scenario)


def test_a_method_that_a_route_of_a_fleet_does_not_have_is_refused(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        hive = afar.link(await afar.join())
        for route in FleetRoutes.ALL:
            other = replace(route, method="DELETE", answer=dict)
            assert isinstance(await refusal_of(hive, other), NoSuchMethod), route.name

    with_queen(scenario)


# What they do


def test_a_machine_joins_holds_its_stream_beats_answers_and_renews(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        certificate = await afar.join()
        hive = afar.link(certificate)
        async with afar.stream(certificate) as uplink:
            assert (uplink.hive_id, uplink.instance, uplink.address) == ("gpu1", INSTANCE, "127.0.0.1")

            asking = asyncio.create_task(uplink.ask(HiveRoutes.HEALTH, timeout=5))
            asked = json.loads((await anext(afar.parts)).split(b"data: ")[1])
            assert (asked["method"], asked["path"]) == ("GET", "/health")
            headers = {"request_id": asked["id"], STATUS_HEADER: "200"}
            assert await hive.ask(FleetRoutes.ANSWER, WELL, headers=headers) == Taken("ok")
            assert await asking == HiveHealth("ok", "1")

            ack = await hive.ask(FleetRoutes.HEARTBEAT, beat("starting"))
            assert ack == HeartbeatAck("ok", 15_000)
            assert afar.queen.hives.view("gpu1").is_remote

            renewed: Joined = await hive.ask(FleetRoutes.RENEW, Renew(tls.request_for(tls.new_key())))
            assert renewed.hive_id == "gpu1"
        await until(lambda: afar.queen.hives.uplinks.find("gpu1") is None)

    with_queen(scenario)


def test_an_answer_that_nobody_waits_for_any_more_is_taken_and_comes_to_nothing(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        hive = afar.link(await afar.join())
        headers = {"request_id": REQUEST_ID, STATUS_HEADER: "200"}
        assert await hive.ask(FleetRoutes.ANSWER, WELL, headers=headers) == Taken("ok")

    with_queen(scenario)


def test_an_answer_that_is_too_large_is_refused_and_whoever_waits_for_it_hears_so(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        certificate = await afar.join()
        async with afar.stream(certificate) as uplink:
            asking = asyncio.create_task(uplink.ask(HiveRoutes.HEALTH, timeout=5))
            asked = json.loads((await anext(afar.parts)).split(b"data: ")[1])
            headers = {"request_id": asked["id"], STATUS_HEADER: "200"}
            link = afar.link(certificate)
            with pytest.raises(TooLarge) as caught:
                await link.ask(FleetRoutes.ANSWER, b" " * (BODY_LIMIT + 1), headers=headers)
            assert caught.value.status in FleetRoutes.ANSWER.problems
            with pytest.raises(RbeeError, match="the answer of the beehive gpu1: the body is larger than"):
                await asking

    with_queen(scenario)


def test_a_hive_answers_for_itself_and_for_no_other(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        first, second = await afar.join(), await afar.join("gpu2", OTHER)
        async with afar.stream(first) as uplink:
            asking = asyncio.create_task(uplink.ask(HiveRoutes.HEALTH, timeout=5))
            asked = json.loads((await anext(afar.parts)).split(b"data: ")[1])
            headers = {"request_id": asked["id"], STATUS_HEADER: "200"}
            lie = b'{"status": "ok", "version": "a lie"}'
            await afar.link(second).ask(FleetRoutes.ANSWER, lie, headers=headers)
            await afar.link(first).ask(FleetRoutes.ANSWER, WELL, headers=headers)
            assert await asking == HiveHealth("ok", "1")

    with_queen(scenario)


# What is refused


def test_a_beat_is_taken_from_its_own_hive_and_while_it_holds_its_stream(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        certificate, other = await afar.join(), await afar.join("gpu2", OTHER)
        hive = afar.link(certificate)
        with pytest.raises(HiveNotOnline, match="holds no stream open, and dials again"):
            await hive.ask(FleetRoutes.HEARTBEAT, beat("ready"))
        async with afar.stream(certificate):
            for name in ("gpu2", "localhost", "nobody"):
                with pytest.raises(NotPermitted, match="the credential of the hive gpu1, and of no other"):
                    await hive.ask(FleetRoutes.HEARTBEAT, replace(beat("starting"), hive_id=name))
            another: Heartbeat = replace(beat("starting"), instance="2" * 32)
            with pytest.raises(HiveNotOnline):
                await hive.ask(FleetRoutes.HEARTBEAT, another)
            with pytest.raises(NotPermitted):
                await afar.link(other).ask(FleetRoutes.HEARTBEAT, beat("starting"))
        assert afar.queen.hives.view("gpu2").last_beat_ms is None

    with_queen(scenario)


def test_each_refusal_is_one_that_the_route_has(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        queen, certificate = afar.queen, await afar.join()
        hive, stranger = afar.link(certificate), afar.link()
        request = tls.request_for(tls.new_key())
        good = Join(await queen.token(), "gpu2", OTHER, request, __version__)
        refused: list[tuple[Link, Route, Any, dict[str, str], type[RbeeError]]] = [
            (stranger, FleetRoutes.JOIN, b"[", {}, BadInput),
            (stranger, FleetRoutes.JOIN, b"{}", {}, BadInput),
            (stranger, FleetRoutes.JOIN, b" " * (BODY_LIMIT + 1), {}, TooLarge),
            (stranger, FleetRoutes.JOIN, replace(good, token="none"), {}, BadInput),
            (stranger, FleetRoutes.JOIN, replace(good, token=f"{'0' * 8}{good.token[8:]}"), {}, BadToken),
            (stranger, FleetRoutes.JOIN, replace(good, request="none"), {}, BadInput),
            (stranger, FleetRoutes.JOIN, replace(good, name="localhost"), {}, BadInput),
            (stranger, FleetRoutes.JOIN, replace(good, name="gpu1"), {}, NameTaken),
            (stranger, FleetRoutes.JOIN, replace(good, machine=MACHINE), {}, NameTaken),
            (stranger, FleetRoutes.JOIN, replace(good, version="99.0.0"), {}, VersionSkew),
            (hive, FleetRoutes.RENEW, Renew("none"), {}, BadInput),
            (hive, FleetRoutes.RENEW, b"{}", {}, BadInput),
            (hive, FleetRoutes.HEARTBEAT, b"{}", {}, BadInput),
            (hive, FleetRoutes.REQUESTS, None, {}, BadInput),
            (hive, FleetRoutes.REQUESTS, None, STREAM | {INSTANCE_HEADER: "1" * 31}, BadInput),
            (hive, FleetRoutes.REQUESTS, None, STREAM | {VERSION_HEADER: "99.0.0"}, VersionSkew),
            (hive, FleetRoutes.ANSWER, WELL, {}, BadInput),
            *(
                (hive, FleetRoutes.ANSWER, WELL, {STATUS_HEADER: status}, BadInput)
                for status in ("199", "600", "-1", "2OO", "9" * 300)
            ),
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

    with_queen(scenario)


def test_a_hive_that_was_removed_is_refused_by_every_route_but_those_to_join(with_queen: With) -> None:
    async def scenario(afar: Afar) -> None:
        hive = afar.link(await afar.join())
        job = afar.queen.work.remove("gpu1", OPERATOR, is_forced=True)
        await until(lambda: job.view().state != "running")
        asked: dict[Route, tuple[Any, dict[str, str]]] = {
            FleetRoutes.RENEW: (Renew(tls.request_for(tls.new_key())), {}),
            FleetRoutes.HEARTBEAT: (beat("ready"), {}),
            FleetRoutes.REQUESTS: (None, STREAM),
            FleetRoutes.ANSWER: (WELL, {STATUS_HEADER: "200"}),
        }
        assert {*asked, *OPEN} == set(FleetRoutes.ALL)
        for route, (body, headers) in asked.items():
            error = await refusal_of(hive, route, body, **headers)
            assert isinstance(error, UnknownHive), route.name
            assert error.status in route.problems
            assert "rbeectl join" in (error.hint or "")

    with_queen(scenario)
