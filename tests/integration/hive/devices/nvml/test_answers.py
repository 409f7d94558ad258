"""NVML's answers that cannot be true."""

from __future__ import annotations

import pytest

from tests.nvml import Load
from tests.unit.hive.devices.cards import cards_of, doing
from tests.unit.hive.devices.machine import A, Machine


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (Load(101, 0, 0, 0), "utilisation: 101% is not a possible value"),
        (Load(0, 2**60, 0, 0), f"memory: {2**60} bytes is not a possible value"),
        (Load(0, 0, 4294967295, 0), "temperature: 4.29497e+09 °C is not a possible value"),
        (Load(0, 0, 0, 4294967295), "power: 4.29497e+06 W is not a possible value"),
    ],
)
def test_what_cannot_be_is_not_passed_on(machine: Machine, load: Load, problem: str) -> None:
    machine.show(doing(A, load))

    (((card,),)) = cards_of(machine)
    assert card.problem == problem
