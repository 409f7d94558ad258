"""The verbs label, cordon and uncordon."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from rbee.errors import UnknownHive
from rbee.server.app import Handler
from rbee.wire.codec import decode
from rbee.wire.hives import Label, SetCordon, SetLabels
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import REMOTE, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus


def changing(route: Route, shape: Any, asked: list[Any]) -> dict[Route, Handler]:
    async def handler(request: Request) -> Any:
        if request.path_params["hive_id"] != "gpu1":
            raise UnknownHive("hive 'gpu9' is not in the hive catalog")
        body = decode(shape, json.loads(await request.body()))
        asked.append(body)
        return REMOTE._replace(labels=getattr(body, "set", ()), cordoned=getattr(body, "reason", None))

    return {route: handler}


def test_labels_are_set_and_taken_away(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    asked: list[Any] = []
    handlers = changing(QueenRoutes.SET_LABELS, SetLabels, asked)
    ran = with_queen(handlers, lambda: rbeectl("label", "gpu1", "rack=3", "spare=", "old-"))

    assert ran.out == "Hive gpu1 has the labels rack=3,spare=\n"
    assert asked == [SetLabels((Label("rack", "3"), Label("spare", "")), ("old",))]
    assert with_queen(handlers, lambda: rbeectl("label", "gpu9", "a=b")).code == 4


def test_a_cordon_has_a_reason(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    asked: list[Any] = []
    handlers = changing(QueenRoutes.SET_CORDON, SetCordon, asked)

    assert with_queen(handlers, lambda: rbeectl("cordon", "gpu1", "a fan is loud")).out == (
        "Hive gpu1 is cordoned: a fan is loud\n"
    )
    assert with_queen(handlers, lambda: rbeectl("uncordon", "gpu1")).out == "Hive gpu1 is not cordoned\n"
    assert asked == [SetCordon("a fan is loud"), SetCordon(None)]
    assert "REASON must not be empty" in rbeectl("cordon", "gpu1", " ").err
    assert "REASON must have 0 to 2000 characters" in rbeectl("cordon", "gpu1", "x" * 2001).err
