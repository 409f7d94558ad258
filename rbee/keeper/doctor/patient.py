"""The machine that the doctor examines, and the programs of rbee that it may have."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rbee.scope import (
    HIVE_PROGRAM,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    QUEEN_PROGRAM,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    SYSTEM,
    Scope,
)
from rbee.systemd.bus import Bus


class Program(NamedTuple):
    """One of rbee's daemons; `launcher` is relative to the root, `path` is its socket's."""

    user: str
    package: str
    launcher: Path
    service: str
    socket: str
    path: Path


LAUNCHERS = Path("usr/libexec/rbee")


class Patient(NamedTuple):
    """The machine that is examined: its file system, its bus, and the caller.

    `bus` is None if it does not answer; `is_root` is true for the owner of the scope; `sudo_user` is the user
    who called sudo.
    """

    bus: Bus | None
    root: Path
    is_root: bool
    sudo_user: str | None
    scope: Scope = SYSTEM

    @property
    def queen(self) -> Program:
        """The queen of this scope."""
        return Program(
            self.scope.queen_user, "rbee-queen", LAUNCHERS / QUEEN_PROGRAM,
            QUEEN_UNIT, QUEEN_SOCKET_UNIT, self.scope.queen_socket,
        )  # fmt: skip

    @property
    def hive(self) -> Program:
        """The hive of this scope."""
        return Program(
            self.scope.hive_user, "rbee-hive", LAUNCHERS / HIVE_PROGRAM,
            HIVE_UNIT, HIVE_SOCKET_UNIT, self.scope.hive_socket,
        )  # fmt: skip

    @property
    def programs(self) -> list[Program]:
        """Those of queen and hive that are installed here."""
        both = (self.queen, self.hive)
        return [program for program in both if (self.root / program.launcher).exists()]

    def is_installed(self, program: Program) -> bool:
        """Is this one installed here?"""
        return program in self.programs
