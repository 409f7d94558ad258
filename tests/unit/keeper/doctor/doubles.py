"""What the doctor asks of systemd, played, and what the tests of each check share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

from rbee.errors import RbeeError
from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.doctor.polkit import POLKIT
from rbee.scope import (
    CONTROL_SOCKET_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    JOIN_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    SYSTEM,
    TARGET,
    TCP_SOCKET_UNIT,
)
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState
from tests.unit.played_systemd import ACTIVE, INACTIVE

LISTENING = UnitState("loaded", "active", "listening", result="success")

FAILED = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1)

MASKED = UnitState("masked", "inactive", "dead")

GONE = UnitState("not-found", "inactive", "dead")


@dataclass
class PlayedBus:
    """What the doctor asks of systemd; `silent` names do not answer."""

    scope: ClassVar = SYSTEM

    states: dict[str, UnitState] = field(
        default_factory=lambda: {
            QUEEN_UNIT: INACTIVE,
            QUEEN_SOCKET_UNIT: LISTENING,
            HIVE_UNIT: INACTIVE,
            HIVE_SOCKET_UNIT: LISTENING,
            CONTROL_SOCKET_UNIT: LISTENING,
            JOIN_UNIT: INACTIVE,
            TARGET: INACTIVE,
            TCP_SOCKET_UNIT: INACTIVE,
            POLKIT: ACTIVE,
        }
    )
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)
    silent: dict[str, RbeeError] = field(default_factory=dict)
    access: tuple[str, str, int] = ("", "", 0o660)
    pinged: list[str] = field(default_factory=list)
    later: dict[str, list[UnitState]] = field(default_factory=dict)
    """What units become while somebody waits."""

    def __enter__(self) -> PlayedBus:
        if "open" in self.silent:
            raise self.silent["open"]
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def ping(self, name: str) -> None:
        self.pinged.append(name)
        if name in self.silent:
            raise self.silent[name]

    def ping_polkit(self) -> None:
        self.ping("org.freedesktop.PolicyKit1")

    def state(self, unit: str) -> UnitState:
        return self.states.get(unit, INACTIVE)

    def has_job(self, unit: str) -> bool:
        return False

    def await_state(self, unit: str, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        assert timeout > 0
        while not is_awaited(self.state(unit)) and self.later.get(unit):
            self.states[unit] = self.later[unit].pop(0)
        return self.state(unit)

    def active_state(self, unit: str) -> str:
        return self.states[unit].active

    def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        return [("Stream", "[::]:8500")]

    def file_state(self, unit: str) -> tuple[str, bool]:
        return self.files.get(unit, ("enabled", False))

    def socket_access(self, unit: str) -> tuple[str, str, int]:
        return self.access

    def await_idle(self, units: object, *, timeout: float) -> None:
        pass


def asked(
    check: Callable[[Patient], Iterator[Complaint]],
    bus: PlayedBus | None,
    root: Path,
    *,
    is_root: bool = False,
    sudo_user: str | None = None,
) -> list[Complaint]:
    return list(check(Patient(cast(Bus, bus), root, is_root, sudo_user)))
