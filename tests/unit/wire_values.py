"""Values of every type that crosses a wire, made from their annotations."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from datetime import UTC
from typing import Annotated, Any, Literal, NamedTuple, Union

from hypothesis import strategies as st

from rbee.wire import (
    catalog,
    daemon,
    devices,
    engines,
    events,
    fleet,
    heartbeats,
    hives,
    jobs,
    keys,
    models,
    samples,
    workers,
)  # fmt: skip
from rbee.wire.codec import is_shape
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.wire.hives import HiveView
from rbee.wire.types import Limit

_MODULES = (
    catalog, daemon, devices, engines, events, fleet, heartbeats, hives, jobs, keys, models, samples, workers,
)  # fmt: skip

WIRE_TYPES = tuple(
    kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and is_shape(kind) and kind.__module__ == module.__name__
)

HIVE_VIEW = HiveView(
    id="localhost",
    host="localhost",
    port=8600,
    status="online",
    devices=Devices(
        Cpu("AMD EPYC 7763", 2, 128, 256, 512 * 2**30),
        (Gpu(0, "nvidia", "NVIDIA GeForce RTX 4090", "GPU-a", 24 * 2**30, "550.54", "0000:01:00.0"),),
    ),
    created_at_ms=1_000,
    updated_at_ms=2_000,
    wanted=True,
    state="online",
    reason="heartbeats received",
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
    if is_shape(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: values(hint) for name, hint in hints.items()})
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(limit.least, limit.most) if limit else st.integers()
    if kind is float:
        least, most = (limit.least, limit.most) if limit else (None, None)
        return st.floats(least, most, allow_nan=False, allow_infinity=False)
    return _texts(limit)


def _texts(limit: Limit | None) -> st.SearchStrategy[str]:
    if limit is None:
        return st.text(max_size=20)
    if limit.format == "date-time":
        return st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat().replace("+00:00", "Z"))
    if limit.pattern is not None:
        return st.from_regex(limit.pattern, fullmatch=True).filter(
            lambda text: limit.least <= len(text) <= limit.most
        )
    return st.text(min_size=limit.least, max_size=min(limit.most, 20))


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=40)
    | st.sampled_from(["", "localhost", "ready", "a\x1b[2J", "\ud800", 2**63, -1, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
"""Whatever json.loads() may give, and more."""


class WireField(NamedTuple):
    """A field within an encoded value: its path as BadInput.field has it, and what is allowed there."""

    path: str
    holder: Any
    key: Any
    kind: Any
    limit: Limit | None
    may_be_null: bool
    may_be_missing: bool

    def put(self, value: Any) -> None:
        self.holder[self.key] = value

    def invalid_values(self) -> Iterator[Any]:
        """Values that are not allowed here: of another type, too long, out of bounds, not to the pattern."""
        others: list[Any] = [None, True, 7, 7.5, "text", [], {}]
        yield from (one for one in others if not self._is_of_the_type(one))
        limit = self.limit
        if typing.get_origin(self.kind) is Literal:
            yield from ("", "text", f"{typing.get_args(self.kind)[0]} ")
        elif limit is not None and self.kind in (int, float):
            yield from (limit.least - 1, limit.most + 1, -(10**400), 10**400)
            yield from (math.nan, math.inf, -math.inf) if self.kind is float else ()
        elif limit is not None and typing.get_origin(self.kind) is tuple:
            yield [None] * (limit.most + 1)
        elif self.kind is str:
            yield "\ud800".rjust(limit.least if limit else 1)
            if limit is not None:
                yield "x" * (limit.most + 1)
                yield "x" * 65536
                yield from ["x" * (limit.least - 1)] if limit.least else []
                yield from ["\x1b".rjust(limit.least, "a")] if limit.pattern or limit.format else []

    def _is_of_the_type(self, value: Any) -> bool:
        if value is None:
            return self.may_be_null
        if typing.get_origin(self.kind) is tuple:
            return isinstance(value, list)
        if is_shape(self.kind):
            return isinstance(value, dict)
        if self.kind in (int, bool):
            return type(value) is self.kind
        if self.kind is float:
            return type(value) in (int, float)
        return isinstance(value, str)


def wire_fields(kind: Any, document: Any, path: str = "") -> Iterator[WireField]:
    """Every field of a value that was encoded as `document`, nested ones and items of lists included."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():
        where = f"{path}.{name}" if path else name
        yield from _wire_fields_at(where, document, name, hint, name in kind._field_defaults)


def _wire_fields_at(path: str, holder: Any, key: Any, kind: Any, may_be_missing: bool) -> Iterator[WireField]:
    limit, may_be_null = None, False
    while True:
        if typing.get_origin(kind) is Annotated:
            kind, limit = typing.get_args(kind)[:2]
        elif typing.get_origin(kind) in (Union, types.UnionType):
            (kind,) = (arm for arm in typing.get_args(kind) if arm is not types.NoneType)
            may_be_null = True
        else:
            break
    yield WireField(path, holder, key, kind, limit, may_be_null, may_be_missing)
    value = holder[key]
    if value is None:
        return
    if typing.get_origin(kind) is tuple:
        for number in range(len(value)):
            yield from _wire_fields_at(
                f"{path}[{number}]", value, number, typing.get_args(kind)[0], may_be_missing=True
            )
    elif is_shape(kind):
        yield from wire_fields(kind, value, path)
