"""Routes for hives: adding, removing and showing them, labels, cordons and heartbeats."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from rbee.errors import NotPermitted, RbeeError
from rbee.queen.api.asked import actor, hive_id
from rbee.queen.api.jobs import begin
from rbee.queen.fleet import Fleet
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Jobs
from rbee.server.app import Admit, Handler
from rbee.server.peer import AnyPeer
from rbee.server.quick import Quick
from rbee.server.requests import read_query, read_shape
from rbee.wire.codec import decode
from rbee.wire.devices import Sample
from rbee.wire.hives import AddHive, Heartbeat, HeartbeatAck, HiveView, SetCordon, SetLabels
from rbee.wire.hives import Hives as HiveList
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.types import LOCALHOST


def plain_beats(hives: Hives, fleet: Fleet, admit: Admit) -> Quick:
    """Return what answers heartbeats that change nothing, as almost all; the route takes the others."""

    def answer(peer: AnyPeer, body: bytes) -> Any:
        try:
            admit(peer, QueenRoutes.HEARTBEAT)
            beat = decode(Heartbeat, json.loads(body))
        except (RbeeError, ValueError, RecursionError):
            return None
        if _beats_over_tcp(beat, fleet):
            return None
        hive = hives.find(beat.hive_id)
        return None if hive is None else hive.take_plain(beat)

    return answer


def _beats_over_tcp(beat: Heartbeat, fleet: Fleet) -> bool:
    return beat.hive_id != LOCALHOST and fleet.is_member(beat.hive_id)


def routes(hives: Hives, work: HiveWork, jobs: Jobs, fleet: Fleet) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes. Long because each is a small function in here."""

    def named(request: Request) -> str:
        return hives.spelled(hive_id(request))

    async def add(request: Request) -> Any:
        asked = await read_shape(request, AddHive)
        return begin(jobs, request, lambda: work.add(asked, actor(request)))

    async def remove(request: Request) -> Any:
        name = named(request)
        is_forced = bool(read_query(request, QueenRoutes.REMOVE_HIVE).get("force", 0))
        return begin(jobs, request, lambda: work.remove(name, actor(request), is_forced=is_forced))

    async def shut_down(request: Request) -> Any:
        return begin(jobs, request, lambda: work.shut_down(actor(request)))

    async def heartbeat(request: Request) -> HeartbeatAck:
        beat: Heartbeat = await read_shape(request, Heartbeat)
        if _beats_over_tcp(beat, fleet):
            raise NotPermitted(
                f"the hive {beat.hive_id} is on another machine, and sends heartbeats over TCP"
            )
        return await hives.heartbeat(beat, actor(request))

    async def list_all(_request: Request) -> HiveList:
        return HiveList(tuple(hives.views()))

    async def show(request: Request) -> HiveView:
        return hives.view(named(request))

    async def sample(request: Request) -> Sample:
        return await hives.hive(named(request)).sample()

    async def set_labels(request: Request) -> HiveView:
        standing = hives.hive(named(request)).standing
        return await standing.set_labels(await read_shape(request, SetLabels), actor(request))

    async def set_cordon(request: Request) -> HiveView:
        standing = hives.hive(named(request)).standing
        return await standing.set_cordon(await read_shape(request, SetCordon), actor(request))

    return {
        QueenRoutes.ADD_HIVE: add,
        QueenRoutes.REMOVE_HIVE: remove,
        QueenRoutes.SHUTDOWN: shut_down,
        QueenRoutes.HEARTBEAT: heartbeat,
        QueenRoutes.HIVES: list_all,
        QueenRoutes.HIVE: show,
        QueenRoutes.SAMPLE: sample,
        QueenRoutes.SET_LABELS: set_labels,
        QueenRoutes.SET_CORDON: set_cordon,
    }
