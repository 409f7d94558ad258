"""The verb join."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rbee.keeper.fleet.join
import rbee.keeper.fleet.reach
from rbee.errors import UnitFailed
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT
from tests.unit.keeper.doubles import Rbeectl, in_scope
from tests.unit.keeper.fleet.remote_machine import NOT_FOUND, TEXT
from tests.unit.played_systemd import INACTIVE, PlayedBus


@pytest.fixture
def state(bus: PlayedBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a hive, on a machine without a queen; for root."""
    folder = tmp_path / "rbee-hive"
    bus.states |= {QUEEN_UNIT: NOT_FOUND, HIVE_UNIT: INACTIVE}
    in_scope(monkeypatch, state=tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    account = SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid())
    monkeypatch.setattr(rbee.keeper.fleet.join, "pwd", SimpleNamespace(getpwnam=lambda name: account))
    # A queen who is there, with the keys that the token is of.
    monkeypatch.setattr(rbee.keeper.fleet.reach, "connect", lambda *_asked: socket.socket())
    monkeypatch.setattr(rbee.keeper.fleet.reach, "check_keys", lambda *_asked: None)
    return folder


def taking_up(bus: PlayedBus, state: Path, invitations: list[Any]) -> Any:
    """rbee-hive-join.service, which takes up an invitation, and then there is a membership."""
    start = bus.start

    def started(unit: str, **options: Any) -> None:
        start(unit, **options)
        if unit != JOIN_UNIT:
            return
        told = json.loads((state / "invitation").read_text())
        invitations.append(told)
        (state / "invitation").unlink()
        head = {"hive_id": "gpu1", "host": told["host"], "port": told["port"]}
        (state / "membership").write_text(f"# {json.dumps(head)}\n")

    return started


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_token_may_come_by_stdin_where_no_command_line_shows_it(
    bus: PlayedBus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    invitations: list[Any] = []
    monkeypatch.setattr(bus, "start", taking_up(bus, state, invitations))
    monkeypatch.setattr(sys, "stdin", stdin_of(f"{mark}{TEXT}\r\n".encode()))

    assert rbeectl("join", "queen.example", "--token", "-").code == 0
    assert invitations == [{"host": "queen.example", "port": 8500, "name": None, "token": TEXT}]
    assert state.stat().st_mode & 0o777 == 0o700


def test_an_invitation_that_cannot_be_written_is_named_and_the_hive_runs_on(
    bus: PlayedBus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)

    ran = rbeectl("join", "queen.example", "--token", TEXT)

    assert (ran.code, bus.asked, os.listdir(state)) == (1, [], [])
    assert ran.err == (
        f"rbeectl: {state}/invitation cannot be written: No space left on device\n  try: df -h {state}\n"
    )


def test_a_token_that_an_editor_saved_in_utf_16_is_called_so(
    bus: PlayedBus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(f"{TEXT}\n".encode("utf-16")))

    ran = rbeectl("join", "queen.example", "--token", "-")

    assert (ran.code, bus.asked) == (2, [])
    assert "--token: the input is not a token: it is text in UTF-16, and must be UTF-8" in ran.err


def stdin_of(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content))


def test_a_hive_follows_its_queen_without_a_token(
    bus: PlayedBus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitations: list[Any] = []
    monkeypatch.setattr(bus, "start", taking_up(bus, state, invitations))
    state.mkdir()
    (state / "membership").write_text('# {"hive_id": "gpu1", "host": "old", "port": 8500}\n')
    ran = rbeectl("join", "10.0.0.9:9000")

    assert (ran.code, ran.out.splitlines()) == (0, [
        "(bee keeper) reaching the queen at 10.0.0.9:9000",
        "(bee keeper) following the queen to 10.0.0.9 with the key that this hive has",
        "(bee keeper) starting rbee-hive.service",
        "This machine is the hive gpu1 of the queen at 10.0.0.9:9000",
    ])  # fmt: skip
    assert invitations == [{"host": "10.0.0.9", "port": 9000, "name": None, "token": None}]


def test_a_hive_that_could_not_join_is_told_in_its_own_words(
    bus: PlayedBus, rbeectl: Rbeectl, state: Path
) -> None:
    bus.refusals["start", HIVE_UNIT] = UnitFailed(
        "it said: joining failed: the token has expired", hint="rbeectl token create"
    )
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert (ran.code, ran.out.splitlines()[-1]) == (1, "(bee keeper) starting rbee-hive.service")
    assert ran.err == (
        "rbeectl: it said: joining failed: the token has expired\n  try: rbeectl token create\n"
    )
