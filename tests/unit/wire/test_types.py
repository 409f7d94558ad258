"""What the named annotations take, and what they say that it must be."""

from __future__ import annotations

import pytest

from rbee.wire import types
from rbee.wire.types import Limit, spelled


@pytest.mark.parametrize(
    ("name", "names", "found"),
    [
        ("gpu1", ["gpu1"], "gpu1"),
        ("gpu1", ["gpu0", "GPU1"], "GPU1"),
        ("GPU1", ["gpu1"], "gpu1"),
        ("gpu1", ["GPU1", "gpu1"], "gpu1"),
        ("GPU1", ["GPU1", "gpu1"], "GPU1"),
        ("gpu1", ["gpu2"], "gpu1"),
        ("gpu1", [], "gpu1"),
    ],
)
def test_a_name_is_found_in_any_case_and_first_in_its_own(name: str, names: list[str], found: str) -> None:
    assert spelled(name, names) == found


def test_what_a_pattern_asks_for_is_said_in_words() -> None:
    found = [
        limit
        for kind in vars(types).values()
        for limit in getattr(kind, "__metadata__", ())
        if isinstance(limit, Limit) and limit.pattern
    ]

    assert len(found) > 8
    assert all(limit.description for limit in found)
