"""The options that verbs share."""

from __future__ import annotations

import pytest

from rbee.wire.codec import encode
from rbee.wire.hives import Hives
from tests.unit.keeper.doubles import Bus, Rbeectl, WithQueen, listing
from tests.unit.wire_values import HIVE_VIEW


@pytest.mark.parametrize("arguments", [["--json", "list-hives"], ["list-hives", "--json"]], ids=" ".join)
def test_an_option_may_stand_before_the_verb_and_after_it(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str]
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(*arguments))

    assert (ran.code, ran.json) == (0, [encode(Hives((HIVE_VIEW,)))])


@pytest.mark.parametrize("span", ["0", "-1", "soon", "", "5 bananas"])
def test_a_timeout_that_is_none_is_a_usage_error(bus: Bus, rbeectl: Rbeectl, span: str) -> None:
    ran = rbeectl("add-hive", "localhost", f"--timeout={span}")

    assert (ran.code, ran.out) == (2, "")
    assert "--timeout" in ran.err
    assert bus.asked == []
