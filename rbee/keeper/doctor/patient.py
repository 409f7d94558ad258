"""The machine that the doctor looks at, and the programs of rbee that it may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rbee import config
from rbee.scope import HIVE_SOCKET_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd.bus import Bus


@dataclass(frozen=True, slots=True)
class Program:
    user: str
    package: str
    launcher: Path
    service: str
    socket: str
    path: Path


QUEEN = Program(
    "queen-rbee", "rbee-queen", Path("usr/libexec/rbee/queen-rbee"),
    QUEEN_UNIT, QUEEN_SOCKET_UNIT, config.QUEEN_SOCKET,
)  # fmt: skip

HIVE = Program(
    "rbee-hive", "rbee-hive", Path("usr/libexec/rbee/rbee-hive"),
    HIVE_UNIT, HIVE_SOCKET_UNIT, config.HIVE_SOCKET,
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """The machine that is looked at: its file system, its bus, and who asks.

    `bus` is None where the system bus does not answer; `sudo_user` is whom root acts for.
    """

    bus: Bus | None
    root: Path
    is_root: bool
    sudo_user: str | None

    @property
    def programs(self) -> list[Program]:
        """Which of the two are installed here."""
        return [program for program in (QUEEN, HIVE) if (self.root / program.launcher).exists()]

    def is_installed(self, program: Program) -> bool:
        return program in self.programs
