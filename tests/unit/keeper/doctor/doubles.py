"""What the doctor asks of systemd, played, and what the tests of each check share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState
from tests.unit.played_systemd import PlayedBus

FAILED = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1)

MASKED = UnitState("masked", "inactive", "dead")

GONE = UnitState("not-found", "inactive", "dead")


def asked(
    check: Callable[[Patient], Iterator[Complaint]],
    bus: PlayedBus | None,
    root: Path,
    *,
    is_root: bool = False,
    sudo_user: str | None = None,
) -> list[Complaint]:
    return list(check(Patient(cast(Bus, bus), root, is_root, sudo_user)))
