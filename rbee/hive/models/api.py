"""The hive's routes for fetches and files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from rbee.hive.app import job_id
from rbee.scope import Scope
from rbee.server.app import Handler
from rbee.server.requests import read_query, read_shape
from rbee.wire.codec import decode
from rbee.wire.daemon import Accepted
from rbee.wire.routes import HiveRoutes, Route
from rbee.wire.types import Sha256, Word

if TYPE_CHECKING:
    from rbee.hive.models.fetches import Fetches
    from rbee.wire.models import FetchView


def has_parts(scope: Scope) -> bool:
    """Return whether the store has incomplete files. They may be outdated: see Fetches.resume()."""
    try:
        with os.scandir(scope.models / "fetches") as entries:
            return any(entry.name.endswith(".part") for entry in entries)
    except OSError:
        return False


def routes(fetches: Callable[[], Fetches]) -> dict[Route[Any], Handler]:
    """Return the handlers; `fetches` opens them at its first call, so that a hive starts without them."""

    async def fetch(request: Request) -> FetchView:
        from rbee.wire.models import Fetch

        job = job_id(request)
        return await fetches().fetch(await read_shape(request, Fetch), job)

    async def state(request: Request) -> FetchView:
        asked = read_query(request, HiveRoutes.FETCH_STATE)
        return await fetches().state(_id_of(request), after=asked.get("after"), wait=asked.get("wait", 0))

    async def cancel(request: Request) -> FetchView:
        return await fetches().cancel(_id_of(request))

    async def remove(request: Request) -> Accepted:
        await fetches().remove_file(decode(Sha256, request.path_params["sha256"], "sha256"))
        return Accepted("removed")

    return {
        HiveRoutes.FETCH: fetch,
        HiveRoutes.FETCH_STATE: state,
        HiveRoutes.CANCEL_FETCH: cancel,
        HiveRoutes.REMOVE_FILE: remove,
    }


def _id_of(request: Request) -> str:
    return decode(Word, request.path_params["fetch_id"], "fetch_id")
