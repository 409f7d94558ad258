"""What was typed after rbeectl add-hive, to be typed again: hints lose none of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Typed:
    """As the options of the verb have it; None was not typed. str() is the command line."""

    host: str
    user: str | None = None
    queen: str | None = None
    package: Path | None = None
    port: int | None = None

    def __str__(self) -> str:
        words = ["rbeectl", "add-hive", self.host if self.user is None else f"{self.user}@{self.host}"]
        for option, value in (("--queen", self.queen), ("--install", self.package), ("--port", self.port)):
            if value is not None:
                words += [option, str(value)]
        return shlex.join(words)

    def by(self, user: str) -> str:
        """The same as another user over there."""
        return str(replace(self, user=user))

    def at(self, queen: str) -> str:
        """The same with the queen at this address."""
        return str(replace(self, queen=queen))

    def installing(self) -> str:
        """The same with packages, of which the folder is still to be named."""
        return str(self) if self.package is not None else f"{self} --install FOLDER"
