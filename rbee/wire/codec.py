"""Shapes to JSON and back, checked against their annotations.

Fields that a shape does not know are ignored, so that a newer peer can say more.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, Union

from rbee.errors import BadInput
from rbee.wire.types import Limit

Shape = TypeVar("Shape")


def encode(shape: Any) -> Any:
    """A shape as what json.dumps takes."""
    if dataclasses.is_dataclass(shape) and not isinstance(shape, type):
        return {f.name: encode(getattr(shape, f.name)) for f in dataclasses.fields(shape)}
    if isinstance(shape, (tuple, list)):
        return [encode(item) for item in shape]
    return shape


def decode(kind: type[Shape], value: Any, where: str = "") -> Shape:
    """Check parsed JSON against a shape; BadInput names the field that is not right, as one of `where`.

    Rows of a list that is to be shown whatever is in them are read by rbee.wire.rows.
    """
    result: Shape = _decode(kind, value, where)
    return result


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The annotations of a shape's fields, with their bounds."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def taken_apart(kind: Any) -> tuple[Any, Limit | None, bool]:
    """An annotation's type without its bounds, its bounds, and whether None is allowed, too."""
    if typing.get_origin(kind) is Annotated:
        bare, limit = typing.get_args(kind)[:2]
        return bare, limit, False
    if typing.get_origin(kind) in (Union, types.UnionType):
        return (*taken_apart(_only_member(kind))[:2], True)
    return kind, None, False


def _decode(kind: Any, value: Any, where: str) -> Any:
    kind, limit, is_optional = taken_apart(kind)
    if value is None and is_optional:
        return None
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind) or not isinstance(value, str):
            raise _bad(where, f"must be one of {', '.join(map(repr, typing.get_args(kind)))}")
        return value
    if typing.get_origin(kind) is tuple:
        return _decode_list(typing.get_args(kind)[0], value, where, limit)
    if dataclasses.is_dataclass(kind):
        return _decode_object(kind, value, where)
    if kind is bool:
        if not isinstance(value, bool):
            raise _bad(where, "must be true or false")
        return value
    if kind is int:
        return _decode_int(value, where, limit)
    if kind is float:
        return _decode_float(value, where, limit)
    return _decode_text(value, where, limit)


def _only_member(union: Any) -> Any:
    (member,) = (arm for arm in typing.get_args(union) if arm is not types.NoneType)
    return member


def _decode_object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _bad(where, "must be a JSON object")
    found = {}
    for field in dataclasses.fields(kind):
        path = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            found[field.name] = _decode(hints_of(kind)[field.name], value[field.name], path)
        elif field.default is dataclasses.MISSING:
            raise _bad(path, "is missing")
    return kind(**found)


def _decode_list(item_kind: Any, value: Any, where: str, limit: Limit | None) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _bad(where, "must be a JSON array")
    if limit and len(value) > limit.most:
        raise _bad(where, f"may have {limit.most} entries at most, and has {len(value)}")
    return tuple(_decode(item_kind, item, f"{where}[{n}]") for n, item in enumerate(value))


def _decode_int(value: Any, where: str, limit: Limit | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(where, "must be a whole number")
    if limit and not limit.least <= value <= limit.most:
        raise _bad(where, f"must be from {limit.least} to {limit.most}")
    return value


def _decode_float(value: Any, where: str, limit: Limit | None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(where, "must be a number")
    if limit and not limit.least <= value <= limit.most:
        raise _bad(where, f"must be from {limit.least} to {limit.most}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    # Python's json reads NaN and Infinity, which JSON does not have.
    if not math.isfinite(number):
        raise _bad(where, "must be a finite number")
    return number


def _decode_text(value: Any, where: str, limit: Limit | None) -> str:
    if not isinstance(value, str):
        raise _bad(where, "must be a string")
    if limit and not limit.least <= len(value) <= limit.most:
        length = f"{limit.least} to {limit.most}" if limit.least < limit.most else f"{limit.most}"
        raise _bad(where, f"must have {length} characters, and has {len(value)}")
    if limit and limit.pattern and not re.fullmatch(limit.pattern, value):
        raise _bad(where, f"must be {limit.words or f'as {limit.pattern}'}")
    if limit and limit.format == "date-time" and not _is_timestamp(value):
        raise _bad(where, "must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise _bad(where, "must be valid Unicode, and holds a lone surrogate")
    return value


_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def _is_timestamp(value: str) -> bool:
    if not _RFC3339.fullmatch(value):
        return False
    try:
        # fromisoformat() knows microseconds at most; RFC 3339 allows any number of digits.
        datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper()))
    except ValueError:
        return False
    return True


def _bad(where: str, complaint: str) -> BadInput:
    return BadInput(f"{where or 'the body'} {complaint}", field=where or None)
