"""Labels that cannot be."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("c",), "'c' is neither KEY=VALUE nor KEY-"),
        (("=3",), "KEY must have 1 to 63 characters"),
        (("a=ü",), "VALUE must be empty, or made of"),
        (("a b=1",), "KEY must be made of"),
        ((f"{'x' * 64}=1",), "KEY must have 1 to 63 characters"),
    ],
)
def test_what_is_no_label_is_refused(
    bus: PlayedBus, rbeectl: Rbeectl, words: tuple[str, ...], told: str
) -> None:
    ran = rbeectl("label", "gpu1", *words)

    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert bus.asked == []
