"""Answers of any daemon: its health, that it stops, and problems."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rbee.wire.types import Count, Text


class Health(NamedTuple):
    """The answer of a queen that serves; `version` is that of rbee."""

    status: Literal["ok"]
    version: Text


class Accepted(NamedTuple):
    """The daemon will stop; or what was to be removed is not there any more."""

    status: Literal["stopping", "removed"]


class Problem(NamedTuple):
    """A problem document of RFC 9457, extended by `field` (which input) and `hint` (the cure)."""

    type: Text
    title: Text
    status: Count
    detail: Text
    field: Text | None = None
    hint: Text | None = None
