"""Routes for hives: adding, removing and showing them, labels and cordons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from rbee.queen.api.asked import actor, hive_id
from rbee.queen.api.jobs import begin
from rbee.queen.api.pages import page_of
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Jobs
from rbee.server.app import Handler
from rbee.server.requests import read_query, read_shape
from rbee.wire.hives import AddHive, HiveView, SetCordon, SetLabels
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.selectors import Selector

if TYPE_CHECKING:
    from rbee.wire.samples import Sample


def routes(hives: Hives, work: HiveWork, jobs: Jobs) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""
    return {**_operations(hives, work, jobs), **_views(hives)}


def _operations(hives: Hives, work: HiveWork, jobs: Jobs) -> dict[Route[Any], Handler]:
    async def add(request: Request) -> Any:
        asked = await read_shape(request, AddHive)
        return begin(jobs, request, lambda: work.add(asked, actor(request)))

    async def remove(request: Request) -> Any:
        name = hives.spelled(hive_id(request))
        is_forced = bool(read_query(request, QueenRoutes.REMOVE_HIVE).get("force", 0))
        return begin(jobs, request, lambda: work.remove(name, actor(request), is_forced=is_forced))

    async def shut_down(request: Request) -> Any:
        return begin(jobs, request, lambda: work.shut_down(actor(request)), is_always=True)

    return {
        QueenRoutes.ADD_HIVE: add,
        QueenRoutes.REMOVE_HIVE: remove,
        QueenRoutes.SHUTDOWN: shut_down,
    }


def _views(hives: Hives) -> dict[Route[Any], Handler]:
    def named(request: Request) -> str:
        return hives.spelled(hive_id(request))

    async def listed(request: Request) -> Response:
        asked = read_query(request, QueenRoutes.HIVES)
        selector = Selector.parse(asked["selector"]) if "selector" in asked else Selector()
        content = await page_of(
            hives, limit=asked.get("limit"), after=asked.get("after", ""), selector=selector
        )
        return Response(content, media_type=QueenRoutes.HIVES.media_type)

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
        QueenRoutes.HIVES: listed,
        QueenRoutes.HIVE: show,
        QueenRoutes.SAMPLE: sample,
        QueenRoutes.SET_LABELS: set_labels,
        QueenRoutes.SET_CORDON: set_cordon,
    }
