"""The configuration."""

from __future__ import annotations

from pathlib import Path

from rbee.keeper.doctor.configuration import check_configuration
from tests.unit.keeper.doctor.doubles import asked


def test_a_configuration_that_cannot_be_used_is_told_and_an_unknown_key_is_a_note(root: Path) -> None:
    (root / "etc/rbee").mkdir(parents=True)
    (root / "etc/rbee/rbee.conf").write_text("[Queen]\nUnheard=1\n")
    (note,) = asked(check_configuration, None, root)
    assert not note.is_fault

    (root / "etc/rbee/rbee.conf").write_text("[Queen]\nHeartbeatIntervalSec=soon\n")
    (complaint,) = asked(check_configuration, None, root)
    assert "HeartbeatIntervalSec=" in complaint.text
    assert (complaint.is_fault, complaint.cures) == (True, ())
