"""Doubles of what rbeectl works with: systemd is played; the queen answers on a real socket.

The fixtures of conftest.py hand these out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.__main__
from rbee import __version__
from rbee.errors import HiveFailed, UnknownHive
from rbee.scope import (
    FORGET_UNIT,
    HIVE_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    REDIAL_UNIT,
    TCP_SOCKET_UNIT,
)
from rbee.server.app import Handler
from rbee.server.responses import event_stream
from rbee.systemd.unit import UnitState
from rbee.wire.codec import decode, encode
from rbee.wire.daemon import Health
from rbee.wire.events import FeedEvents
from rbee.wire.fleet import SetTcp, Tcp
from rbee.wire.hives import Hives, HiveView
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.lines import Line
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.samples import GpuSample, Sample
from rbee.wire.types import is_same_name
from tests.unit.played_systemd import INACTIVE, NOT_FOUND, PlayedBus
from tests.unit.wire_values import HIVE_VIEW

REPOSITORY = Path(__file__).parents[3]

JOB = "7" * 32

AT = "2026-01-31T12:00:00.000Z"


def in_scope(monkeypatch: pytest.MonkeyPatch, **changes: Path) -> None:
    """Have rbeectl run for the scope of the system with other paths."""
    main = rbee.keeper.__main__
    monkeypatch.setattr(main, "SYSTEM", main.SYSTEM._replace(**changes))


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Rbeectl = Callable[..., Ran]

WithQueen = Callable[[dict[Route, Handler], Callable[[], Ran]], Ran]


def story(*events: tuple[str, Any]) -> Handler:
    """A handler that tells this story."""

    async def chunks() -> AsyncIterator[bytes]:
        for number, (kind, data) in enumerate(events):
            yield f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    async def handler(_request: Request) -> Response:
        return event_stream(chunks())

    return handler


def line(speaker: str, text: str, event: str = "adding") -> tuple[str, Any]:
    return "line", encode(Line(speaker, text, event, AT))  # type: ignore[arg-type]


BEGUN = ("job", encode(JobStarted("localhost", JOB, f"/v1/jobs/{JOB}/events")))

ADDED = story(
    BEGUN,
    line("queen bee", "Adding local pc to hive catalog."),
    line("bee hive", "Sending first heartbeat to queen", "sending-heartbeat"),
    ("done", encode(Done(HIVE_VIEW))),
)


def listing(*hives: HiveView) -> dict[Route, Handler]:
    """A queen with these hives in her catalog."""

    async def all_of_them(_request: Request) -> Hives:
        return Hives(hives)

    async def one(request: Request) -> HiveView:
        name = request.path_params["hive_id"]
        for hive in hives:
            if is_same_name(name, hive.id):
                return hive
        raise UnknownHive(f"hive '{name}' is not in the hive catalog")

    async def no_events(_request: Request) -> FeedEvents:
        return FeedEvents(f"{'a' * 16}-1", ())

    return {QueenRoutes.HIVES: all_of_them, QueenRoutes.HIVE: one, QueenRoutes.LAST_EVENTS: no_events}


def of_version(version: str) -> dict[Route, Handler]:
    """A queen that runs as this version."""

    async def health(_request: Request) -> Health:
        return Health("ok", version)

    return {QueenRoutes.HEALTH: health}


OF_THIS_VERSION = of_version(__version__)


def has_no_queen(bus: PlayedBus, hive: UnitState, redial: UnitState = INACTIVE) -> None:
    bus.states |= {QUEEN_UNIT: NOT_FOUND, QUEEN_SOCKET_UNIT: NOT_FOUND, TCP_SOCKET_UNIT: NOT_FOUND}
    bus.states |= {HIVE_UNIT: hive, REDIAL_UNIT: redial, FORGET_UNIT: NOT_FOUND}


BEATS = "queen at queen:8500, heartbeat every 15 s"

UNUSABLE = UnitState(
    "loaded", "failed", "failed", result="exit-code", exit_status=78,
    status_text="rbee.conf: soon is no span; try: mend it",
)  # fmt: skip

FAILED = HiveFailed(
    "the beehive localhost did not tell its devices", hint="systemctl status rbee-hive\nthen again"
)

FAILURE = story(BEGUN, line("queen bee", "Adding local pc to hive catalog."), ("error", FAILED.to_problem()))

FINGERPRINT = "f" * 64

TEXT = f"0123abcd.{'A' * 32}.{FINGERPRINT}"

REMOTE = HIVE_VIEW._replace(id="gpu1", host="gpu1", is_remote=True, address="10.0.0.1")


class Opened:
    """A queen who is open or not, as the played systemd starts her."""

    def __init__(self, bus: PlayedBus, *, is_open: bool = False) -> None:
        self._bus = bus
        self.listens = self._is_open = is_open
        self.asked: list[SetTcp] = []
        restart = bus.restart

        def restarted(unit: str, **options: Any) -> None:
            restart(unit, **options)
            self.listens = bool(self.asked) and self.asked[-1].is_open

        bus.restart = restarted  # type: ignore[method-assign]

    @property
    def handlers(self) -> dict[Route, Handler]:
        async def set_tcp(request: Request) -> Tcp:
            self.asked.append(decode(SetTcp, json.loads(await request.body())))
            return self._tcp()

        async def tcp(_request: Request) -> Tcp:
            return self._tcp()

        return {QueenRoutes.SET_TCP: set_tcp, QueenRoutes.TCP: tcp}

    def _tcp(self) -> Tcp:
        wanted = self.asked[-1].is_open if self.asked else self._is_open
        return Tcp(wanted, ("[::]:8500",) if self.listens else (), FINGERPRINT, 4_000_000_000_000)


STILL = UnitState("loaded", "active", "running", status_text="queen at queen:8500, heartbeat every 15 s")

GIB = 2**30

SAMPLE = Sample(
    "localhost", "2026-01-31T12:00:00.000Z", 1.25, 1.0, 0.5, 42.4, 2.0, 128 * GIB, 512 * GIB,
    (GpuSample(0, "GPU-a", "0000:01:00.0", 97.0, 22 * GIB, 24 * GIB, 71.0, 312.4),),
)  # fmt: skip


def sampling(answer: Any) -> dict[Route, Handler]:
    async def handler(_request: Request) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {QueenRoutes.SAMPLE: handler}
