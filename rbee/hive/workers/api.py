"""The hive's routes for engines and workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from rbee.errors import BadInput
from rbee.hive.app import job_id
from rbee.scope import Scope
from rbee.server.app import Handler
from rbee.server.requests import read_query, read_shape
from rbee.server.upgrade import upgrade_to
from rbee.wire.codec import decode
from rbee.wire.leases import CONNECT_PROTOCOL
from rbee.wire.routes import WAIT_MAX, HiveRoutes, Route
from rbee.wire.types import WorkerId

if TYPE_CHECKING:
    from rbee.hive.workers.estimates import Estimates
    from rbee.hive.workers.workers import Workers
    from rbee.wire.engines import Engines
    from rbee.wire.workers import Estimate, HiveWorker, HiveWorkers

Open = Callable[[], "Awaitable[Workers]"]


def routes(workers: Open, scope: Scope, estimates: Callable[[], Estimates]) -> dict[Route[Any], Handler]:
    """Return the handlers; both parts are opened at the first call, so that a hive starts without them."""
    handlers = _Handlers(workers)

    async def engines(_request: Request) -> Engines:
        from rbee.hive.engines import engines_here

        return await engines_here(scope)

    async def estimate(request: Request) -> Estimate:
        from rbee.wire.workers import AskEstimate

        return await estimates().estimate(await read_shape(request, AskEstimate))

    return {
        HiveRoutes.ENGINES: engines,
        HiveRoutes.ESTIMATE: estimate,
        HiveRoutes.WORKERS: handlers.every,
        HiveRoutes.START_WORKER: handlers.start,
        HiveRoutes.WORKER: handlers.one,
        HiveRoutes.STOP_WORKER: handlers.stop,
        HiveRoutes.CONNECT: handlers.connect,
    }


class _Handlers:
    def __init__(self, workers: Open) -> None:
        self._workers = workers

    async def every(self, _request: Request) -> HiveWorkers:
        return (await self._workers()).all()

    async def start(self, request: Request) -> HiveWorker:
        from rbee.wire.workers import StartWorker

        job = job_id(request)
        start = await read_shape(request, StartWorker)
        workers = await self._workers()
        worker = await workers.start(start, job)
        return workers.view(worker)

    async def one(self, request: Request) -> HiveWorker:
        workers = await self._workers()
        worker = workers.find(_worker_id(request))
        query = read_query(request, HiveRoutes.WORKER)
        if "after" in query:
            await worker.newer(query["after"], query.get("wait", WAIT_MAX))
        return workers.view(worker)

    async def stop(self, request: Request) -> HiveWorker:
        workers = await self._workers()
        return workers.view(await workers.stop(_worker_id(request)))

    async def connect(self, request: Request) -> Response:
        from rbee.hive.workers.connect import Handing

        # A connection from a queen on another machine cannot carry a descriptor.
        if "rbee.upgrade" not in request.scope:
            raise BadInput(
                "a connection to a worker is passed only over this hive's Unix socket, for a request with "
                f"Upgrade: {CONNECT_PROTOCOL}",
                field="Upgrade",
            )
        worker_id = _worker_id(request)
        workers = await self._workers()
        return upgrade_to(Handing(worker_id, await workers.connect(worker_id), workers.connect))


def _worker_id(request: Request) -> str:
    worker_id: str = decode(WorkerId, request.path_params["worker_id"], "worker_id")
    return worker_id
