"""The hive's way to a remote queen: when it dials again, and what it says of her meanwhile.

She is played with the product's own end of the connection, behind its own server and TLS; the dialler's
clock, chance and waits are played.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import rbee.hive.dial
import rbee.uplink.offer
from rbee import __version__
from rbee.client.link import QueenAddress
from rbee.errors import (
    ClonedHive,
    HiveFailed,
    HiveNotOnline,
    NotPermitted,
    RbeeError,
    UnknownHive,
    VersionSkew,
)
from rbee.hive.dial import (
    DOUBT_AFTER,
    DOUBT_SURE,
    FIRST_WAIT,
    LONGEST_WAIT,
    PATIENT_AFTER,
    PATIENT_WAIT,
    REFUSED_WAIT,
    Dialler,
)
from rbee.hive.heartbeat import Heart
from rbee.narration import Narrator
from rbee.queen.authority import Authority
from rbee.server.app import build_app
from rbee.server.upgrade import upgrade_to
from rbee.systemd.daemon import Notifier
from rbee.uplink.accept import Uplink
from rbee.uplink.frames import FRAME_LIMIT, UplinkRoutes
from rbee.uplink.offer import Offer
from rbee.wire.daemon import Health
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER, FleetRoutes, HiveRoutes
from tests.integration.remote_queen import (
    credential,
    playing_over_tcp,
    queen_address,
    served_over_tcp,
    unheard_port,
)

pytestmark = pytest.mark.deadline(10)


# The queen, played


class Stream:
    """A connection that a hive holds. `ended` is set when it does not any more."""

    def __init__(self, headers: dict[str, str], queen: Queen) -> None:
        self.headers = headers
        self.ended = asyncio.Event()
        self.uplink = Uplink("gpu1", headers[INSTANCE_HEADER.lower()], "127.0.0.1", queen.heard)
        self.uplink.when_ended(lambda uplink: self.ended.set())

    def close(self) -> None:
        self.uplink.close()


class Queen:
    """`story` is what hives did, in order; a refusal is raised for all that come while it is there."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open(folder / "keys")
        self.certificate = credential(self.authority, folder / "membership")
        self.story: list[str] = []
        self.beats: list[Heartbeat] = []
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.carriers = 0
        self.drops = 0
        """Connections for her requests that break before they are there."""
        self.ready = asyncio.Event()
        self.refusal: RbeeError | None = None
        self.beat_refusal: RbeeError | None = None
        self.carrier_refusal: RbeeError | None = None
        self.silence: asyncio.Event | None = None
        """She answers no beat until it is set."""
        self._stream: Stream | None = None

    async def _ca(self, _request: Request) -> Response:
        self.story.append("ca")
        return Response(self.authority.ca, media_type=FleetRoutes.CA.media_type)

    async def _control(self, request: Request) -> Response:
        self.story.append("stream")
        if self.refusal is not None:
            raise self.refusal
        self._stream = Stream(dict(request.headers), self)
        self.streams.put_nowait(self._stream)
        return upgrade_to(self._stream.uplink)

    async def _carrier(self, request: Request) -> Response:
        self.carriers += 1
        if self.drops:
            self.drops -= 1
            request.scope["rbee.drop"]()
        if self.carrier_refusal is not None:
            raise self.carrier_refusal
        assert self._stream is not None
        return upgrade_to(self._stream.uplink.take_carrier(request.path_params["dial_id"]))

    async def heard(self, beat: Heartbeat) -> HeartbeatAck:
        self.story.append(beat.state)
        if self.silence is not None:
            await self.silence.wait()
        if self.beat_refusal is not None:
            raise self.beat_refusal
        self.beats.append(beat)
        if beat.state == "ready":
            self.ready.set()
        return HeartbeatAck("ok", 15_000)

    def app(self) -> ASGIApp:
        return build_app(
            "a queen",
            "1",
            {
                FleetRoutes.CA: self._ca,
                UplinkRoutes.CONTROL: self._control,
                UplinkRoutes.CARRIER: self._carrier,
            },
        )


# The hive around its dialler


async def health(_request: Request) -> Health:
    return Health("ok", "1")


HIVE = build_app("a hive", "1", {HiveRoutes.HEALTH: health})


