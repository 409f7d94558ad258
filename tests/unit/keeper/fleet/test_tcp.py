"""Addresses to listen on that cannot be."""

from __future__ import annotations

import os

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize(
    ("listen", "code", "words"),
    [
        ("queen:9000", 2, "--listen must have an IP address"),
        ("999.1.1.1", 2, "--listen must have an IP address"),
        ("1.2:9000", 2, "--listen must have an IP address"),
        ("10.0.0.1:99999", 2, "--listen must have a port"),
        ("10.0.0.1:9000", 77, "try: sudo rbeectl tcp enable --listen 10.0.0.1:9000"),
    ],
)
def test_an_address_that_cannot_be_set_is_refused_before_anybody_is_woken(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch, listen: str, code: int, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = rbeectl("tcp", "enable", "--listen", listen)

    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert bus.asked == []
