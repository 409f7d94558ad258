"""rbeectl, run in this process, beside a systemd that is played."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rbee.keeper.__main__
import rbee.keeper.queen.wake
import rbee.keeper.session
import rbee.keeper.verbs.status
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, Scope
from rbee.wire.logs import LogQuery
from tests.unit.keeper.doubles import Ran, Rbeectl, in_scope
from tests.unit.played_systemd import ACTIVE, PlayedBus


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> PlayedBus:
    bus = PlayedBus()
    monkeypatch.setattr(rbee.keeper.session, "Bus", bus)
    # No journal that the test could read by chance.
    monkeypatch.setattr(rbee.keeper.queen.wake, "journal_tail", lambda *matches, **options: [])
    return bus


@pytest.fixture
def awake(bus: PlayedBus) -> PlayedBus:
    bus.states[QUEEN_UNIT] = ACTIVE._replace(status_text="hives: 1 online, 0 suspect, 0 offline")
    bus.states[HIVE_UNIT] = ACTIVE
    return bus


@pytest.fixture
def rbeectl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Rbeectl:
    """rbeectl, from its arguments to its exit code."""
    in_scope(monkeypatch, runtime=tmp_path)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["rbeectl", *arguments])
        code = rbee.keeper.__main__.main()
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def tail(query: LogQuery, lines: int, scope: Scope) -> list[str]:
        asked.append((query, lines))
        return ["Nov 23 12:00:00 rbee rbee-hive[7]: hello", "\x1b[2J"]

    monkeypatch.setattr(rbee.keeper.verbs.status, "tail", tail)
    return asked


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the program was replaced with."""
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda file, arguments: found.append(list(arguments)))
    return lambda: found.pop()
