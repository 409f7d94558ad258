"""Routes for the whole catalog, and for its audit."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rbee.queen.store.store import Store
from rbee.server.app import Handler
from rbee.server.requests import read_query
from rbee.server.responses import file_answer
from rbee.wire.catalog import Audit, CatalogReport
from rbee.wire.routes import QueenRoutes, Route


def routes(catalog: Store) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def copy(_request: Request) -> Response:
        return file_answer(await catalog.copy(), QueenRoutes.CATALOG.media_type)

    async def check(_request: Request) -> CatalogReport:
        return await catalog.check()

    async def audit(request: Request) -> Audit:
        asked = read_query(request, QueenRoutes.AUDIT)
        return Audit(tuple(await catalog.audit.last(asked.get("limit", 100), asked.get("hive"))))

    return {QueenRoutes.CATALOG: copy, QueenRoutes.CHECK_CATALOG: check, QueenRoutes.AUDIT: audit}
