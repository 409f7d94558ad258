"""The hive's way to a queen elsewhere: what comes down its stream, and when it dials again.

She is played behind the product's own server, over TLS; the dialler's clock, chance and waits are played.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import rbee.hive.dial
from rbee import __version__
from rbee.client.link import Afar, HeartbeatClient, Link
from rbee.contracts import (
    INSTANCE_HEADER,
    JOB_HEADER,
    STATUS_HEADER,
    VERSION_HEADER,
    Cpu,
    Devices,
    FleetRoutes,
    Health,
    Heartbeat,
    HeartbeatAck,
    HiveRoutes,
    Taken,
    encode,
)
from rbee.errors import (
    ClonedHive,
    HiveFailed,
    HiveNotOnline,
    JoinedAnew,
    NotPermitted,
    RbeeError,
    UnknownHive,
    VersionSkew,
)
from rbee.hive.dial import (
    ANSWER_TRIES,
    DOUBT_AFTER,
    EVENT_LIMIT,
    FIRST_WAIT,
    LONGEST_WAIT,
    PATIENT_AFTER,
    PATIENT_WAIT,
    REFUSED_WAIT,
    SUCCESSION_WAIT,
    Dialler,
)
from rbee.hive.heartbeat import Heart
from rbee.narration import Narrator
from rbee.queen.authority import Authority
from rbee.server.app import build_app
from rbee.server.requests import peer_of, read_body, read_shape
from rbee.server.responses import event_stream
from rbee.systemd.daemon import Notifier
from tests.unit.afar import afar, credential, playing_afar, served_afar, unheard_port
from tests.unit.serving import until

Result = TypeVar("Result")

JOB = "7" * 32
DEVICES = Devices(Cpu("a cpu", 1, 2, 4, 8 * 2**30))


def run(work: Coroutine[Any, Any, Result]) -> Result:
    async def scenario() -> Result:
        return await asyncio.wait_for(work, 10)

    return asyncio.run(scenario())


# The queen, played


class Stream:
    """One that a hive holds open. `ended` is set when it does not any more."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.ended = asyncio.Event()
        self._down: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._down.put_nowait(chunk)

    def ask(self, number: int, path: str = "/health", *, method: str = "GET", **more: Any) -> None:
        self.send(asked(number, path, method=method, **more))

    def close(self) -> None:
        self._down.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b": open\n\n"
        while (chunk := await self._down.get()) is not None:
            yield chunk

    async def aclose(self) -> None:
        self.ended.set()


@dataclass(frozen=True)
class Answered:
    id: str
    status: int
    content: Any


class Queen:
    """`story` is what hives did, in order; a refusal is raised for all that come while it is there."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open(folder / "keys")
        self.certificate = credential(self.authority, folder / "membership")
        self.story: list[str] = []
        self.beats: list[Heartbeat] = []
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.answers: asyncio.Queue[Answered] = asyncio.Queue()
        self.answers_from: list[int] = []
        """The client's port of each try to give an answer."""
        self.ready = asyncio.Event()
        self.refusal: RbeeError | None = None
        self.beat_refusal: RbeeError | None = None
        self.answer_refusal: RbeeError | None = None
        self.drops = 0
        """Answers of which the connection breaks before they are taken."""

    async def _ca(self, _request: Request) -> Response:
        self.story.append("ca")
        return Response(self.authority.ca, media_type=FleetRoutes.CA.media_type)

    async def _requests(self, request: Request) -> Response:
        self.story.append("stream")
        if self.refusal is not None:
            raise self.refusal
        stream = Stream(dict(request.headers))
        self.streams.put_nowait(stream)
        return event_stream(stream)

    async def _heartbeat(self, request: Request) -> HeartbeatAck:
        beat = await read_shape(request, Heartbeat)
        self.story.append(beat.state)
        if self.beat_refusal is not None:
            raise self.beat_refusal
        self.beats.append(beat)
        if beat.state == "ready":
            self.ready.set()
        return HeartbeatAck("ok", 15_000)

    async def _answer(self, request: Request) -> Taken:
        assert request.client is not None
        self.answers_from.append(request.client.port)
        content = await read_body(request)
        if self.answer_refusal is not None:
            raise self.answer_refusal
        if self.drops:
            self.drops -= 1
            request.scope["rbee.drop"]()
            return Taken("ok")
        status = int(request.headers[STATUS_HEADER])
        self.answers.put_nowait(Answered(request.path_params["request_id"], status, json.loads(content)))
        return Taken("ok")

    def app(self) -> ASGIApp:
        return build_app(
            "a queen",
            "1",
            {
                FleetRoutes.CA: self._ca,
                FleetRoutes.REQUESTS: self._requests,
                FleetRoutes.HEARTBEAT: self._heartbeat,
                FleetRoutes.ANSWER: self._answer,
            },
        )