class Times:
    """Clock, chance and waits of rbee.hive.dial. A wait is over at once; the one numbered `last` never is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, last: int = 1) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.done = asyncio.Event()
        self._last = last
        monkeypatch.setattr(rbee.hive.dial, "asyncio", self)
        monkeypatch.setattr(rbee.hive.dial, "random", SimpleNamespace(uniform=lambda least, most: most))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        if len(self.waits) >= self._last:
            self.done.set()
            await asyncio.Event().wait()


@dataclass
class Hive:
    dialler: Dialler
    offer: Offer
    heart: Heart
    status: list[str]
    """The unit's status texts."""
    running: asyncio.Task[None]


@asynccontextmanager
async def dialling(
    queen: QueenAddress, times: Times, *, stranger: QueenAddress | None = None, app: ASGIApp = HIVE
) -> AsyncIterator[Hive]:
    status: list[str] = []
    offer = Offer(queen)
    heart = Heart("gpu1", offer, Narrator(), status=status.append, queen_name="queen:8500")
    dialler = Dialler(heart, app, queen, lambda: stranger or queen, offer, clock=times.clock)
    running = asyncio.get_running_loop().create_task(dialler.run())
    test = asyncio.current_task()
    assert test is not None
    running.add_done_callback(lambda ended: ended.cancelled() or test.cancel())
    try:
        yield Hive(dialler, offer, heart, status, running)
    finally:
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            raise AssertionError("it must dial for ever") from ended


@asynccontextmanager
async def held(
    queen: Queen, notifier: Notifier, times: Times, *, app: ASGIApp = HIVE
) -> AsyncIterator[tuple[Hive, Stream]]:
    """A hive that is connected, and has beaten."""
    async with (
        served_over_tcp(queen.app(), queen.authority.context(), notifier) as port,
        dialling(queen_address(queen.authority, port, queen.certificate), times, app=app) as hive,
    ):
        stream = await queen.streams.get()
        await queen.ready.wait()
        yield hive, stream


@pytest.fixture
def queen(tmp_path: Path) -> Queen:
    return Queen(tmp_path)


# Beating


async def test_it_beats_once_its_stream_is_there_and_says_which_process_and_version_it_is(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held(queen, silent_notifier, Times(monkeypatch)) as (hive, stream):
        assert stream.headers[INSTANCE_HEADER.lower()] == hive.heart.instance
        headers = stream.headers

    assert queen.story == ["stream", "starting", "ready"]
    assert headers[VERSION_HEADER.lower()] == __version__
    assert {beat.instance for beat in queen.beats} == {headers[INSTANCE_HEADER.lower()]}


async def test_it_does_not_beat_where_it_gets_no_stream(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    queen.refusal = HiveFailed("not now")
    times = Times(monkeypatch, last=3)

    async with (
        served_over_tcp(queen.app(), queen.authority.context(), silent_notifier) as port,
        dialling(queen_address(queen.authority, port, queen.certificate), times),
    ):
        await times.done.wait()
    assert queen.story == ["stream"] * 3


async def test_it_stops_beating_when_its_stream_ends_and_beats_at_once_over_the_next(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=2)

    async with held(queen, silent_notifier, times) as (_, stream):
        queen.ready.clear()
        stream.close()
        again = await queen.streams.get()
        await queen.ready.wait()
        again.close()
        await times.done.wait()
        working = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}

    assert queen.story == ["stream", "starting", "ready", "stream", "ready"]
    assert "Dialler.run" in working
    assert "Heart.run" not in working


async def test_a_dialler_that_is_cancelled_ends_its_stream_and_leaves_no_task(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held(queen, silent_notifier, Times(monkeypatch)) as (hive, stream):
        hive.running.cancel()
        await asyncio.wait((hive.running,))
        await stream.ended.wait()
        assert not {
            name
            for name in {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
            if name.startswith(("Dialler.", "Heart."))
        }


async def test_a_beat_that_is_not_answered_ends_the_connection(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.uplink.offer, "TIMEOUT", 0.1)
    times = Times(monkeypatch)

    async with held(queen, silent_notifier, times) as (hive, stream):
        queen.silence = asyncio.Event()
        await hive.heart.beat()
        await stream.ended.wait()
        await times.done.wait()
        queen.silence.set()
        assert "did not answer a beat within 0.1 s" in hive.status[-1]
    assert times.waits == [FIRST_WAIT]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"x" * (FRAME_LIMIT + 1), f"a frame is larger than {FRAME_LIMIT} bytes"),
        (b"[]\n", "a frame must be a JSON object with one member"),
        (b'{"beat": {}}\n', "beat.hive_id"),
        (b'{"dial": {"id": "none"}}\n', "dial.id"),
    ],
    ids=["large", "list", "bad beat", "bad id"],
)
async def test_a_queen_who_does_not_speak_as_agreed_is_left_and_that_is_no_refusal(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, sent: bytes, told: str
) -> None:
    times = Times(monkeypatch)

    async with held(queen, silent_notifier, times) as (hive, stream):
        assert stream.uplink.transport is not None
        stream.uplink.transport.write(sent)
        await stream.ended.wait()
        await times.done.wait()
        assert told in hive.status[-1]
    assert times.waits == [FIRST_WAIT]


