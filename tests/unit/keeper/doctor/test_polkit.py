"""polkit and its rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import TimedOut
from rbee.keeper.doctor.check import Command
from rbee.keeper.doctor.polkit import POLKIT, RULES, check_polkit
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doctor.doubles import FAILED, GONE, MASKED, asked
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize(
    ("state", "file_state", "said", "cures"),
    [
        (MASKED, "masked", "is masked", [("systemctl", "unmask", POLKIT)]),
        (MASKED, "masked-runtime", "is masked", [("systemctl", "unmask", "--runtime", POLKIT)]),
        (GONE, "", "not installed", [("apt-get", "install", "--yes", "polkitd")]),
        (
            FAILED._replace(result="timeout"),
            "static",
            "did not start or stop in time",
            [("systemctl", "reset-failed", POLKIT), ("systemctl", "start", POLKIT)],
        ),
    ],
)
def test_a_polkit_that_cannot_answer_is_told_by_its_unit_and_not_asked(
    bus: PlayedBus, root: Path, state: UnitState, file_state: str, said: str, cures: list[Command]
) -> None:
    bus.states[POLKIT] = state
    bus.files[POLKIT] = file_state, False

    (complaint,) = asked(check_polkit, bus, root)

    assert said in complaint.text
    assert list(complaint.cures) == cures
    assert bus.pinged == []


def test_a_polkit_that_is_there_and_silent_is_restarted(bus: PlayedBus, root: Path) -> None:
    bus.refusals["ping", "org.freedesktop.PolicyKit1"] = TimedOut("no answer within 3 s")

    (complaint,) = asked(check_polkit, bus, root)

    assert complaint.cures == (("systemctl", "restart", POLKIT),)


def test_missing_rules_are_no_command_s_to_mend_and_hidden_ones_are_not_missing(
    bus: PlayedBus, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / RULES).unlink()
    (complaint,) = asked(check_polkit, bus, root)
    assert complaint.cures == ()
    assert "python3-rbee" in (complaint.hint or "")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # as on Debian 12 for who is not root
    assert asked(check_polkit, bus, root) == []