def asked(number: int, path: str = "/health", *, method: str = "GET", **more: Any) -> bytes:
    data = {"id": f"{number:032x}", "method": method, "path": path, **more}
    return f"event: request\ndata: {json.dumps(data)}\n\n".encode()


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
    heart: Heart
    status: list[str]
    """The unit's status texts."""
    running: asyncio.Task[None]


@asynccontextmanager
async def dialling(
    queen: Afar, times: Times, *, stranger: Afar | None = None, app: ASGIApp = HIVE
) -> AsyncIterator[Hive]:
    status: list[str] = []
    link = Link(queen, timeout=5)
    heart = Heart("gpu1", HeartbeatClient(link), Narrator(), status=status.append, queen_name="queen:8500")
    dialler = Dialler(heart, app, queen, lambda: stranger or queen, link, clock=times.clock)
    running = asyncio.get_running_loop().create_task(dialler.run())
    test = asyncio.current_task()
    assert test is not None
    running.add_done_callback(lambda ended: ended.cancelled() or test.cancel())
    try:
        yield Hive(dialler, heart, status, running)
    finally:
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        await link.close()
        if not isinstance(ended, asyncio.CancelledError):
            raise AssertionError("it must dial for ever") from ended


@asynccontextmanager
async def held(
    queen: Queen, notifier: Notifier, times: Times, *, app: ASGIApp = HIVE
) -> AsyncIterator[tuple[Hive, Stream]]:
    """A hive that holds its stream, and has beaten."""
    async with (
        served_afar(queen.app(), queen.authority.context(), notifier) as port,
        dialling(afar(queen.authority, port, queen.certificate), times, app=app) as hive,
    ):
        stream = await queen.streams.get()
        await queen.ready.wait()
        yield hive, stream


@pytest.fixture
def queen(tmp_path: Path) -> Queen:
    return Queen(tmp_path)


# Beating


def test_it_beats_once_its_stream_is_there_and_says_which_process_and_version_it_is(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> dict[str, str]:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (hive, stream):
            assert stream.headers[INSTANCE_HEADER.lower()] == hive.heart.instance
            return stream.headers

    headers = run(scenario())

    assert queen.story == ["stream", "starting", "ready"]
    assert headers[VERSION_HEADER.lower()] == __version__
    assert {beat.instance for beat in queen.beats} == {headers[INSTANCE_HEADER.lower()]}


def test_it_does_not_beat_where_it_gets_no_stream(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    queen.refusal = HiveFailed("not now")
    times = Times(monkeypatch, last=3)

    async def scenario() -> None:
        async with (
            served_afar(queen.app(), queen.authority.context(), silent_notifier) as port,
            dialling(afar(queen.authority, port, queen.certificate), times),
        ):
            await times.done.wait()

    run(scenario())
    assert queen.story == ["stream"] * 3


def test_it_stops_beating_when_its_stream_ends_and_beats_at_once_over_the_next(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=2)

    async def scenario() -> set[str]:
        async with held(queen, silent_notifier, times) as (_, stream):
            queen.ready.clear()
            stream.close()
            again = await queen.streams.get()
            await queen.ready.wait()
            again.close()
            await times.done.wait()
            return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]

    working = run(scenario())

    assert queen.story == ["stream", "starting", "ready", "stream", "ready"]
    assert "Dialler.run" in working
    assert "Heart.run" not in working


def test_a_dialler_that_is_cancelled_ends_its_stream_and_leaves_no_task(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> set[str]:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (hive, stream):
            hive.running.cancel()
            await asyncio.wait((hive.running,))
            await stream.ended.wait()
            return {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]

    assert not {name for name in run(scenario()) if name.startswith(("Dialler.", "Heart."))}


# Answering


def test_what_she_asks_is_put_to_the_app_as_from_her_and_the_answer_goes_up(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def devices(request: Request) -> Devices:
        seen.append((request.headers.get(JOB_HEADER), peer_of(request).uid))
        return DEVICES

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})

    async def scenario() -> list[Answered]:
        async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
            stream.ask(1, "/v1/devices", job_id=JOB)
            first = await queen.answers.get()
            stream.ask(2, "/v1/devices")
            return [first, await queen.answers.get()]

    assert run(scenario()) == [Answered(f"{n:032x}", 200, encode(DEVICES)) for n in (1, 2)]
    assert seen == [(JOB, 0), (None, 0)]


def test_the_status_of_a_refusal_goes_up_with_it(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_request: Request) -> Devices:
        raise HiveFailed("its driver hangs", hint="modprobe nvidia")

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: refuse})

    async def scenario() -> list[Answered]:
        async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
            told = []
            for number, (method, path) in enumerate(
                (("GET", "/v1/devices"), ("GET", "/nowhere"), ("POST", "/v1/devices"))
            ):
                stream.ask(number, path, method=method)
                told.append(await queen.answers.get())
            return told

    told = run(scenario())

    assert [answered.status for answered in told] == [502, 404, 405]
    assert (told[0].content["detail"], told[0].content["hint"]) == ("its driver hangs", "modprobe nvidia")


