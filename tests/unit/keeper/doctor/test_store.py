"""The store of models."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rbee.keeper.doctor.patient import Patient
from rbee.keeper.doctor.store import check_store, has_store
from tests.unit.keeper.doctor.doubles import asked


@pytest.mark.parametrize(
    ("free", "complains"), [(2**40, False), (2**30 - 1, True), (0, True)], ids=["much", "little", "none"]
)
def test_a_disk_that_is_nearly_full_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, complains: bool
) -> None:
    (tmp_path / "var/lib/rbee-models").mkdir(parents=True)
    space = SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=2**41)
    monkeypatch.setattr(os, "statvfs", lambda path: space)

    complaints = asked(check_store, None, tmp_path)

    assert ["nearly full" in complaint.text for complaint in complaints] == [True] * complains


def test_without_a_store_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert not has_store(Patient(None, tmp_path, False, None))
