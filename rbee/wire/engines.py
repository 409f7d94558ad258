"""Engines: what a hive has to serve models with."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.types import Format, Limit, Name, Text, Word


class Engine(NamedTuple):
    """An engine of a hive. `file` is its NAME.conf. `problem` is why it cannot be used, None if it can.

    `selects_by_uuid` is whether its command has the card's UUID (%u): it can use no card without one.
    """

    name: Word
    executable: Text
    formats: Annotated[tuple[Format, ...], Limit(0, 8)]
    file: Text
    problem: Text | None = None
    selects_by_uuid: bool = False


class Engines(NamedTuple):
    """The engines of a hive, by name. `problems` are those of refused files: FILE:LINE: REASON."""

    engines: Annotated[tuple[Engine, ...], Limit(0, 64)]
    problems: Annotated[tuple[Text, ...], Limit(0, 64)] = ()


class HiveEngines(NamedTuple):
    """The engines of one hive; `reason` is why they are not known, None if they are."""

    hive_id: Name
    engines: Annotated[tuple[Engine, ...], Limit(0, 64)]
    problems: Annotated[tuple[Text, ...], Limit(0, 64)] = ()
    reason: Text | None = None


class FleetEngines(NamedTuple):
    """The engines of all hives."""

    hives: Annotated[tuple[HiveEngines, ...], Limit(0, 10_000)]