async def test_a_queen_of_before_is_told_apart_by_her_version(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build_app("a queen of before", "1", {})
    times = Times(monkeypatch)

    async with (
        served_over_tcp(app, queen.authority.context(), silent_notifier) as port,
        dialling(queen_address(queen.authority, port, queen.certificate), times) as hive,
    ):
        await times.done.wait()
        assert f"is older than rbee-hive {__version__} and does not know its connections" in hive.status[-1]
    assert times.waits == [REFUSED_WAIT]


# Dialling again


def waits_until_patient() -> list[float]:
    waits, wait, alone = [], FIRST_WAIT, 0.0
    while alone <= PATIENT_AFTER:
        waits.append(wait)
        alone += wait
        wait = min(2 * wait, LONGEST_WAIT)
    return waits


async def test_it_waits_twice_as_long_each_time_up_to_2_s_and_after_a_minute_15_s(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = waits_until_patient()
    times = Times(monkeypatch, last=len(growing) + 2)

    with unheard_port() as port:
        async with dialling(queen_address(queen.authority, port, queen.certificate), times) as hive:
            await times.done.wait()
            status = hive.status

    assert growing[:8] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]
    # The waits between: she is alone for more than a minute when the last of `growing` is over.
    assert times.waits == pytest.approx([*growing, PATIENT_WAIT, PATIENT_WAIT])
    assert "nobody listens on 127.0.0.1" in status[-1]


async def test_each_wait_is_shortened_by_chance_by_half_at_the_most(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = rbee.hive.dial.random
    times = Times(monkeypatch, last=40)
    monkeypatch.setattr(rbee.hive.dial, "random", chance)
    monkeypatch.setattr(rbee.hive.dial, "LONGEST_WAIT", FIRST_WAIT)

    with unheard_port() as port:
        async with dialling(queen_address(queen.authority, port, queen.certificate), times):
            await times.done.wait()
    assert all(FIRST_WAIT / 2 <= wait <= FIRST_WAIT for wait in times.waits)
    assert len(set(times.waits)) > 20
    assert min(times.waits) < 0.7 * FIRST_WAIT < 0.8 * FIRST_WAIT < max(times.waits)


async def test_after_a_stream_that_held_it_begins_with_the_shortest_wait_again(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=5)

    async with held(queen, silent_notifier, times) as (_, stream):
        stream.close()
        for _ in range(2):  # these break at once, as those of a queen who dies again and again
            (await queen.streams.get()).close()
        queen.ready.clear()
        stream = await queen.streams.get()
        await queen.ready.wait()
        times.now += LONGEST_WAIT + 0.1
        stream.close()
        (await queen.streams.get()).close()
        await times.done.wait()
    assert times.waits == pytest.approx([0.05, 0.1, 0.2, 0.05, 0.1])


async def test_a_queen_who_was_there_a_moment_ago_is_dialled_often_however_long_it_was(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch)

    async with held(queen, silent_notifier, times) as (_, stream):
        times.now += 100 * PATIENT_AFTER
        stream.close()
        await times.done.wait()
    assert times.waits == [FIRST_WAIT]


# Classes, as an instance would keep, by its traceback, the frames and connections that it was raised through.
@pytest.mark.parametrize(
    "kind", [ClonedHive, NotPermitted, UnknownHive, VersionSkew], ids=lambda kind: kind.slug
)
async def test_a_queen_who_does_not_want_it_is_asked_again_a_minute_later(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, kind: type[RbeeError]
) -> None:
    queen.refusal = kind("not you")
    times = Times(monkeypatch, last=2)

    async with (
        served_over_tcp(queen.app(), queen.authority.context(), silent_notifier) as port,
        dialling(queen_address(queen.authority, port, queen.certificate), times) as hive,
    ):
        await times.done.wait()
        assert "not you" in hive.status[-1]
    assert times.waits == [REFUSED_WAIT, REFUSED_WAIT]


async def test_a_beat_that_is_refused_ends_the_stream_and_counts_as_a_refusal(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=2)

    async with held(queen, silent_notifier, times) as (hive, stream):
        queen.beat_refusal = UnknownHive("you were removed")
        # The next beat is due in 15 s, and over the next stream at once.
        stream.close()
        stream = await queen.streams.get()
        await stream.ended.wait()
        await times.done.wait()
        assert "you were removed" in hive.status[-1]
    assert times.waits == [FIRST_WAIT, REFUSED_WAIT]


async def test_a_beat_refused_for_want_of_a_stream_has_it_dial_again_soon(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=2)
    queen.beat_refusal = HiveNotOnline("you hold no stream open")

    async with (
        served_over_tcp(queen.app(), queen.authority.context(), silent_notifier) as port,
        dialling(queen_address(queen.authority, port, queen.certificate), times),
    ):
        await times.done.wait()
    assert times.waits == [0.05, 0.1]


# Certificates


async def test_another_queen_is_told_apart_and_asked_again_a_minute_later(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Authority.open(tmp_path / "other")
    times = Times(monkeypatch)

    async with (
        served_over_tcp(queen.app(), other.context(), silent_notifier) as port,
        dialling(queen_address(queen.authority, port, queen.certificate), times) as hive,
    ):
        await times.done.wait()
        assert "is another queen" in hive.status[-1]
    assert times.waits == [REFUSED_WAIT]
    assert queen.story == []


async def test_a_certificate_that_she_does_not_know_is_refused_by_tls(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = credential(Authority.open(tmp_path / "other"), tmp_path / "foreign")
    times = Times(monkeypatch, last=3)

    async with served_over_tcp(queen.app(), queen.authority.context(), silent_notifier) as port:
        stranger = queen_address(queen.authority, port)
        async with dialling(queen_address(queen.authority, port, foreign), times, stranger=stranger) as hive:
            await times.done.wait()
            assert "does not know this hive's certificate" in hive.status[-1]
    assert times.waits[-1] == REFUSED_WAIT


async def test_without_a_tls_alert_the_refusal_is_recognised_by_an_unauthenticated_request(
    queen: Queen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = credential(Authority.open(tmp_path / "other"), tmp_path / "foreign")
    times = Times(monkeypatch, last=3)
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        content = queen.authority.ca.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await reader.read()

    # asyncio's server, which has no word of TLS for a certificate.
    async with playing_over_tcp(answer, queen.authority.context()) as port:
        stranger = queen_address(queen.authority, port)
        async with dialling(queen_address(queen.authority, port, foreign), times, stranger=stranger) as hive:
            await times.done.wait()
            assert "does not know this hive's certificate" in hive.status[-1]
    assert times.waits == pytest.approx([0.05, 0.1, REFUSED_WAIT])
    assert len(asked) == DOUBT_SURE
    assert asked[0].startswith(b"GET /v1/ca ")


async def test_who_breaks_off_before_strangers_too_is_not_said_to_refuse_a_certificate(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=7)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with playing_over_tcp(hang_up, queen.authority.context()) as port:
        stranger = queen_address(queen.authority, port)
        known = queen_address(queen.authority, port, queen.certificate)
        async with dialling(known, times, stranger=stranger) as hive:
            await times.done.wait()
            assert hive.status[-1].endswith("broke")
    assert times.waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2])


async def test_who_was_away_and_is_back_only_now_is_not_said_to_refuse_a_certificate(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=3)
    came = []

    async def come_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.append(writer)
        if len(came) > DOUBT_AFTER:
            content = queen.authority.ca.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            await reader.read()

    async with playing_over_tcp(come_back, queen.authority.context()) as port:
        stranger = queen_address(queen.authority, port)
        known = queen_address(queen.authority, port, queen.certificate)
        async with dialling(known, times, stranger=stranger) as hive:
            await times.done.wait()
            assert hive.status[-1].endswith("broke")
    assert times.waits == pytest.approx([0.05, 0.1, 0.2])
    assert len(came) > DOUBT_AFTER
