"""Fleets: one a module where tests leave it as they found it, one a test where they do not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from testbed.trees import Trees

from tests.system.fleet.fleet import SUITES, Fleet, fleet_of
from tests.system.fleet.ssh import give_ssh

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(trees: Trees, debs: list[Path]) -> Iterator[MakeFleet]:
    """Makes a fleet of this test's own: see fleet.fleet_of()."""
    with ExitStack() as at_the_end:

        def make(**options: Any) -> Fleet:
            return at_the_end.enter_context(fleet_of(trees, debs, **options))

        yield make


@pytest.fixture(params=SUITES)
def reached_fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen on either Debian, and gpu1 on the same, where ada may be root by ssh."""
    fleet = make_fleet(queen=request.param)
    give_ssh(fleet, fleet.boot("gpu1", request.param))
    return fleet
