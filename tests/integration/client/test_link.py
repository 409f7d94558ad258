"""The daemons' kept connection, within a machine and to a queen on another, and the errors of both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

import rbee.client.link
from rbee import tls
from rbee.client.answers import ANSWER_LIMIT
from rbee.client.link import HeartbeatClient, HiveClient, Link, QueenAddress
from rbee.errors import (
    BadInput,
    Disconnected,
    HiveFailed,
    NotRunning,
    RbeeError,
    TimedOut,
    UnknownHive,
    Unreachable,
    WrongQueen,
)
from rbee.queen.authority import Authority
from rbee.server.app import Handler, build_app
from rbee.server.requests import read_shape, remote_peer_of
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.devices import Cpu, Devices
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import FleetRoutes, HiveRoutes, QueenRoutes, Route
from tests.integration.client.linked import (
    NAME,
    STREAM,
    WELL,
    Chunks,
    Held,
    failure,
    failure_with,
    linked,
    opened,
    speaking,
    streaming,
    well,
)
from tests.integration.remote_queen import (
    HERE,
    Play,
    credential,
    playing_over_tcp,
    queen_address,
    served_over_tcp,
    unheard_port,
)
from tests.integration.unix_http import playing, served

pytestmark = pytest.mark.deadline(10)

DEVICES = Devices(Cpu("a cpu", 1, 2, 4, 8 * 2**30))
BEAT = Heartbeat("localhost", "2026-01-31T12:00:00Z", (), "0" * 32)


def app(handlers: dict[Route, Handler] | None = None) -> Router:
    async def health(_request: Request) -> Health:
        return Health("ok", "1")

    return build_app("a test", "1", {QueenRoutes.HEALTH: health, **(handlers or {})})


class Connections:
    """Plays a server that counts its connections and answers each request with the next answer."""

    def __init__(self, *answers: bytes) -> None:
        self.count = 0
        self._answers = list(answers)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if not self._answers:
                    await asyncio.Event().wait()
                writer.write(self._answers.pop(0))
                await writer.drain()


def answer(content: bytes = b'{"status": "ok", "version": "1"}', status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


# Keeping a connection


async def test_one_connection_is_kept_for_all_requests(tmp_path: Path) -> None:
    server = Connections(*[answer()] * 3)

    async with playing(tmp_path / "s", server), linked(tmp_path / "s") as link:
        assert [await link.ask(QueenRoutes.HEALTH) for _ in range(3)] == [Health("ok", "1")] * 3
    assert server.count == 1


async def test_requests_at_once_go_one_after_the_other_over_the_one_connection(tmp_path: Path) -> None:
    server = Connections(*[answer()] * 5)

    async with playing(tmp_path / "s", server), linked(tmp_path / "s") as link:
        assert len(await asyncio.gather(*(link.ask(QueenRoutes.HEALTH) for _ in range(5)))) == 5
    assert server.count == 1


async def test_it_is_open_after_a_request_and_no_more_once_the_server_is_gone(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with linked(tmp_path / "s") as link:
        before = link.is_open
        async with served(app(), tmp_path / "s", silent_notifier) as stop:
            await link.ask(QueenRoutes.HEALTH)
            during = link.is_open
            await stop()
        assert (before, during, link.is_open) == (False, True, False)


async def test_it_is_still_open_after_a_refusal(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def refuse(_request: Request) -> Health:
        raise UnknownHive("nobody knows you")

    async with (
        served(app({QueenRoutes.HEALTH: refuse}), tmp_path / "s", silent_notifier),
        linked(tmp_path / "s") as link,
    ):
        with pytest.raises(UnknownHive, match="nobody knows you"):
            await link.ask(QueenRoutes.HEALTH)
        assert link.is_open


async def test_it_is_not_open_while_a_request_is_under_way(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await asyncio.Event().wait()

    async with playing(tmp_path / "s", play), linked(tmp_path / "s") as link:
        asking = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH))
        await asyncio.wait_for(asked.wait(), 5)
        is_open = link.is_open
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not link.is_open, "who was cut off must not be taken up again"
        assert not is_open


async def test_a_server_that_came_back_is_reached_again(tmp_path: Path, silent_notifier: Notifier) -> None:
    told = []
    async with linked(tmp_path / "s") as link:
        for _ in range(2):
            async with served(app(), tmp_path / "s", silent_notifier):
                told.append(await link.ask(QueenRoutes.HEALTH))
            with pytest.raises(NotRunning):
                await link.ask(QueenRoutes.HEALTH)
            (tmp_path / "s").unlink()
    assert told == [Health("ok", "1")] * 2


# What goes wrong


async def failing(path: Path, play: Any, *, timeout: float = 5) -> RbeeError:
    """The error that a request meets with a server that plays so, and then a server that is well."""

    async with linked(path, timeout=timeout) as link:
        async with playing(path, play):
            with pytest.raises(RbeeError) as caught:
                await link.ask(QueenRoutes.HEALTH)
        path.unlink()
        async with playing(path, Connections(answer())):
            assert await link.ask(QueenRoutes.HEALTH) == Health("ok", "1"), "the link must recover"
        return caught.value


def saying(said: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    return play


async def test_a_missing_socket_and_a_refused_connection_mean_that_nobody_listens(tmp_path: Path) -> None:
    async with linked(tmp_path / "s") as link:
        with pytest.raises(NotRunning, match=f"nobody listens on {tmp_path}/s"):
            await link.ask(QueenRoutes.HEALTH)
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(tmp_path / "s"))
        with pytest.raises(NotRunning, match=f"nobody listens on {tmp_path}/s"):
            await link.ask(QueenRoutes.HEALTH)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"220 mail.example ESMTP\r\n\r\n",
        answer(b"<html>"),
        answer(b"[" * 100_000),
        answer(b"<html>", "502 Bad Gateway"),
        answer(b"[]", "500 Internal Server Error"),
        answer(b"[]"),
        answer(b'{"status": "dead"}'),
    ],
    ids=lambda said: said[:60].decode("latin-1"),
)
async def test_an_answer_that_is_not_as_agreed_is_unreachable(tmp_path: Path, said: bytes) -> None:
    assert type(await failing(tmp_path / "s", saying(said))) is Unreachable


async def test_an_answer_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    error = await failing(tmp_path / "s", saying(answer(b" " * (ANSWER_LIMIT + 1))))

    assert type(error) is Unreachable
    assert f"larger than {ANSWER_LIMIT} bytes" in error.message


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status"')
    await asyncio.Event().wait()


async def a_trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("play", [silence, half_an_answer, a_trickle], ids=lambda play: play.__name__)
async def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, play: Any) -> None:
    began = time.monotonic()

    error = await failing(tmp_path / "s", play, timeout=0.1)

    assert type(error) is TimedOut
    assert error.message == f"{tmp_path}/s did not answer within 0.1 s"
    assert time.monotonic() - began < 2


async def test_a_request_may_have_a_deadline_of_its_own(tmp_path: Path) -> None:
    async with playing(tmp_path / "s", silence), linked(tmp_path / "s", timeout=60) as link:
        with pytest.raises(TimedOut, match=r"within 0.05 s"):
            await link.ask(QueenRoutes.HEALTH, timeout=0.05)


# What is asked over it


async def test_a_hive_s_devices_come_back_and_the_job_goes_along(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    jobs = []

    async def devices(request: Request) -> Devices:
        jobs.append(request.headers.get("rbee-job-id"))
        return DEVICES

    async with (
        served(app({HiveRoutes.DEVICES: devices}), tmp_path / "s", silent_notifier),
        linked(tmp_path / "s") as link,
    ):
        hive = HiveClient(link)
        assert [await hive.devices(job_id=job_id, timeout=5) for job_id in ("7" * 32, None)] == [
            DEVICES,
            DEVICES,
        ]
    assert jobs == ["7" * 32, None]


@pytest.mark.parametrize("said", [answer(b'{"cpu": {}}'), answer(b"{}"), answer(b"[]")])
async def test_devices_that_are_not_as_agreed_are_the_hive_s_failure(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async with playing(tmp_path / "s", Connections(said)), linked(tmp_path / "s") as link:
            await HiveClient(link).devices(job_id=None, timeout=5)

    with pytest.raises((HiveFailed, Unreachable)) as caught:
        await scenario()
    assert not isinstance(caught.value, BadInput)


async def test_a_beat_goes_up_and_its_ack_comes_back(tmp_path: Path, silent_notifier: Notifier) -> None:
    beats = []

    async def heartbeat(request: Request) -> HeartbeatAck:
        beats.append(await read_shape(request, Heartbeat))
        return HeartbeatAck("ok", 15_000, "7" * 32)

    async with (
        served(app({QueenRoutes.HEARTBEAT: heartbeat}), tmp_path / "s", silent_notifier),
        linked(tmp_path / "s") as link,
    ):
        queen = HeartbeatClient(link)
        assert not queen.is_open
        assert (await queen.beat(BEAT), queen.is_open) == (HeartbeatAck("ok", 15_000, "7" * 32), True)
    assert beats == [BEAT]


# A queen on another machine


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "keys")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | OSError]:
    """What the resolver knows beside numbers: an address for each name, or its error."""
    known: dict[str, str | OSError] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        found = known.get(host.decode() if isinstance(host, bytes) else host, host)
        if isinstance(found, OSError):
            raise found
        return resolve(found, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


async def test_a_queen_is_reached_under_any_name_as_long_as_she_has_the_keys(
    authority: Authority, names: dict[str, str | OSError]
) -> None:
    names[NAME] = HERE

    told = []
    async with playing_over_tcp(well, authority.context()) as port:
        for host in (HERE, NAME):
            async with linked(queen_address(authority, port, host=host)) as link:
                told.append(await link.ask(QueenRoutes.HEALTH))
    assert told == [Health("ok", "1")] * 2


async def test_the_hive_s_certificate_says_who_asks(
    authority: Authority, tmp_path: Path, silent_notifier: Notifier
) -> None:
    certificate = credential(authority, tmp_path / "membership")
    seen = []

    async def health(request: Request) -> Health:
        seen.append(remote_peer_of(request))
        return Health("ok", "1")

    app = build_app("a queen", "1", {QueenRoutes.HEALTH: health})

    async with served_over_tcp(app, authority.context(), silent_notifier) as port:
        for shown in (certificate, None):
            async with linked(queen_address(authority, port, shown)) as link:
                await link.ask(QueenRoutes.HEALTH)
    assert [(peer.address, peer.credential) for peer in seen] == [(HERE, "c" * 32), (HERE, None)]


def test_an_ipv6_address_is_told_in_brackets(authority: Authority) -> None:
    assert str(queen_address(authority, 8500, host="fd00::1")) == "[fd00::1]:8500"
    assert str(queen_address(authority, 8500, host=NAME)) == f"{NAME}:8500"


async def test_an_answer_may_be_a_file(authority: Authority, silent_notifier: Notifier) -> None:
    async def ca(_request: Request) -> Response:
        return Response("a certificate", media_type=FleetRoutes.CA.media_type)

    app = build_app("a queen", "1", {FleetRoutes.CA: ca})
    async with (
        served_over_tcp(app, authority.context(), silent_notifier) as port,
        linked(queen_address(authority, port)) as link,
    ):
        assert await link.ask(FleetRoutes.CA) == b"a certificate"


async def test_a_port_that_is_closed_is_a_queen_who_is_not_open(authority: Authority) -> None:
    with unheard_port() as port:
        error = await failure(queen_address(authority, port))

    assert type(error) is NotRunning
    assert error.message == f"nobody listens on {HERE}:{port}"
    assert error.hint == "On the queen's machine: rbeectl tcp enable; rbeectl wake"


async def test_a_name_that_is_not_known_says_so(
    authority: Authority, names: dict[str, str | OSError]
) -> None:
    names[NAME] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    error = await failure(queen_address(authority, 8500, host=NAME))

    assert type(error) is Unreachable
    assert error.message == f"the name in {NAME}:8500 is not known (Name or service not known)"
    assert error.hint == f"getent hosts {NAME}"


@pytest.mark.parametrize(
    "code", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES], ids=errno.errorcode.get
)
async def test_a_network_that_says_no_is_told_in_its_words(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async def refuse(_loop: Any, _channel: Any, _address: Any) -> None:
        raise OSError(code, "Connect call failed ('192.0.2.1', 8500)")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)

    error = await failure(queen_address(authority, 8500))

    assert type(error) is Unreachable
    assert error.message == f"{HERE}:8500 cannot be reached ({os.strerror(code)})"


async def test_a_queen_who_takes_the_connection_and_says_nothing_is_not_waited_for(
    authority: Authority,
) -> None:
    with socket.create_server((HERE, 0)) as silent:
        error = await failure(queen_address(authority, silent.getsockname()[1]), timeout=0.1)

    assert type(error) is TimedOut
    assert error.message.endswith("did not answer within 0.1 s")


async def test_one_with_another_ca_is_another_queen_and_hears_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    heard = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))

    error = await failure_with(listen, Authority.open(tmp_path / "other").context(), authority)

    assert type(error) is WrongQueen
    assert "is another queen" in error.message
    assert error.hint == "If the queen has made new keys: sudo rbeectl join QUEEN:8500 --token TOKEN"
    assert heard == []


async def test_a_hive_s_certificate_makes_no_queen(authority: Authority, tmp_path: Path) -> None:
    stolen = credential(authority, tmp_path / "membership")
    context = tls.server_context(authority.ca, stolen, stolen)

    error = await failure_with(well, context, authority)

    assert type(error) is WrongQueen


@pytest.mark.parametrize(
    ("setting", "span"),
    [("QUEEN_LIFE", timedelta(minutes=-30)), ("CLOCKS", timedelta(hours=-1))],
    ids=["expired", "not yet valid"],
)
async def test_a_certificate_out_of_its_time_hints_at_the_clocks(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, setting: str, span: timedelta
) -> None:
    monkeypatch.setattr(f"rbee.queen.authority.{setting}", span)

    error = await failure_with(well, authority.context(), authority)

    assert type(error) is Unreachable
    assert "is not valid at this time" in error.message
    assert error.hint == "Compare the clocks of both machines: timedatectl"


async def test_one_who_speaks_plain_http_does_not_speak_tls(authority: Authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()

    error = await failure_with(plain, None, authority)

    assert type(error) is Unreachable
    assert "does not speak TLS as expected (wrong version number)" in error.message


async def test_an_older_tls_is_not_spoken(authority: Authority, tmp_path: Path) -> None:
    authority.context()  # makes her certificate
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    older.load_cert_chain(tmp_path / "keys" / "queen.crt", tmp_path / "keys" / "queen.key")
    with speaking(older) as port:
        error = await failure(queen_address(authority, port))

    assert type(error) is Unreachable
    assert "does not speak TLS as expected" in error.message


async def test_an_alert_that_she_does_not_know_the_certificate_is_told_so(
    authority: Authority, tmp_path: Path
) -> None:
    foreign = credential(Authority.open(tmp_path / "other"), tmp_path / "foreign")
    with speaking(authority.context()) as port:  # which sends alerts, as asyncio's server does not
        error = await failure(queen_address(authority, port, foreign))

    assert type(error) is WrongQueen
    assert "does not know this hive's certificate" in error.message
    assert error.hint == "To join: sudo rbeectl join QUEEN:8500 --token TOKEN"


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    channel = writer.get_extra_info("socket")
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(WELL[:-5])
    await writer.drain()
    await reset(reader, writer)


@pytest.mark.parametrize(
    ("play", "is_tls"),
    [(reset, False), (reset, True), (hang_up, True)],
    ids=["reset in the handshake", "reset after it", "closed after it"],
)
async def test_a_connection_that_breaks_is_told_as_that(
    authority: Authority, play: Play, is_tls: bool
) -> None:
    error = await failure_with(play, authority.context() if is_tls else None, authority)

    assert type(error) is Disconnected
    assert error.message.endswith("broke")
    assert error.hint is None


async def test_an_answer_that_breaks_off_in_its_middle_is_told_as_that(authority: Authority) -> None:
    assert type(await failure_with(break_off, authority.context(), authority)) is Disconnected


async def test_requests_of_one_link_wait_their_turn_and_go_over_one_connection(
    authority: Authority, silent_notifier: Notifier
) -> None:
    held = Held(1)
    async with (
        served_over_tcp(held.app(), authority.context(), silent_notifier) as port,
        linked(queen_address(authority, port)) as link,
    ):
        asking = [asyncio.ensure_future(link.ask(QueenRoutes.HEALTH)) for _ in range(5)]
        await held.entered.wait()
        assert not any(task.done() for task in asking)
        held.release.set()
        assert await asyncio.gather(*asking) == [Health("ok", "1")] * 5
    assert held.most == 1
    assert len(held.ports) == 5
    assert len(set(held.ports)) == 1


async def test_who_waits_in_vain_for_its_turn_does_not_disturb_the_one_before(
    authority: Authority, silent_notifier: Notifier
) -> None:
    held = Held(1)
    async with (
        served_over_tcp(held.app(), authority.context(), silent_notifier) as port,
        linked(queen_address(authority, port)) as link,
    ):
        first = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH))
        await held.entered.wait()
        with pytest.raises(TimedOut):
            await link.ask(QueenRoutes.HEALTH, timeout=0.02)
        second = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait((second,))
        held.release.set()
        assert await first == await link.ask(QueenRoutes.HEALTH) == Health("ok", "1")
    assert len(held.ports) == 2
    assert len(set(held.ports)) == 1


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_link_whose_request_was_cut_off_works_for_the_next(
    authority: Authority, silent_notifier: Notifier, how: str
) -> None:
    held = Held(1)
    async with (
        served_over_tcp(held.app(), authority.context(), silent_notifier) as port,
        linked(queen_address(authority, port)) as link,
    ):
        if how == "cancelled":
            asking = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH))
            await held.entered.wait()
            asking.cancel()
            await asyncio.wait((asking,))
            assert asking.cancelled()
        else:
            asking = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH, timeout=0.1))
            await held.entered.wait()
            with pytest.raises(TimedOut):
                await asking
        assert not link.is_open
        held.release.set()
        assert await link.ask(QueenRoutes.HEALTH) == Health("ok", "1")
        assert link.is_open
    assert len(set(held.ports)) == 2


async def test_requests_that_waited_behind_one_that_was_cut_off_are_still_answered(
    authority: Authority, silent_notifier: Notifier
) -> None:
    held = Held(1)
    async with (
        served_over_tcp(held.app(), authority.context(), silent_notifier) as port,
        linked(queen_address(authority, port)) as link,
    ):
        first = asyncio.ensure_future(link.ask(QueenRoutes.HEALTH))
        await held.entered.wait()
        behind = [asyncio.ensure_future(link.ask(QueenRoutes.HEALTH)) for _ in range(3)]
        first.cancel()
        told = await asyncio.gather(*behind)
        held.release.set()
        assert told == [Health("ok", "1")] * 3


async def test_a_stream_gives_its_parts_as_they_come_and_ends_in_order(
    authority: Authority, silent_notifier: Notifier
) -> None:
    async def work(link: Link, chunks: Chunks) -> list[bytes]:
        told = []
        async with opened(link) as parts:
            for part in (b"one", b"two", None):
                chunks.more.put_nowait(part)
                told.append(await anext(parts, b"(the end)"))
        return told

    assert await streaming(authority, silent_notifier, work) == [b"one", b"two", b"(the end)"]


async def test_a_stream_that_is_silent_for_too_long_has_timed_out(
    authority: Authority, silent_notifier: Notifier
) -> None:
    async def work(link: Link, chunks: Chunks) -> str:
        with pytest.raises(TimedOut) as caught:
            async with opened(link, silence=0.05) as parts:
                await anext(parts)
        return caught.value.message

    assert (await streaming(authority, silent_notifier, work)).endswith("was silent for 0.05 s")


async def test_a_stream_that_is_left_is_closed(authority: Authority, silent_notifier: Notifier) -> None:
    async def work(link: Link, chunks: Chunks) -> bool:
        async with opened(link) as parts:
            chunks.more.put_nowait(b"one")
            await anext(parts)
        await chunks.ended.wait()
        return link.is_open

    assert not await streaming(authority, silent_notifier, work)


async def test_a_stream_that_is_refused_is_refused_in_her_words(
    authority: Authority, silent_notifier: Notifier
) -> None:
    async def requests(_request: Request) -> Response:
        raise UnknownHive("you were removed", hint="join again")

    app = build_app("a queen", "1", {STREAM: requests})
    async with (
        served_over_tcp(app, authority.context(), silent_notifier) as port,
        linked(queen_address(authority, port)) as link,
    ):
        with pytest.raises(RbeeError) as caught:
            async with opened(link):
                pass
        error = caught.value
    assert (type(error), error.message, error.hint) == (UnknownHive, "you were removed", "join again")


async def test_a_stream_that_breaks_off_is_told_as_that(authority: Authority) -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await writer.drain()
        await go.wait()

    go = asyncio.Event()

    async def scenario() -> RbeeError:
        async with (
            playing_over_tcp(begin, authority.context()) as port,
            linked(queen_address(authority, port)) as link,
        ):
            try:
                async with opened(link) as parts:
                    assert await anext(parts) == b"one"
                    go.set()
                    await anext(parts)
            except RbeeError as error:
                return error
            raise AssertionError("nothing broke off")

    assert type(await scenario()) is Disconnected


async def test_a_stream_whose_head_does_not_come_is_not_waited_for(authority: Authority) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.Event().wait()

    async with (
        playing_over_tcp(silence, authority.context()) as port,
        linked(queen_address(authority, port), timeout=0.1) as link,
    ):
        with pytest.raises(RbeeError) as caught:
            async with opened(link):
                pass
        assert type(caught.value) is TimedOut


async def test_an_answer_of_a_remote_queen_over_the_limit_is_not_read_to_its_end(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.client.link, "ANSWER_LIMIT", 10)

    error = await failure_with(well, authority.context(), authority)

    assert type(error) is Unreachable
    assert "is larger than 10 bytes" in error.message


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "request"])
async def test_who_is_cancelled_while_it_connects_ends_though_the_library_calls_it_a_failure(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, is_stream: bool
) -> None:
    """As anyio before 4 does, whose connect_tcp() raises OSError then."""

    class Backend:
        async def connect_tcp(self, host: str, port: int, **_options: Any) -> Any:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise OSError("All connection attempts failed") from None

    monkeypatch.setattr(rbee.client.link, "_backend", lambda httpcore: Backend())

    async def dial() -> None:
        link = Link(QueenAddress("127.0.0.1", 1, tls.trusting_context()), timeout=30)
        if is_stream:
            async with link.stream(STREAM, headers={}, silence=30):
                pass
        else:
            await link.ask(FleetRoutes.CA)

    dialling = asyncio.get_running_loop().create_task(dial())
    await asyncio.sleep(0.1)  # it connects, of which nothing tells
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert dialling.cancelled()


FIRST_REQUEST = """
import asyncio, sys
from pathlib import Path
from rbee.later import UNUSED_BY_DAEMONS, put_off
put_off(UNUSED_BY_DAEMONS)
from rbee.client.link import Link
from rbee.wire.routes import HiveRoutes

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 404 Not Found\\r\\ncontent-length: 0\\r\\n\\r\\n")

async def main():
    async with await asyncio.start_unix_server(answer, sys.argv[1]):
        link = Link(Path(sys.argv[1]), timeout=5)
        await link.prepare()
        ready = set(sys.modules)
        try:
            await link.ask(HiveRoutes.DEVICES)
        except Exception as error:
            print(type(error).__name__)
        await link.close()
        new = {name.partition(".")[0] for name in set(sys.modules) - ready}
        print(*sorted(new & {"anyio", "h11", "httpcore", "sniffio"}))

asyncio.run(main())
"""


def test_after_prepare_the_first_request_imports_nothing_of_the_libraries(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_REQUEST, str(tmp_path / "hive.sock")],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n") == ["Unreachable", "", ""]
