"""The options that verbs share, with a queen that is served."""

from __future__ import annotations

import pytest

from rbee.wire.codec import encode
from tests.unit.keeper.doubles import Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


@pytest.mark.parametrize("arguments", [["--json", "list-hives"], ["list-hives", "--json"]], ids=" ".join)
def test_an_option_may_stand_before_the_verb_and_after_it(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str]
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(*arguments))

    assert (ran.code, ran.json) == (0, [{"hives": [encode(HIVE_VIEW)]}])
