"""Narrated lines."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rbee.wire.types import Text, Timestamp, Word

Speaker = Literal["bee keeper", "queen bee", "bee hive", "bee gateway"]


class Line(NamedTuple):
    """One narrated line of a job's story. `event` is the name of a rbee.narration.Event."""

    speaker: Speaker
    text: Text
    event: Word
    at: Timestamp
