"""Routes for workers, engines and memory, and for unserving a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from rbee.queen.api.asked import actor, hive_id, model_name
from rbee.queen.api.jobs import begin
from rbee.queen.hives.hives import Hives
from rbee.queen.jobs import Jobs
from rbee.queen.serving.lazy import LazyServing
from rbee.server.app import Handler
from rbee.server.requests import read_query
from rbee.wire.routes import QueenRoutes, Route

if TYPE_CHECKING:
    from rbee.wire.engines import FleetEngines
    from rbee.wire.workers import Memory, Placement, Workers


def routes(lazy: LazyServing, hives: Hives, jobs: Jobs) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def listed(request: Request) -> Workers:
        return lazy.serving.views(read_query(request, QueenRoutes.WORKERS).get("model"))

    async def placement(request: Request) -> Placement:
        return await lazy.serving.placement(model_name(request))

    async def engines(request: Request) -> FleetEngines:
        from rbee.queen.hives.engines import engines_of

        name = read_query(request, QueenRoutes.ENGINES).get("hive")
        return await engines_of(hives, None if name is None else hives.spelled(name))

    async def memory(request: Request) -> Memory:
        return await lazy.serving.snapshots.memory(hives.spelled(hive_id(request)))

    async def unserve(request: Request) -> Any:
        name = model_name(request)
        return begin(jobs, request, lambda: lazy.serving.unserve(name, actor(request)))

    return {
        QueenRoutes.WORKERS: listed,
        QueenRoutes.PLACEMENT: placement,
        QueenRoutes.ENGINES: engines,
        QueenRoutes.MEMORY: memory,
        QueenRoutes.UNSERVE: unserve,
    }
