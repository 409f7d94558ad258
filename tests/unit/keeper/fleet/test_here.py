"""This machine by its other names: nobody goes there by ssh."""

from __future__ import annotations

import socket

import pytest

import rbee.keeper.fleet.here as here

KNOWN = {"queen.example.org": "127.0.1.1", "queen.other.org": "192.0.2.9"}


@pytest.fixture(autouse=True)
def queen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is called queen, at 192.0.2.1 and fd00::1; who is asked knows KNOWN."""

    def look_up(
        name: str, _port: None, **_options: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if name not in KNOWN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (KNOWN[name], 0))]

    monkeypatch.setattr(socket, "gethostname", lambda: "Queen")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(here, "own_addresses", lambda *, are_plain: ["127.0.0.1", "192.0.2.1", "fd00::1"])


@pytest.mark.parametrize(
    "host",
    [
        "queen", "QUEEN", "queen.", "queen.example.org", "Queen.Example.Org.", "localhost.", "LOCALHOST",
        "127.0.0.1", "127.9.9.9", "::1", "[::1]", "0.0.0.0", "192.0.2.1", "fd00::1", "FD00:0::1",
        "::ffff:127.0.0.1",
    ],
)  # fmt: skip
def test_by_any_of_its_names_and_addresses_it_is_this_machine(host: str) -> None:
    assert here.is_here(host)


@pytest.mark.parametrize(
    "host",
    ["gpu1", "queen2", "queen.other.org", "queen.unknown.org", "192.0.2.9", "fd00::2", ""],
)
def test_another_is_another(host: str) -> None:
    assert not here.is_here(host)
