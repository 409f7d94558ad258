"""Jobs that change the hives of the catalog: waited for, or not."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from rbee.wire.codec import encode
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import BEGUN, JOB, Rbeectl, WithQueen, story
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


@pytest.mark.parametrize(
    ("verb", "route"), [("add-hive", QueenRoutes.ADD_HIVE), ("remove-hive", QueenRoutes.REMOVE_HIVE)]
)
def test_without_waiting_the_job_is_named_and_goes_on(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str, route: Route
) -> None:
    started = JobStarted("localhost", JOB, f"/v1/jobs/{JOB}/events")

    async def begin(request: Request) -> JobStarted:
        assert "text/event-stream" not in request.headers["accept"]
        return started

    told = with_queen({route: begin}, lambda: rbeectl(verb, "localhost", "--no-wait"))
    for_programs = with_queen({route: begin}, lambda: rbeectl(verb, "localhost", "--no-wait", "--json"))

    assert told.code == for_programs.code == 0
    assert told.out.endswith(f"Job {JOB} continues; follow it: rbeectl logs -f --job {JOB}\n")
    assert for_programs.json[-1] == {"event": "job", **encode(started)}


@pytest.mark.parametrize("hive", [None, HIVE_VIEW._replace(state="offline")], ids=["none", "offline"])
def test_exit_0_means_that_the_hive_is_online(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, hive: Any
) -> None:
    done = story(BEGUN, ("done", encode(Done(hive))))

    ran = with_queen({QueenRoutes.ADD_HIVE: done}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 1
    assert "localhost is not online" in ran.err
    assert "Online" not in ran.out
