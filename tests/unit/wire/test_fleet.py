"""The shapes of a fleet: tokens, and those who join."""

from __future__ import annotations

import pytest

from rbee.errors import BadInput
from rbee.wire.codec import decode, encode
from rbee.wire.fleet import CreateToken, Join


def test_a_new_hive_s_name_is_one_that_a_table_can_show() -> None:
    decode(Join, encode(Join("t", "x" * 63, "a" * 32, "r", "1.0")))
    for shape in (Join("t", "x" * 64, "a" * 32, "r", "1.0"), CreateToken(hive="x" * 64)):
        with pytest.raises(BadInput, match="must have 1 to 63 characters"):
            decode(type(shape), encode(shape))
