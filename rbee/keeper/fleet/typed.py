"""The command line of rbeectl add-hive, which hints repeat with all of its options."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from rbee.scope import SYSTEM, Scope


class Typed(NamedTuple):
    """The options of add-hive; None if not typed. str() is the command line."""

    host: str
    user: str | None = None
    queen: str | None = None
    package: Path | None = None
    port: int | None = None
    scope: Scope = SYSTEM

    @property
    def target(self) -> str:
        """[USER@]HOST."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    def __str__(self) -> str:
        line = [*self.scope.command("rbeectl", "add-hive"), self.target]
        for option, value in (("--queen", self.queen), ("--install", self.package), ("--port", self.port)):
            if value is not None:
                line += [option, str(value)]
        return shlex.join(line)

    def by(self, user: str) -> str:
        """The command line with another user on the host."""
        return str(self._replace(user=user))

    def at(self, queen: str) -> str:
        """The command line with another address of the queen."""
        return str(self._replace(queen=queen))

    def installing(self) -> str:
        """The command line with --install; the person has to fill in the folder."""
        return str(self) if self.package is not None else f"{self} --install FOLDER"
