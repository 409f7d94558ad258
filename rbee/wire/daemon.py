"""Answers of any daemon: its health, that it stops, and problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbee.wire.types import Count, Text


@dataclass(frozen=True)
class Health:
    """The answer of a queen that serves; `version` is that of rbee."""

    status: Literal["ok"]
    version: Text


@dataclass(frozen=True)
class Accepted:
    """The daemon will stop; or what was to be removed is not there any more."""

    status: Literal["stopping", "removed"]


@dataclass(frozen=True)
class Problem:
    """A problem document of RFC 9457, extended by `field` (which input) and `hint` (the cure)."""

    type: Text
    title: Text
    status: Count
    detail: Text
    field: Text | None = None
    hint: Text | None = None
