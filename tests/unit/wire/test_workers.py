"""The margin of a pool."""

from __future__ import annotations

import pytest

from rbee.wire.workers import MARGIN, Pool


@pytest.mark.parametrize(
    ("total", "margin"),
    [(None, MARGIN), (80 * 2**30, MARGIN), (20 * 2**30, MARGIN), (2 * 2**30, 2**31 // 20), (0, 0)],
)
def test_a_gibibyte_stays_free_and_of_a_small_pool_a_twentieth(total: int | None, margin: int) -> None:
    assert Pool("ram", "RAM", total, None).margin_bytes == margin
