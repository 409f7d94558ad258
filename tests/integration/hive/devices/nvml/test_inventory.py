"""Which cards NVML shows, asked anew by each detection."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.hive.devices.cards import BUSY, IDLE, cards_of, doing, sample_of
from tests.unit.hive.devices.machine import A, B, Machine


def test_a_detection_sees_what_is_new_though_nvml_was_open(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(doing(A, BUSY))

    script = f"cards()\n{later(doing(A, BUSY), doing(B, IDLE))}\ncards()\ndetect()\ncards()"
    old, still_old, new = cards_of(machine, script)
    assert old == still_old == (sample_of(0, A, BUSY),)
    assert new == (sample_of(0, A, BUSY), sample_of(1, B, IDLE))
