"""A signal that has to wait."""

from __future__ import annotations

import signal

import pytest

from rbee.signals import ENDING, ending_put_off


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_comes_in_between_takes_effect_afterwards(number: int) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda number, _frame: came.append(number))
    try:
        with ending_put_off():
            signal.raise_signal(number)
            assert came == []
        assert came == [number]
    finally:
        signal.signal(number, before)
