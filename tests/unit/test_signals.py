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


def test_each_signal_has_its_handler_back_also_where_one_ends_the_context() -> None:
    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def all_come() -> None:
        with ending_put_off():
            for number in ENDING:
                signal.raise_signal(number)

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        with pytest.raises(KeyboardInterrupt):
            all_come()
        assert [signal.getsignal(number) for number in ENDING] == [end] * len(ENDING)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
