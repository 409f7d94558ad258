"""Converts shapes to JSON and back, checked against their annotations.

A shape's decoder is built once, from functions that each check one thing. Unknown fields are ignored, so
that a newer peer can send more.
"""

from __future__ import annotations

import functools
import math
import re
import types
import typing
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, Union

from rbee.errors import BadInput
from rbee.wire.types import Limit

Shape = TypeVar("Shape")

Decoder = Callable[[Any], Any]
"""Takes parsed JSON and returns the value of one annotation; raises _Refused."""


class _Refused(Exception):
    """`complaint` is about the value at `path`, to which each level prepends its step."""

    def __init__(self, complaint: str) -> None:
        super().__init__(complaint)
        self.complaint = complaint
        self.path = ""

    def prepend(self, step: str) -> None:
        between = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{step}{between}{self.path}"


def encode(shape: Any) -> Any:
    """Return a shape, or a tuple of them, as what json.dumps takes."""
    kind = shape.__class__
    if is_shape(kind):
        # Most values are plain: a recursive call for each of them would take most of the time.
        return {
            name: value if value.__class__ in _PLAIN else encode(value)
            for name, value in zip(kind._fields, shape, strict=True)
        }
    if isinstance(shape, (tuple, list)):
        return [encode(item) for item in shape]
    return shape


_PLAIN = frozenset({str, int, float, bool, types.NoneType})


@functools.cache
def is_shape(kind: Any) -> bool:
    """Is it the type of a shape? All of them are NamedTuples."""
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def decode(kind: type[Shape], value: Any, where: str = "") -> Shape:
    """Check parsed JSON against a shape or an annotation, and return it as that.

    Raises BadInput, which names the invalid field, prefixed by `where` if that is given. For rows of a list
    that must not fail because of one of them see rbee.wire.rows.
    """
    hashable: Any = kind  # mypy takes type[Shape] for unhashable
    try:
        result: Shape = _decoder(hashable)(value)
    except _Refused as refused:
        if where:
            refused.prepend(where)
        path = refused.path
        raise BadInput(f"{path or 'the body'} {refused.complaint}", field=path or None) from None
    return result


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Return the annotations of a shape's fields, with their bounds, by name."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def taken_apart(kind: Any) -> tuple[Any, Limit | None, bool]:
    """Return an annotation's type without its bounds, the bounds, and whether None is allowed."""
    if typing.get_origin(kind) is Annotated:
        bare, limit = typing.get_args(kind)[:2]
        return bare, limit, False
    if typing.get_origin(kind) in (Union, types.UnionType):
        (member,) = (arm for arm in typing.get_args(kind) if arm is not types.NoneType)
        return (*taken_apart(member)[:2], True)
    return kind, None, False


@functools.cache
def _decoder(kind: Any) -> Decoder:
    bare, limit, is_optional = taken_apart(kind)
    decoder = _decoder_of_type(bare, limit)
    if not is_optional:
        return decoder
    return lambda value: None if value is None else decoder(value)


def _decoder_of_type(kind: Any, limit: Limit | None) -> Decoder:
    if typing.get_origin(kind) is Literal:
        return _literal(typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return _array(_decoder(typing.get_args(kind)[0]), limit)
    if typing.get_origin(kind) is dict:
        return _decode_any_object
    if is_shape(kind):
        return _object(kind)
    if kind is bool:
        return _decode_bool
    if kind is int:
        return _whole_number(limit)
    if kind is float:
        return _number(limit)
    return _text(limit)


def _object(kind: Any) -> Decoder:
    fields = [
        (name, _decoder(hints_of(kind)[name]), name not in kind._field_defaults) for name in kind._fields
    ]

    def decode_object(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Refused("must be a JSON object")
        values = {}
        name = ""
        try:
            for name, decode_field, is_required in fields:
                if name in value:
                    values[name] = decode_field(value[name])
                elif is_required:
                    raise _Refused("is missing")
        except _Refused as refused:
            refused.prepend(name)
            raise
        return kind(**values)

    return decode_object


def _array(decode_item: Decoder, limit: Limit | None) -> Decoder:
    most = limit.most if limit else math.inf

    def decode_array(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Refused("must be a JSON array")
        if len(value) > most:
            raise _Refused(f"may have at most {most} entries, and has {len(value)}")
        items: list[Any] = []
        try:
            for item in value:
                items.append(decode_item(item))
        except _Refused as refused:
            refused.prepend(f"[{len(items)}]")
            raise
        return tuple(items)

    return decode_array


def _literal(values: tuple[str, ...]) -> Decoder:
    complaint = f"must be one of {', '.join(map(repr, values))}"

    def decode_literal(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise _Refused(complaint)
        return value

    return decode_literal


def _decode_any_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused("must be a JSON object")
    return value


def _decode_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Refused("must be true or false")
    return value


def _whole_number(limit: Limit | None) -> Decoder:
    least, most = (limit.least, limit.most) if limit else (-math.inf, math.inf)

    def decode_whole_number(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _Refused("must be a whole number")
        if not least <= value <= most:
            raise _Refused(f"must be from {least} to {most}")
        return value

    return decode_whole_number


def _number(limit: Limit | None) -> Decoder:
    def decode_number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _Refused("must be a number")
        if limit and not limit.least <= value <= limit.most:
            raise _Refused(f"must be from {limit.least} to {limit.most}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        # Python's json accepts NaN and Infinity, which JSON does not have.
        if not math.isfinite(number):
            raise _Refused("must be a finite number")
        return number

    return decode_number


_SURROGATE = re.compile("[\ud800-\udfff]")


def _text(limit: Limit | None) -> Decoder:
    least, most = (limit.least, limit.most) if limit else (0, math.inf)
    length = f"{least} to {most}" if least < most else f"{most}"
    pattern = re.compile(limit.pattern) if limit and limit.pattern else None
    description = limit and (limit.description or f"as {limit.pattern}")
    is_time = limit is not None and limit.format == "date-time"

    def decode_text(value: Any) -> str:
        if not isinstance(value, str):
            raise _Refused("must be a string")
        if not least <= len(value) <= most:
            raise _Refused(f"must have {length} characters, and has {len(value)}")
        if pattern and not pattern.fullmatch(value):
            raise _Refused(f"must be {description}")
        if is_time and not _is_timestamp(value):
            raise _Refused("must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z")
        if not value.isascii() and _SURROGATE.search(value):
            raise _Refused("must be valid Unicode, and has a lone surrogate")
        return value

    return decode_text


_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def _is_timestamp(value: str) -> bool:
    if not _RFC3339.fullmatch(value):
        return False
    try:
        # Without fraction and offset, which are checked above: fromisoformat() takes at most microseconds.
        datetime.fromisoformat(value[:19])
    except ValueError:
        return False
    return True
