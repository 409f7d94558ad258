"""Which of the sockets that systemd hands over are the queen's for this machine, and which for others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import rbee.queen.__main__
from rbee.errors import BadConfig
from rbee.queen.__main__ import _feed_path, _sockets
from rbee.scope import QUEEN_SOCKET_UNIT, SYSTEM, TCP_SOCKET_UNIT, TCP_SOCKETS


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as unix:
        yield unix


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6) as tcp:
        yield tcp


def hand_over(monkeypatch: pytest.MonkeyPatch, **sockets: list[socket.socket]) -> None:
    monkeypatch.setattr(rbee.queen.__main__, "take_sockets", lambda scope: sockets)


def test_sockets_are_told_apart_by_their_name_and_not_by_their_order(
    monkeypatch: pytest.MonkeyPatch, unix: socket.socket, tcp: socket.socket
) -> None:
    hand_over(monkeypatch, **{TCP_SOCKETS: [tcp], "queen-rbee.socket": [unix]})

    assert _sockets(SYSTEM) == ([unix], [tcp])


def test_a_queen_who_is_not_open_has_no_socket_for_others(
    monkeypatch: pytest.MonkeyPatch, unix: socket.socket
) -> None:
    hand_over(monkeypatch, unknown=[unix])

    assert _sockets(SYSTEM) == ([unix], [])


def test_tcp_where_nobody_asks_for_a_credential_is_refused(
    monkeypatch: pytest.MonkeyPatch, unix: socket.socket, tcp: socket.socket
) -> None:
    hand_over(monkeypatch, unknown=[unix, tcp])

    with pytest.raises(BadConfig, match=f"and {QUEEN_SOCKET_UNIT} has neither") as caught:
        _sockets(SYSTEM)

    assert f"Remove every ListenStream= but {SYSTEM.queen_socket}" in (caught.value.hint or "")


def test_a_unix_socket_among_those_for_other_machines_is_refused(
    monkeypatch: pytest.MonkeyPatch, unix: socket.socket, tcp: socket.socket
) -> None:
    hand_over(monkeypatch, **{TCP_SOCKETS: [tcp, unix]})

    with pytest.raises(BadConfig, match=f"{TCP_SOCKET_UNIT} has a Unix socket"):
        _sockets(SYSTEM)


def test_the_feed_is_in_the_runtime_directory_or_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/queen-rbee")
    assert _feed_path() == Path("/run/queen-rbee/events")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert _feed_path() is None
