"""Tokens that cannot be made."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ttl", "31d"), "--ttl must be from 1s to 30d"),
        (("--ttl", "10ms"), "--ttl must be from 1s to 30d"),
        (("--ttl", "soon"), "is not a time span"),
        (("--uses", "0"), "--uses"),
        (("--hive", "a b"), "--hive must be made of"),
    ],
)
def test_a_token_that_cannot_be_made_is_refused_by_its_option(
    bus: PlayedBus, rbeectl: Rbeectl, options: tuple[str, ...], words: str
) -> None:
    ran = rbeectl("token", "create", *options)

    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert bus.asked == []
