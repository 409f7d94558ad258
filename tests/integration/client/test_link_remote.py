"""The kept connection to a queen on another machine: what its failures are called, and their cures."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import rbee.client.link
from rbee import tls
from rbee.client.link import Link, QueenAddress
from rbee.errors import Disconnected, NotRunning, RbeeError, TimedOut, UnknownHive, Unreachable, WrongQueen
from rbee.queen.authority import Authority
from rbee.server.app import build_app
from rbee.server.requests import remote_peer_of
from rbee.server.responses import event_stream
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.routes import INSTANCE_HEADER, FleetRoutes, QueenRoutes, Route
from tests.integration.remote_queen import (
    HERE,
    Play,
    credential,
    playing_over_tcp,
    queen_address,
    served_over_tcp,
    unheard_port,
)

pytestmark = pytest.mark.deadline(10)

Result = TypeVar("Result")

NAME = "queen.example"


@contextlib.asynccontextmanager
async def linked(place: QueenAddress, *, timeout: float = 5) -> AsyncIterator[Link]:
    link = Link(place, timeout=timeout)
    try:
        yield link
    finally:
        await link.close()


async def failure(place: QueenAddress, *, timeout: float = 5) -> RbeeError:
    async with linked(place, timeout=timeout) as link:
        with pytest.raises(RbeeError) as caught:
            await link.ask(QueenRoutes.HEALTH)
        return caught.value


async def failure_with(play: Play, context: ssl.SSLContext | None, authority: Authority) -> RbeeError:
    """The error that a request meets with a server that plays so."""

    async with playing_over_tcp(play, context) as port:
        return await failure(queen_address(authority, port))


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers each request as a queen who is well does."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(WELL)
            await writer.drain()


CONTENT = b'{"status": "ok", "version": "1"}'
WELL = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT


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


# A queen who is well


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


# What each failure is called


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
    with _speaking(older) as port:
        error = await failure(queen_address(authority, port))

    assert type(error) is Unreachable
    assert "does not speak TLS as expected" in error.message


async def test_an_alert_that_she_does_not_know_the_certificate_is_told_so(
    authority: Authority, tmp_path: Path
) -> None:
    foreign = credential(Authority.open(tmp_path / "other"), tmp_path / "foreign")
    with _speaking(authority.context()) as port:  # which sends alerts, as asyncio's server does not
        error = await failure(queen_address(authority, port, foreign))

    assert type(error) is WrongQueen
    assert "does not know this hive's certificate" in error.message
    assert error.hint == "To join: sudo rbeectl join QUEEN:8500 --token TOKEN"


@contextlib.contextmanager
def _speaking(context: ssl.SSLContext) -> Iterator[int]:
    """A server of one connection, that is Python's blocking one; its port."""

    def serve() -> None:
        channel, _ = listener.accept()
        channel.settimeout(5)
        beside = channel.dup()
        spoken = context.wrap_socket(channel, server_side=True, do_handshake_on_connect=False)
        with beside, spoken, contextlib.suppress(OSError):
            try:
                spoken.do_handshake()
            except ssl.SSLError:
                # To its end, or closing would be a reset, which overtakes the alert.
                beside.settimeout(5)
                while beside.recv(4096):
                    pass
            spoken.recv(1)

    with socket.create_server((HERE, 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1]
        serving.join()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    channel = writer.get_extra_info("socket")
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
    assert type(await failure_with(half_an_answer, authority.context(), authority)) is Disconnected


# One request after the other


class Held:
    """Answers the first requests only when they are released. `most` is how many were under way at once."""

    def __init__(self, count: int) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.ports: list[int] = []
        self.under_way = self.most = 0
        self._count = count

    def app(self) -> ASGIApp:
        return build_app("a queen", "1", {QueenRoutes.HEALTH: self._health})

    async def _health(self, request: Request) -> Health:
        assert request.client is not None
        self.ports.append(request.client.port)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if len(self.ports) <= self._count:
                self.entered.set()
                await self.release.wait()
            return Health("ok", "1")
        finally:
            self.under_way -= 1


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


# A stream


STREAM: Route[None] = Route("GET", "/v1/stream", "A stream", None)


class Chunks:
    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.more: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.more.get()) is not None:
            yield chunk

    async def aclose(self) -> None:
        self.ended.set()


Told = Callable[[Link, Chunks], Coroutine[Any, Any, Result]]


async def streaming(authority: Authority, notifier: Notifier, work: Told[Result]) -> Result:
    chunks = Chunks()

    async def requests(request: Request) -> Response:
        assert request.headers[INSTANCE_HEADER] == "i"
        return event_stream(chunks)

    app = build_app("a queen", "1", {STREAM: requests})
    async with served_over_tcp(app, authority.context(), notifier) as port:
        async with linked(queen_address(authority, port)) as link:
            told = await work(link, chunks)
        await chunks.ended.wait()
        return told


def opened(link: Link, *, silence: float = 5) -> Any:
    return link.stream(STREAM, headers={INSTANCE_HEADER: "i"}, silence=silence)


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


async def test_an_answer_over_the_limit_is_not_read_to_its_end(
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
