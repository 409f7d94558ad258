"""The verb metrics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("name", ["-", "device", "folder", "link-to-device", "loop"])
def test_metrics_go_into_a_file_and_replace_nothing_else(
    bus: PlayedBus, rbeectl: Rbeectl, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "device")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link-to-device").symlink_to("device")
    (tmp_path / "loop").symlink_to("loop")
    before = {one.name: one.lstat() for one in tmp_path.iterdir()}

    ran = rbeectl("metrics", "--textfile", name if name == "-" else str(tmp_path / name))

    assert (ran.code, ran.out) == (2, "")
    assert "is not a regular file" in ran.err or "and not -" in ran.err
    assert "try: rbeectl metrics" in ran.err
    assert {one.name: one.lstat().st_ino for one in tmp_path.iterdir()} == {
        one: found.st_ino for one, found in before.items()
    }


def test_metrics_go_beside_what_a_link_leads_to(bus: PlayedBus, rbeectl: Rbeectl, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/rbee.prom").write_text("old")
    (tmp_path / "rbee.prom").symlink_to("there/rbee.prom")

    assert rbeectl("metrics", "--textfile", str(tmp_path / "rbee.prom")).code == 0

    assert (tmp_path / "rbee.prom").is_symlink()
    assert "rbee_queen_up 0" in (tmp_path / "there/rbee.prom").read_text()


def test_ctrl_c_leaves_no_half_a_file_beside_the_old_one(
    bus: PlayedBus, rbeectl: Rbeectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rbee.prom").write_text("old")

    def interrupted(number: int, mode: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fchmod", interrupted)

    assert rbeectl("metrics", "--textfile", str(tmp_path / "rbee.prom")).code == 130
    assert [one.read_text() for one in tmp_path.iterdir()] == ["old"]