def test_what_nobody_foresaw_is_answered_with_500_and_keeps_its_traceback(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_request: Request) -> Devices:
        raise ZeroDivisionError("a bug")

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: fail, HiveRoutes.HEALTH: health})

    async def scenario() -> list[int]:
        async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
            stream.ask(1, "/v1/devices")
            first = await queen.answers.get()
            stream.ask(2)
            return [first.status, (await queen.answers.get()).status]

    assert run(scenario()) == [500, 200]
    assert "ZeroDivisionError: a bug" in caplog.text


def test_one_answer_that_takes_long_holds_up_no_other(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> list[str]:
        release = asyncio.Event()

        async def devices(_request: Request) -> Devices:
            await release.wait()
            return DEVICES

        app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices, HiveRoutes.HEALTH: health})
        async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
            stream.ask(1, "/v1/devices")
            stream.ask(2)
            first = await queen.answers.get()
            release.set()
            return [first.id, (await queen.answers.get()).id]

    assert run(scenario()) == [f"{2:032x}", f"{1:032x}"]


def test_an_answer_that_did_not_arrive_is_given_again_over_a_fresh_connection(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    queen.drops = ANSWER_TRIES - 1

    async def scenario() -> Answered:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
            stream.ask(1)
            return await queen.answers.get()

    assert run(scenario()) == Answered(f"{1:032x}", 200, {"status": "ok", "version": "1"})
    assert len(queen.answers_from) == len(set(queen.answers_from)) == ANSWER_TRIES


def test_an_answer_that_cannot_be_given_is_let_go_and_the_next_is_given(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queen.drops = ANSWER_TRIES

    async def scenario() -> Answered:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (hive, stream):
            stream.ask(1)
            await until(lambda: len(queen.answers_from) == ANSWER_TRIES)
            await hive.dialler.settle()
            stream.ask(2)
            return await queen.answers.get()

    assert run(scenario()).id == f"{2:032x}"
    assert len(queen.answers_from) == ANSWER_TRIES + 1
    assert "the answer to GET /health could not be given" in caplog.text


def test_an_answer_that_the_queen_refuses_is_not_given_again(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queen.answer_refusal = NotPermitted("none of yours")

    async def scenario() -> None:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (hive, stream):
            stream.ask(1)
            await until(lambda: bool(queen.answers_from))
            await hive.dialler.settle()

    run(scenario())
    assert len(queen.answers_from) == 1
    assert "could not be given: none of yours" in caplog.text


def test_an_answer_that_is_cut_off_with_its_stream_is_not_given(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def works_for_ever(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as rbee.server makes a refusal of it
            await send({"type": "http.response.start", "status": 503})
            await send({"type": "http.response.body", "body": b"{}"})

    async def scenario() -> None:
        async with held(queen, silent_notifier, Times(monkeypatch), app=works_for_ever) as (hive, stream):
            stream.ask(1)
            await begun.wait()
            (answering,) = hive.dialler._answering
            answering.cancel()
            await asyncio.wait((answering,))

    run(scenario())
    assert queen.answers_from == []


# What comes down


def test_events_that_are_not_as_agreed_are_passed_over(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = [
        b"event: request\ndata: {\n\n",
        b"event: request\ndata: [1, 2]\n\n",
        b"event: request\ndata: \xff\xfe\n\n",
        asked(1, "no-slash"),
        asked(2, method="DELETE"),
        asked(3, path="/a b"),
        asked(4, job_id="not a job's"),
        asked(1 << 129),
    ]
    other = [
        b": a comment\n\n",
        b"event: request\n\n",
        b'event: news\ndata: {"id": 1}\n\n',
        b"data: {}\n\n",
        b"nothing at all\n\n",
        b"\n\n\n\n",
    ]

    async def scenario() -> str:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
            stream.send(*wrong, *other)
            stream.ask(99)
            return (await queen.answers.get()).id

    assert run(scenario()) == f"{99:032x}"
    assert caplog.text.count("is not as agreed, and passed over") == len(wrong)
    assert len(queen.answers_from) == 1


def test_an_event_may_come_in_pieces_and_several_in_one(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> list[str]:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
            stream.send(*(bytes([byte]) for byte in asked(1)))
            told = [(await queen.answers.get()).id]
            stream.send(asked(2) + asked(3) + asked(4)[:30])
            told += [(await queen.answers.get()).id for _ in range(2)]
            stream.send(asked(4)[30:])
            return [*told, (await queen.answers.get()).id]

    first, *both, last = run(scenario())
    assert (first, sorted(both), last) == (f"{1:032x}", [f"{2:032x}", f"{3:032x}"], f"{4:032x}")


def test_an_event_over_the_limit_ends_the_stream_and_is_no_refusal(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch)

    async def scenario() -> str:
        async with held(queen, silent_notifier, times) as (hive, stream):
            stream.send(b"event: request\ndata: " + b"x" * EVENT_LIMIT)
            await stream.ended.wait()
            await times.done.wait()
            return hive.status[-1]

    assert f"larger than {EVENT_LIMIT} bytes" in run(scenario())
    assert times.waits == [FIRST_WAIT]


def test_an_event_as_large_as_the_limit_is_read(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = asked(1, note="")
    event = asked(1, note="x" * (EVENT_LIMIT - len(event)))

    async def scenario() -> str:
        async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
            stream.send(*(event[start : start + 10_000] for start in range(0, len(event), 10_000)))
            return (await queen.answers.get()).id

    assert run(scenario()) == f"{1:032x}"


def test_a_stream_that_falls_silent_is_ended(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.hive.dial, "SILENCE", 0.1)
    times = Times(monkeypatch)

    async def scenario() -> str:
        async with held(queen, silent_notifier, times) as (hive, stream):
            await stream.ended.wait()
            await times.done.wait()
            return hive.status[-1]

    assert "was silent for 0.1 s" in run(scenario())
    assert times.waits == [FIRST_WAIT]


# Dialling again


def waits_until_patient() -> list[float]:
    waits, wait, alone = [], FIRST_WAIT, 0.0
    while alone <= PATIENT_AFTER:
        waits.append(wait)
        alone += wait
        wait = min(2 * wait, LONGEST_WAIT)
    return waits


def test_it_waits_twice_as_long_each_time_up_to_2_s_and_after_a_minute_15_s(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = waits_until_patient()
    times = Times(monkeypatch, last=len(growing) + 2)

    async def scenario() -> list[str]:
        with unheard_port() as port:
            async with dialling(afar(queen.authority, port, queen.certificate), times) as hive:
                await times.done.wait()
                return hive.status

    status = run(scenario())

    assert growing[:8] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]
    # The waits between: she is alone for more than a minute when the last of `growing` is over.
    assert times.waits == pytest.approx([*growing, PATIENT_WAIT, PATIENT_WAIT])
    assert "nobody listens on 127.0.0.1" in status[-1]


def test_each_wait_is_shortened_by_chance_by_half_at_the_most(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = rbee.hive.dial.random
    times = Times(monkeypatch, last=40)
    monkeypatch.setattr(rbee.hive.dial, "random", chance)
    monkeypatch.setattr(rbee.hive.dial, "LONGEST_WAIT", FIRST_WAIT)

    async def scenario() -> None:
        with unheard_port() as port:
            async with dialling(afar(queen.authority, port, queen.certificate), times):
                await times.done.wait()

    run(scenario())
    assert all(FIRST_WAIT / 2 <= wait <= FIRST_WAIT for wait in times.waits)
    assert len(set(times.waits)) > 20
    assert min(times.waits) < 0.7 * FIRST_WAIT < 0.8 * FIRST_WAIT < max(times.waits)


def test_after_a_stream_that_held_it_begins_with_the_shortest_wait_again(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=5)

    async def scenario() -> None:
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

    run(scenario())
    assert times.waits == pytest.approx([0.05, 0.1, 0.2, 0.05, 0.1])


def test_a_queen_who_was_there_a_moment_ago_is_dialled_often_however_long_it_was(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch)

    async def scenario() -> None:
        async with held(queen, silent_notifier, times) as (_, stream):
            times.now += 100 * PATIENT_AFTER
            stream.close()
            await times.done.wait()

    run(scenario())
    assert times.waits == [FIRST_WAIT]


@pytest.mark.parametrize(
    "refusal",
    [
        ClonedHive("you are two"),
        NotPermitted("not you"),
        UnknownHive("you were removed"),
        VersionSkew("too old"),
    ],
    ids=lambda refusal: refusal.slug,
)
def test_a_queen_who_does_not_want_it_is_asked_again_a_minute_later(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, refusal: RbeeError
) -> None:
    queen.refusal = refusal
    times = Times(monkeypatch, last=2)

    async def scenario() -> str:
        async with (
            served_afar(queen.app(), queen.authority.context(), silent_notifier) as port,
            dialling(afar(queen.authority, port, queen.certificate), times) as hive,
        ):
            await times.done.wait()
            return hive.status[-1]

    assert refusal.message in run(scenario())
    assert times.waits == [REFUSED_WAIT, REFUSED_WAIT]


def test_a_beat_that_is_refused_ends_the_stream_and_counts_as_a_refusal(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=2)

    async def scenario() -> None:
        async with held(queen, silent_notifier, times) as (hive, stream):
            queen.beat_refusal = UnknownHive("you were removed")
            # The next beat is due in 15 s, and over the next stream at once.
            stream.close()
            stream = await queen.streams.get()
            await stream.ended.wait()
            await times.done.wait()
            assert "you were removed" in hive.status[-1]

    run(scenario())
    assert times.waits == [FIRST_WAIT, REFUSED_WAIT]


@pytest.mark.parametrize("is_succeeded", [True, False])
def test_a_hive_that_is_refused_ends_where_a_membership_is_left_that_replaces_it(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, is_succeeded: bool
) -> None:
    queen.refusal = UnknownHive("this machine joined anew under another credential")
    times = Times(monkeypatch, last=2 if is_succeeded else 1)

    async def scenario() -> None:
        async with served_afar(queen.app(), queen.authority.context(), silent_notifier) as port:
            there = afar(queen.authority, port, queen.certificate)
            link = Link(there, timeout=5)
            heart = Heart(
                "gpu1", HeartbeatClient(link), Narrator(), status=lambda _: None, queen_name="queen"
            )
            dialler = Dialler(
                heart, HIVE, there, lambda: there, link, is_succeeded=lambda: is_succeeded, clock=times.clock
            )
            running = asyncio.ensure_future(dialler.run())
            waiting = asyncio.ensure_future(times.done.wait())
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            running.cancel()
            (ended,) = await asyncio.gather(running, return_exceptions=True)
            await link.close()
            assert isinstance(ended, JoinedAnew if is_succeeded else asyncio.CancelledError)

    run(scenario())
    assert times.waits == [SUCCESSION_WAIT if is_succeeded else REFUSED_WAIT]


def test_a_beat_refused_for_want_of_a_stream_has_it_dial_again_soon(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=2)
    queen.beat_refusal = HiveNotOnline("you hold no stream open")

    async def scenario() -> None:
        async with (
            served_afar(queen.app(), queen.authority.context(), silent_notifier) as port,
            dialling(afar(queen.authority, port, queen.certificate), times),
        ):
            await times.done.wait()

    run(scenario())
    assert times.waits == [0.05, 0.1]


# Certificates


def test_another_queen_is_told_apart_and_asked_again_a_minute_later(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Authority.open(tmp_path / "other")
    times = Times(monkeypatch)

    async def scenario() -> str:
        async with (
            served_afar(queen.app(), other.context(), silent_notifier) as port,
            dialling(afar(queen.authority, port, queen.certificate), times) as hive,
        ):
            await times.done.wait()
            return hive.status[-1]

    assert "is another queen" in run(scenario())
    assert times.waits == [REFUSED_WAIT]
    assert queen.story == []


def test_a_certificate_that_she_does_not_know_is_recognised_by_what_she_says_to_strangers(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = credential(Authority.open(tmp_path / "other"), tmp_path / "foreign")
    times = Times(monkeypatch, last=3)

    async def scenario() -> str:
        async with served_afar(queen.app(), queen.authority.context(), silent_notifier) as port:
            stranger = afar(queen.authority, port)
            async with dialling(afar(queen.authority, port, foreign), times, stranger=stranger) as hive:
                await times.done.wait()
                return hive.status[-1]

    assert "does not know this hive's certificate" in run(scenario())
    assert times.waits == pytest.approx([0.05, 0.1, REFUSED_WAIT])
    assert queen.story == ["ca"]


def test_who_breaks_off_before_strangers_too_is_not_said_to_refuse_a_certificate(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(monkeypatch, last=7)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def scenario() -> str:
        async with playing_afar(hang_up, queen.authority.context()) as port:
            stranger = afar(queen.authority, port)
            known = afar(queen.authority, port, queen.certificate)
            async with dialling(known, times, stranger=stranger) as hive:
                await times.done.wait()
                return hive.status[-1]

    assert run(scenario()).endswith("broke")
    assert times.waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2])


def test_who_was_away_and_is_back_only_now_is_not_said_to_refuse_a_certificate(
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

    async def scenario() -> str:
        async with playing_afar(come_back, queen.authority.context()) as port:
            stranger = afar(queen.authority, port)
            known = afar(queen.authority, port, queen.certificate)
            async with dialling(known, times, stranger=stranger) as hive:
                await times.done.wait()
                return hive.status[-1]

    assert run(scenario()).endswith("broke")
    assert times.waits == pytest.approx([0.05, 0.1, 0.2])
    assert len(came) > DOUBT_AFTER


# Settling


def test_settling_waits_until_the_answers_under_way_have_arrived(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> int:
        entered, release = asyncio.Event(), asyncio.Event()

        async def devices(_request: Request) -> Devices:
            entered.set()
            await release.wait()
            return DEVICES

        app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})
        async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (hive, stream):
            stream.ask(1, "/v1/devices")
            await entered.wait()
            settling = asyncio.ensure_future(hive.dialler.settle())
            await asyncio.sleep(0)
            assert not settling.done()
            release.set()
            await settling
            return queen.answers.qsize()

    assert run(scenario()) == 1


def test_settling_does_not_wait_for_an_answer_that_does_not_come(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.hive.dial, "SETTLE_TIMEOUT", 0.05)

    async def scenario() -> None:
        entered = asyncio.Event()

        async def devices(_request: Request) -> Devices:
            entered.set()
            await asyncio.Event().wait()
            return DEVICES

        app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})
        async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (hive, stream):
            await hive.dialler.settle()  # nothing is under way
            stream.ask(1, "/v1/devices")
            await entered.wait()
            await asyncio.wait_for(hive.dialler.settle(), 2)
            assert queen.answers.empty()

    run(scenario())
