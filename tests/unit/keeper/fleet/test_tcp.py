"""Addresses to listen on that cannot be."""

from __future__ import annotations

import errno
import os

import pytest

from rbee.errors import BadInput, NotPermitted, RbeeError
from rbee.keeper.fleet.tcp import cannot_listen
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


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EADDRINUSE, BadInput, "another program already listens on port 80"),
        (
            errno.EADDRNOTAVAIL,
            BadInput,
            "this machine does not have the address ::1 (Cannot assign requested address)",
        ),
        (errno.EACCES, NotPermitted, "you may not listen on port 80 (Permission denied)"),
        (
            errno.EAFNOSUPPORT,
            BadInput,
            "this machine cannot listen on [::1]:80 (Address family not supported by protocol)",
        ),
    ],
)
def test_why_nobody_can_listen_at_an_address_is_said(
    number: int, kind: type[RbeeError], message: str
) -> None:
    error = cannot_listen(OSError(number, os.strerror(number)), "::1", 80)

    assert (type(error), error.message, error.field) == (kind, message, "--listen")
    assert error.hint
