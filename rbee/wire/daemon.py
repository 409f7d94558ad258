"""What any daemon answers: that it is well, that it stops, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbee.wire.types import Count, Text


@dataclass(frozen=True)
class Health:
    status: Literal["ok"]
    version: Text


@dataclass(frozen=True)
class Accepted:
    status: Literal["stopping"]


@dataclass(frozen=True)
class Problem:
    """RFC 9457, with `field` (which input) and `hint` (the cure) as members of our own."""

    type: Text
    title: Text
    status: Count
    detail: Text
    field: Text | None = None
    hint: Text | None = None
