"""The system bus."""

from __future__ import annotations

from pathlib import Path

from rbee.errors import TimedOut, Unreachable
from rbee.keeper.doctor.bus import complain_of_bus


def test_a_stopped_bus_is_started_and_one_that_is_masked_unmasked_first(root: Path) -> None:
    error = Unreachable("the system bus does not answer")
    start = ("systemctl", "start", "dbus.socket", "dbus.service")
    assert complain_of_bus(error, root).cures == (start,)

    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system/dbus.service").symlink_to("/dev/null")
    (root / "run/systemd/system/dbus.socket").symlink_to("/dev/null")

    complaint = complain_of_bus(error, root)
    assert "stopped and masked" in complaint.text
    assert complaint.cures == (
        ("systemctl", "unmask", "--runtime", "dbus.socket"),
        ("systemctl", "unmask", "dbus.service"),
        start,
    )


def test_a_bus_that_hangs_is_not_started_but_set_going(root: Path) -> None:
    (cure,) = complain_of_bus(TimedOut("no answer within 3 s"), root).cures

    assert cure == ("systemctl", "kill", "--signal=CONT", "dbus.service")


def test_a_machine_without_systemd_has_no_cure(tmp_path: Path) -> None:
    complaint = complain_of_bus(Unreachable("no bus"), tmp_path)

    assert "this machine was not booted with systemd" in complaint.text
    assert complaint.cures == ()
