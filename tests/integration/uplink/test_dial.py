"""A connection to the queen that continues with another protocol, and each answer with which it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import rbee.uplink.dial
from rbee.client.answers import ANSWER_LIMIT
from rbee.client.link import QueenAddress
from rbee.errors import ClonedHive, Disconnected, NotRunning, RbeeError, TimedOut, Unreachable, VersionSkew
from rbee.queen.authority import Authority
from rbee.server.transport import TlsTransport
from rbee.uplink.dial import dial
from rbee.uplink.frames import UplinkRoutes
from rbee.wire.routes import INSTANCE_HEADER
from tests.integration.remote_queen import Play, credential, playing_over_tcp, queen_address, unheard_port

pytestmark = pytest.mark.deadline(10)

CHANGES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: rbee-hive/1\r\n\r\n"


class End(asyncio.Protocol):
    """What came over the connection once it was this protocol's."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.hears = asyncio.Event()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.hears.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def certificate(authority: Authority, tmp_path: Path) -> Path:
    return credential(authority, tmp_path / "membership")


def answering(answer: bytes, asked: list[bytes] | None = None) -> Play:
    """A queen who answers the request so, and hangs up when the other side does."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(head)
        writer.write(answer)
        await reader.read()

    return play


async def dialled(queen: QueenAddress, end: asyncio.Protocol) -> TlsTransport:
    return await dial(queen, UplinkRoutes.CONTROL, {INSTANCE_HEADER: "1" * 32}, end)


async def refusal(queen: QueenAddress) -> RbeeError:
    with pytest.raises(RbeeError) as caught:
        await dialled(queen, End())
    return caught.value


async def test_what_follows_the_answer_is_the_new_protocol_s(authority: Authority, certificate: Path) -> None:
    asked: list[bytes] = []
    end = End()
    play = answering(CHANGES + b'{"goodbye":{}}\n', asked)
    async with playing_over_tcp(play, authority.context()) as port:
        transport = await dialled(queen_address(authority, port, certificate), end)
        await end.hears.wait()
        transport.abort()
        await end.lost.wait()

    assert end.received == b'{"goodbye":{}}\n'
    assert asked[0].startswith(b"GET /v1/uplink HTTP/1.1\r\n")
    assert b"\r\nUpgrade: rbee-hive/1\r\n" in asked[0]
    assert f"\r\n{INSTANCE_HEADER}: {'1' * 32}\r\n".encode() in asked[0]


PROBLEM = b'{"type": "urn:rbee:problem:cloned-hive", "title": "x", "status": 409, "detail": "another lives"}'


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Unreachable, "answers with 200 and does not"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unreachable, "does not speak HTTP"),
        (
            b"HTTP/1.1 500 x\r\nContent-Length: %d\r\n\r\n" % (ANSWER_LIMIT + 1) + b" " * (ANSWER_LIMIT + 1),
            Unreachable,
            f"is larger than {ANSWER_LIMIT} bytes",
        ),
        (
            b"HTTP/1.1 409 x\r\nContent-Length: %d\r\n\r\n" % len(PROBLEM) + PROBLEM,
            ClonedHive,
            "another lives",
        ),
    ],
    ids=["no change", "no HTTP", "too large", "a refusal"],
)
async def test_an_answer_that_changes_nothing_is_told_as_what_it_is(
    authority: Authority, certificate: Path, answer: bytes, kind: type[RbeeError], said: str
) -> None:
    async with playing_over_tcp(answering(answer), authority.context()) as port:
        error = await refusal(queen_address(authority, port, certificate))

    assert type(error) is kind
    assert said in error.message


async def test_a_queen_who_does_not_know_the_route_is_too_old(
    authority: Authority, certificate: Path
) -> None:
    problem = b'{"type": "urn:rbee:problem:no-such-route", "title": "x", "status": 404, "detail": "x"}'
    answer = b"HTTP/1.1 404 x\r\nContent-Length: %d\r\n\r\n" % len(problem) + problem
    async with playing_over_tcp(answering(answer), authority.context()) as port:
        error = await refusal(queen_address(authority, port, certificate))

    assert type(error) is VersionSkew
    assert error.hint == "On the queen's machine: upgrade rbee-queen"


async def test_one_who_hangs_up_has_broken_the_connection(authority: Authority, certificate: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with playing_over_tcp(hang_up, authority.context()) as port:
        error = await refusal(queen_address(authority, port, certificate))

    assert type(error) is Disconnected


async def test_one_who_does_not_answer_is_not_waited_for(
    authority: Authority, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.uplink.dial, "TIMEOUT", 0.3)
    async with playing_over_tcp(answering(b""), authority.context()) as port:
        error = await refusal(queen_address(authority, port, certificate))

    assert type(error) is TimedOut
    assert error.message.endswith("did not answer within 0.3 s")


async def test_a_port_that_is_closed_is_a_queen_who_is_not_open(
    authority: Authority, certificate: Path
) -> None:
    with unheard_port() as port:
        error = await refusal(queen_address(authority, port, certificate))

    assert type(error) is NotRunning
