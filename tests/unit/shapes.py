"""Values of every shape of the contracts, made from their annotations."""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import UTC
from typing import Annotated, Any, Literal, Union

from hypothesis import strategies as st

from rbee import contracts

SHAPES = tuple(
    kind
    for kind in vars(contracts).values()
    if dataclasses.is_dataclass(kind)
    and isinstance(kind, type)
    and kind not in (contracts.Limit, contracts.Route)
)

HIVE_VIEW = contracts.HiveView(
    id="localhost",
    host="localhost",
    port=8600,
    status="online",
    devices=contracts.Devices(
        contracts.Cpu("AMD EPYC 7763", 2, 128, 256, 512 * 2**30),
        (
            contracts.Gpu(
                0, "nvidia", "NVIDIA GeForce RTX 4090", "GPU-a", 24 * 2**30, "550.54", "0000:01:00.0"
            ),
        ),
    ),
    created_at_ms=1_000,
    updated_at_ms=2_000,
    wanted=True,
    state="online",
    reason="its heartbeats come",
    since_ms=2_000,
    last_beat_ms=3_000,
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values that the annotation allows; long ones are kept short for speed."""
    limit = None
    if typing.get_origin(kind) is Annotated:
        kind, limit = typing.get_args(kind)[:2]
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        (member,) = (arm for arm in typing.get_args(kind) if arm is not types.NoneType)
        return st.none() | values(member)
    if origin is Literal:
        return st.sampled_from(typing.get_args(kind))
    if origin is tuple:
        return st.lists(values(typing.get_args(kind)[0]), max_size=2).map(tuple)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: values(hint) for name, hint in hints.items()})
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(limit.least, limit.most) if limit else st.integers()
    return _texts(limit)


def _texts(limit: contracts.Limit | None) -> st.SearchStrategy[str]:
    if limit is None:
        return st.text(max_size=20)
    if limit.format == "date-time":
        return st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat().replace("+00:00", "Z"))
    if limit.pattern is not None:
        return st.from_regex(limit.pattern, fullmatch=True).filter(
            lambda text: limit.least <= len(text) <= limit.most
        )
    return st.text(min_size=limit.least, max_size=min(limit.most, 20))
