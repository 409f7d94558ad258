"""A queen with models, of which one is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from rbee.errors import UnknownModel
from rbee.server.app import Handler
from rbee.wire.codec import decode, encode
from rbee.wire.engines import FleetEngines
from rbee.wire.jobs import Done
from rbee.wire.models import AddModel, Models, ModelView, Serve
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.workers import Placement, Workers, WorkerView
from tests.unit.keeper.doubles import BEGUN, line, listing, story
from tests.unit.keeper.model_values import ASLEEP, ENGINES, MODEL, PLACEMENT, WORKER
from tests.unit.wire_values import HIVE_VIEW


class PlayedModels:
    """`asked` are the bodies of the requests, or the name in their path."""

    def __init__(
        self,
        *models: ModelView,
        workers: tuple[WorkerView, ...] = (WORKER, ASLEEP),
        placement: Placement = PLACEMENT,
        done: Done = Done(None, model=MODEL),  # noqa: B008  # frozen
    ) -> None:
        self._models = models or (MODEL,)
        self._workers = workers
        self._placement = placement
        self._done = done
        self.asked: list[Any] = []

    @property
    def handlers(self) -> dict[Route[Any], Handler]:
        """The routes about models and workers, and those of a queen with one hive."""
        told = story(BEGUN, line("queen bee", "It is done."), ("done", encode(self._done)))

        def noted(handler: Handler, kind: Callable[[Any], Any] | None = None) -> Handler:
            async def run(request: Request) -> Any:
                body = await request.body()
                self.asked.append(kind(json.loads(body)) if kind else request.path_params["model"])
                return await handler(request)

            return run

        return listing(HIVE_VIEW) | {
            QueenRoutes.MODELS: self._all,
            QueenRoutes.MODEL: self._one,
            QueenRoutes.ADD_MODEL: noted(told, lambda body: decode(AddModel, body)),
            QueenRoutes.REMOVE_MODEL: noted(told),
            QueenRoutes.SERVE: noted(self._one, lambda body: decode(Serve, body)),
            QueenRoutes.UNSERVE: noted(told),
            QueenRoutes.PLACEMENT: self._place,
            QueenRoutes.WORKERS: self._all_workers,
            QueenRoutes.ENGINES: self._engines,
        }

    async def _all(self, _request: Request) -> Models:
        return Models(self._models)

    async def _one(self, request: Request) -> ModelView:
        for model in self._models:
            if model.name == request.path_params["model"]:
                return model
        raise UnknownModel("no such model")

    async def _place(self, request: Request) -> Placement:
        await self._one(request)
        return self._placement

    async def _all_workers(self, request: Request) -> Workers:
        name = request.query_params.get("model")
        return Workers(tuple(one for one in self._workers if name in (None, one.model)))

    async def _engines(self, _request: Request) -> FleetEngines:
        return ENGINES
