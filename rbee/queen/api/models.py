"""Routes for models: adding, removing, showing and serving them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from rbee.queen.api.asked import actor, model_name
from rbee.queen.api.jobs import begin
from rbee.queen.jobs import Jobs
from rbee.queen.models.models import Models
from rbee.queen.models.work import ModelWork
from rbee.server.app import Handler
from rbee.server.requests import read_shape
from rbee.wire.models import AddModel, ModelView, Serve
from rbee.wire.models import Models as ModelList
from rbee.wire.routes import QueenRoutes, Route


def routes(models: Models, work: ModelWork, jobs: Jobs) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def listed(_request: Request) -> ModelList:
        return ModelList(tuple(models.view(model) for model in models.all()))

    async def show(request: Request) -> ModelView:
        return models.view(models.model(model_name(request)))

    async def add(request: Request) -> Any:
        to_add = await read_shape(request, AddModel)
        return begin(jobs, request, lambda: work.add(to_add, actor(request)))

    async def remove(request: Request) -> Any:
        name = model_name(request)
        return begin(jobs, request, lambda: work.remove(name, actor(request)))

    async def serve(request: Request) -> ModelView:
        name = model_name(request)
        return await models.serve(name, await read_shape(request, Serve), actor(request))

    return {
        QueenRoutes.MODELS: listed,
        QueenRoutes.MODEL: show,
        QueenRoutes.ADD_MODEL: add,
        QueenRoutes.REMOVE_MODEL: remove,
        QueenRoutes.SERVE: serve,
    }
