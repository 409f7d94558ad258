"""Reads rows leniently, so that a list never fails because of one bad row.

decode() refuses any invalid value, which is right for requests. In data that was stored long ago, or by a
program of another version, one refused value would hide all others. Here such a value is replaced by a
blank one, and the row's `problem` names it.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from rbee.errors import TEXT_LIMIT, BadInput
from rbee.wire.codec import decode, hints_of, is_shape, taken_apart
from rbee.wire.types import Limit

Shape = TypeVar("Shape")
Complain = Callable[[str], None]

SHOWN = 60
"""Characters of a bad value that are shown."""

_BLANKS = ("", "unreadable", "0" * 8, "0" * 32, "0" * 64, "1970-01-01T00:00:00Z", f"{'0' * 16}-0")
"""Blank texts; for each text type of a shape one of them is allowed."""


def read_row(kind: type[Shape], value: Any) -> Shape:
    """Return one row, a shape with a `problem`, from parsed JSON. Raises nothing."""
    row: Shape = _row(kind, value, "", lambda complaint: None)
    return row


def read_rows(kind: type[Shape], value: Any) -> Shape:
    """As decode(), but a bad row of a list is returned with its `problem`. BadInput for any other fault."""
    faults: list[str] = []
    shape: Shape = _shape(kind, value, "", faults.append)
    if faults:
        raise BadInput(faults[0])
    return shape


def _row(kind: Any, value: Any, where: str, complain: Complain) -> Any:
    """Read a shape; its faults go into its `problem` if it has that field."""
    if "problem" not in hints_of(kind):
        return _shape(kind, value, where, complain)
    faults: list[str] = []
    row = _shape(kind, value, "", faults.append)
    if not faults:
        return row
    return row._replace(problem="; ".join(filter(None, [row.problem, *faults]))[:TEXT_LIMIT])


def _shape(kind: Any, value: Any, where: str, complain: Complain) -> Any:
    if not isinstance(value, dict):
        complain(f"{where or 'it'} must be a JSON object, and is {_shown(value)}")
        return _blank(kind)
    values = {}
    for name, hint in hints_of(kind).items():
        path = f"{where}.{name}" if where else name
        if name in value:
            values[name] = _value(hint, value[name], path, complain)
        elif name not in kind._field_defaults:
            complain(f"{path} is missing")
            values[name] = _blank(hint)
    return kind(**values)


def _value(kind: Any, value: Any, where: str, complain: Complain) -> Any:
    try:
        return decode(kind, value, where)
    except BadInput as error:
        bare, limit, _ = taken_apart(kind)
        if is_shape(bare):
            return _row(bare, value, where, complain)
        if typing.get_origin(bare) is tuple and isinstance(value, list):
            return _items(typing.get_args(bare)[0], limit, value, where, complain)
        complain(f"{error.message}, and is {_shown(value)}")
        return _blank(kind) if (text := _free_text(bare, limit, value)) is None else text


def _items(kind: Any, limit: Limit | None, value: list[Any], where: str, complain: Complain) -> Any:
    if limit and len(value) > limit.most:
        complain(f"{where} may have at most {limit.most} entries, and has {len(value)}")
        value = value[: limit.most]
    return tuple(_value(kind, item, f"{where}[{number}]", complain) for number, item in enumerate(value))


def _blank(kind: Any) -> Any:
    """Return an allowed value without a meaning."""
    bare, limit, is_optional = taken_apart(kind)
    if is_optional:
        return None
    if is_shape(bare):
        return bare(**{name: _blank(hint) for name, hint in hints_of(bare).items()})
    if typing.get_origin(bare) is Literal:
        return typing.get_args(bare)[0]
    if typing.get_origin(bare) is tuple:
        return ()
    if bare is bool:
        return False
    if bare in (int, float):
        return bare(max(limit.least, 0) if limit else 0)
    return next(blank for blank in _BLANKS if _is_allowed(kind, blank))


def _is_allowed(kind: Any, value: Any) -> bool:
    try:
        decode(kind, value)
    except BadInput:
        return False
    return True


def _free_text(bare: Any, limit: Limit | None, value: Any) -> str | None:
    """Return as much of a text as is allowed, if any text is; None for any other value."""
    if bare is not str or not isinstance(value, str) or limit is None or limit.pattern or limit.format:
        return None
    return value.encode(errors="backslashreplace").decode()[: limit.most]


def _shown(value: Any) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
