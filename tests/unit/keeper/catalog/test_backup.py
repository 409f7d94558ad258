"""A copy of the catalog."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.errors import BadInput, CatalogUnusable, NotRunning, RbeeError, Unreachable
from rbee.keeper.catalog.backup import backup
from tests.unit.keeper.catalog.doubles import listing, make, queen


def test_a_backup_is_checked_private_and_the_only_new_file(path: Path, tmp_path: Path) -> None:
    content = make(path, "localhost").read_bytes()
    (tmp_path / "out").mkdir()

    report = backup(queen([content[:5000], content[5000:]]), "awake", str(tmp_path / "out/copy.db"))

    assert report is not None
    assert (report.path, report.hives) == (str(tmp_path / "out/copy.db"), 1)
    assert listing(tmp_path / "out") == {"copy.db"}
    assert (tmp_path / "out/copy.db").read_bytes() == content
    assert (tmp_path / "out/copy.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_backup_that_breaks_off_leaves_what_was_there(path: Path, tmp_path: Path, is_forced: bool) -> None:
    content = make(path, "localhost").read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    if is_forced:
        (out / "copy.db").write_bytes(b"the one before")
    broken = queen([content[:5000]], Unreachable("the queen ended her answer before its end"))

    with pytest.raises(Unreachable):
        backup(broken, "awake", str(out / "copy.db"), is_forced=is_forced)

    assert listing(out) == ({"copy.db"} if is_forced else set())


def test_a_backup_that_arrives_damaged_is_not_kept(path: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(CatalogUnusable, match="is damaged"):
        backup(queen([b"something else entirely" * 500]), "awake", str(tmp_path / "out/copy.db"))

    assert listing(tmp_path / "out") == set()


def test_a_file_that_is_there_is_replaced_by_force_alone(path: Path, tmp_path: Path) -> None:
    content = make(path, "localhost").read_bytes()
    target = tmp_path / "copy.db"
    target.write_bytes(b"the one before")

    with pytest.raises(BadInput, match="already exists") as caught:
        backup(queen([content]), "awake", str(target))
    assert caught.value.hint == f"rbeectl catalog backup --force {target}"
    assert target.read_bytes() == b"the one before"

    backup(queen([content]), "awake", str(target), is_forced=True)
    assert target.read_bytes() == content


def test_force_does_not_replace_what_is_no_file(path: Path, tmp_path: Path) -> None:
    for target in ("/dev/null", str(tmp_path)):
        with pytest.raises(BadInput, match="is not a regular file"):
            backup(queen([]), "awake", target, is_forced=True)


def test_a_disk_that_fills_up_at_the_client_is_told_and_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RbeeError, match="No space left on device") as caught:
        backup(queen([b"x"]), "awake", str(tmp_path / "out/copy.db"))

    assert caught.value.hint == f"df -h {tmp_path / 'out'}"
    assert listing(tmp_path / "out") == set()


@pytest.mark.parametrize("state", ["off", "asleep", "waking", "stopping", "failed"])
def test_a_queen_who_is_not_awake_is_not_woken_for_a_backup(path: Path, tmp_path: Path, state: str) -> None:
    with pytest.raises(NotRunning, match=f"the queen is {state}") as caught:
        backup(queen([]), state, str(tmp_path / "copy.db"))

    wakes = (caught.value.hint or "").splitlines()[0]
    assert wakes.startswith(("systemctl start", "systemctl status", "rbeectl catalog backup"))
    assert not (tmp_path / "copy.db").exists()
