"""A queen and the machines that have joined, without a network between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbee import __version__, tls
from rbee.client.answers import read_answer
from rbee.errors import RbeeError, from_problem
from rbee.narration import Event, Narrator
from rbee.queen.access import TcpAccess
from rbee.queen.fleet import Fleet
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.work import HiveWork
from rbee.queen.store.store import Store
from rbee.server.peer import RemotePeer
from rbee.uplink.accept import Uplink
from rbee.wire.codec import encode
from rbee.wire.devices import Cpu, Devices
from rbee.wire.fleet import CreateToken, Join, Joined
from rbee.wire.heartbeats import Heartbeat
from rbee.wire.hives import AddHive
from rbee.wire.routes import Route
from tests.unit.played_hive import PlayedHive
from tests.unit.queens import a_queen as open_queen

OPERATOR = {"actor_uid": "1000", "actor_pid": "42"}
MACHINE, OTHER = "a" * 32, "b" * 32
INSTANCE = "1" * 32


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))

    def of(self, name: str) -> list[str]:
        return [text for event, text, _ in self.told if event == name]


@dataclass
class Queen:
    access: TcpAccess
    fleet: Fleet
    hives: Hives
    work: HiveWork
    catalog: Store
    tape: Tape

    async def token(self, *, ttl_s: int = 3600, uses: int = 1, hive: str | None = None) -> str:
        return (await self.fleet.create_token(CreateToken(ttl_s, uses, hive), OPERATOR)).text

    async def join(
        self,
        token: str,
        name: str = "gpu1",
        *,
        machine: str = MACHINE,
        address: str = "10.0.0.1",
        version: str = __version__,
        credential: str | None = None,
        instance: str | None = None,
    ) -> Joined:
        request = tls.request_for(tls.new_key())
        asked = Join(token, name, machine, request, version)
        return await self.fleet.join(asked, RemotePeer(address, credential), instance)

    async def credential(self, name: str = "gpu1") -> RemotePeer:
        row = await self.catalog.hives.find(name)
        assert row is not None
        return RemotePeer(row.address or "", row.credential, row.id)

    async def member(self, name: str = "gpu1", **options: Any) -> RemotePeer:
        await self.join(await self.token(), name, **options)
        return await self.credential(name)


@asynccontextmanager
async def a_queen(folder: Path) -> AsyncIterator[Queen]:
    tape = Tape()
    async with open_queen(folder, tape) as queen:
        yield Queen(queen.access, queen.fleet, queen.hives, queen.work, queen.catalog, tape)


ANSWERS = {
    "/health": b'{"status": "ok", "version": "1"}',
    "/v1/devices": json.dumps(encode(Devices(Cpu(None, None, None, None, None)))).encode(),
}


def answering(uplink: Uplink, *, status: int = 200, content: bytes | None = None) -> PlayedHive:
    """A hive that lives."""
    return PlayedHive(uplink, lambda method, path: (status, ANSWERS[path] if content is None else content))


async def state_is(queen: Queen, state: str) -> bool:
    return queen.hives.view("gpu1").state == state


def beat(state: Any, **fields: Any) -> Heartbeat:
    return Heartbeat(
        hive_id="gpu1", timestamp="2026-01-31T12:00:00Z", workers=(), state=state, version=__version__,
        **{"instance": INSTANCE, **fields},
    )  # fmt: skip


def as_the_keeper_reads(route: Route, shape: Any) -> None:
    """As JSON goes through the keeper's checks."""
    read_answer(route, json.dumps(encode(shape)).encode(), 200)


async def add_fails(queen: Queen, name: str = "gpu1") -> RbeeError:
    """How adding ends, which it does at once."""
    job = queen.work.add(AddHive(name, None), OPERATOR)
    *_, last = [chunk async for chunk in job.follow(0)]
    event, _, data = last.decode().partition("\ndata: ")
    assert "event: error" in event
    return from_problem(json.loads(data))


async def dials(queen: Queen, peer: RemotePeer, version: str = __version__) -> None:
    with suppress(RbeeError):
        await queen.fleet.connect(peer, INSTANCE, version)
