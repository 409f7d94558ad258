"""One queen for this machine's hive."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from rbee.keeper.doctor.queens import complain_of_two_queens
from rbee.keeper.local_hive import RemoteQueen
from rbee.scope import SYSTEM

FOLDER = SYSTEM.hive_state.relative_to("/")


def has_joined(root: Path, **changes: object) -> None:
    told = {"hive_id": "gpu1", "host": "10.0.0.1", "port": 8500, "ca": "x", **changes}
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    (root / FOLDER / "membership").write_text(f"# {json.dumps(told)}\n")


def has_added(root: Path, *hives: str) -> None:
    folder = root / "var/lib/queen-rbee"
    folder.mkdir(parents=True)
    with closing(connect(folder / "catalog.db")) as connection, connection:
        connection.execute("CREATE TABLE hives (id TEXT)")
        connection.executemany("INSERT INTO hives VALUES (?)", [(hive,) for hive in hives])


REMOTE = RemoteQueen("10.0.0.1:8500", "gpu1")


def test_the_doctor_puts_aside_what_was_joined_where_localhost_was_added(tmp_path: Path) -> None:
    has_joined(tmp_path)
    (tmp_path / FOLDER / "membership.old").touch()
    has_added(tmp_path, "gpu7", "localhost")
    complaint = complain_of_two_queens(REMOTE, tmp_path, is_root=True)

    moves = [" ".join(cure) for cure in complaint.cures[:-1]]
    assert moves == [
        f"runuser -u rbee-hive -- mv -T /{FOLDER}/{name} /{FOLDER}/{name}.aside"
        for name in ("membership", "membership.old")
    ]
    assert complaint.cures[-1] == ("systemctl", "try-restart", "rbee-hive.service")


@pytest.mark.parametrize("hives", [(), ("gpu7",)])
def test_the_doctor_takes_no_hive_from_its_queen_unasked(tmp_path: Path, hives: tuple[str, ...]) -> None:
    has_joined(tmp_path)
    has_added(tmp_path, *hives)

    for is_root in (True, False):
        complaint = complain_of_two_queens(REMOTE, tmp_path, is_root=is_root)
        assert (complaint.cures, complaint.is_fault) == ((), True)
        assert "sudo apt remove rbee-queen" in (complaint.hint or "")
