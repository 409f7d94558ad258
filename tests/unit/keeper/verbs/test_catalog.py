"""The verbs of catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


def test_a_backup_of_a_sleeping_queen_exits_3_and_wakes_nobody(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("catalog", "backup", "copy.db")

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        "rbeectl: the queen is asleep, and only an awake queen can copy its catalog",
        "  try: systemctl start queen-rbee.service",
        "  try: rbeectl catalog backup copy.db",
    ]
    assert bus.asked == []


def test_a_check_of_a_file_needs_neither_systemd_nor_a_queen(
    bus: PlayedBus, rbeectl: Rbeectl, tmp_path: Path
) -> None:
    (tmp_path / "x.db").write_bytes(b"garbage" * 1000)

    ran = rbeectl("catalog", "check", str(tmp_path / "x.db"))

    assert ran.code == 78
    assert ran.err.startswith(f"rbeectl: {tmp_path / 'x.db'} is damaged or not a hive catalog: ")
    assert bus.opened == 0


@pytest.mark.parametrize(
    "arguments",
    [["restore"], ["restore", "x.db", "--empty"], ["backup"], ["mend"]],
    ids=" ".join,
)
def test_a_usage_error_of_a_catalog_verb_exits_2(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: list[str]
) -> None:
    ran = rbeectl("catalog", *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert bus.opened == 0
