"""What a queen serves."""

from __future__ import annotations

import pytest

from rbee import __version__
from rbee.wire.routes import LeaseRoutes, QueenRoutes
from tests.integration.queen.served_queen import Served
from tests.integration.unix_http import request

pytestmark = pytest.mark.deadline(10)


async def test_health_says_the_version(queen: Served) -> None:
    answer = await queen.ask(request("GET", "/health"))

    assert (answer.status, answer.json) == (200, {"status": "ok", "version": __version__})


async def test_the_document_lists_every_route(queen: Served) -> None:
    answer = await queen.ask(request("GET", "/v1/openapi.json"))

    told = {(method.upper(), path) for path, methods in answer.json["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in (*QueenRoutes.ALL, *LeaseRoutes.ALL)}
