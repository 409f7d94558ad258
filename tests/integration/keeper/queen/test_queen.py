"""Asking the queen."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.permission
from rbee.errors import NotPermitted
from rbee.scope import QUEEN_UNIT
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("by", ["bus", "socket"])
def test_who_is_refused_hears_the_same_whoever_refused(
    bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(
        rbee.keeper.permission,
        "explain",
        lambda refusal, scope: NotPermitted("explained", hint="newgrp rbee"),
    )

    async def refuse(_request: Request) -> Response:
        raise NotPermitted("not you")

    if by == "bus":
        bus.refusals["start", QUEEN_UNIT] = NotPermitted("systemd does not let you do this")
    ran = with_queen({QueenRoutes.ADD_HIVE: refuse}, lambda: rbeectl("add-hive", "localhost"))

    assert (ran.code, ran.err) == (77, "rbeectl: explained\n  try: newgrp rbee\n")
