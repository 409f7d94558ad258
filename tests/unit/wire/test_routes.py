"""The tables of routes are whole, and no two routes of one are the same."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.uplink.frames import UplinkRoutes
from rbee.wire.codec import is_shape
from rbee.wire.routes import FleetRoutes, HiveRoutes, QueenRoutes

NAMED = {"ids": lambda kind: getattr(kind, "__name__", None)}

TABLES = pytest.mark.parametrize(
    "routes",
    [QueenRoutes.ALL, FleetRoutes.ALL, UplinkRoutes.ALL, HiveRoutes.ALL],
    ids=["queen", "fleet", "uplink", "hive"],
)


@TABLES
def test_no_two_routes_share_a_name_or_a_method_and_path(routes: tuple[Any, ...]) -> None:
    assert len({route.name for route in routes}) == len(routes)
    assert len({(route.method, route.path) for route in routes}) == len(routes)


@pytest.mark.parametrize("table", [QueenRoutes, FleetRoutes, UplinkRoutes, HiveRoutes], **NAMED)
def test_a_table_lists_its_routes_as_they_stand_there_and_names_them(table: Any) -> None:
    named = {name.lower(): route for name, route in vars(table).items() if name.isupper() and name != "ALL"}

    assert list(table.ALL) == list(named.values())
    assert [route.name for route in table.ALL] == list(named)


def test_a_route_fills_its_path() -> None:
    assert QueenRoutes.EVENTS.url(job_id="7" * 32) == f"/v1/jobs/{'7' * 32}/events"
    assert UplinkRoutes.CARRIER.url(dial_id="7" * 32) == f"/v1/uplink/{'7' * 32}"


@pytest.mark.parametrize("table", [QueenRoutes, FleetRoutes, HiveRoutes], **NAMED)
def test_the_shape_that_a_route_names_is_the_one_that_its_type_promises(table: Any) -> None:
    promised = [table.__annotations__[route.name.upper()] for route in table.ALL]
    named = ["dict[str, Any]" if route.answer is dict else _name(route.answer) for route in table.ALL]

    assert [f"Route[{name}]" for name in named] == promised
    assert all(is_shape(route.body) for route in table.ALL if route.takes is not None)


def _name(shape: type | None) -> str:
    return "None" if shape is None else shape.__name__
