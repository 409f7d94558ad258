"""Narrated lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbee.wire.types import Text, Timestamp, Word

Speaker = Literal["bee keeper", "queen bee", "bee hive", "bee gateway"]


@dataclass(frozen=True)
class Line:
    """One narrated line of a job's story. `event` is the name of a rbee.narration.Event."""

    speaker: Speaker
    text: Text
    event: Word
    at: Timestamp
