"""Reads `model` and `stream` of a JSON object without decoding the rest, which may be 32 MiB of images.

The engine decodes the body, and reports what is wrong with it.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from rbee.errors import BadInput

TOKENS_MAX = 250_000
"""Strings and brackets of a body. With MEMBERS_MAX and 32 MiB it bounds the time in which the event loop
reads one, without a pause: at most about 0.3 s."""

MEMBERS_MAX = 10_000
"""Members of the body's object; the names of those within its values are not read."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_BARE = re.compile(rb"[^ \t\r\n,\]}\"{\[:]+")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
"""Possessive, so that nothing is kept for each escape: otherwise 32 MiB of them take 2 s and 2 GiB."""


class Peeked(NamedTuple):
    """What the gateway reads of a body."""

    model: str
    is_stream: bool


def peek(body: bytes) -> Peeked:
    """Return what the gateway reads of a body. Raises BadInput."""
    members = _Reader(body).members(frozenset({"model", "stream"}))
    model = members.get("model")
    if not isinstance(model, str) or not model:
        problem = "is missing" if "model" not in members else "must be a model's name"
        raise BadInput(f"model {problem}", field="model", hint="GET /v1/models lists the models.")
    if len(model) > 253:
        raise BadInput("model must have at most 253 characters", field="model")
    return Peeked(model, members.get("stream") is True)


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._tokens = 0

    def members(self, wanted: frozenset[str]) -> dict[str, Any]:
        """Return the wanted members of the object; the last one of several with one name."""
        found: dict[str, Any] = {}
        if self._next() != b"{":
            raise _not_json("it is not an object")
        self._at += 1
        if self._next() == b"}":
            return found
        for _ in range(MEMBERS_MAX):
            name = self._name()
            if self._next() != b":":
                raise _not_json(f"a ':' is missing at byte {self._at}")
            self._at += 1
            self._next()
            began = self._at
            self._skip()
            if name in wanted:
                found[name] = _decoded(self._body[began : self._at])
            after = self._next()
            self._at += 1
            if after == b"}":
                return found
            if after != b",":
                raise _not_json(f"a ',' is missing at byte {self._at - 1}")
        raise BadInput(f"the body has more than {MEMBERS_MAX} members", hint="Send fewer.")

    def _next(self) -> bytes:
        """Skip white space, and return the character there; b"" at the end."""
        match = _SPACE.match(self._body, self._at)
        assert match is not None
        self._at = match.end()
        return self._body[self._at : self._at + 1]

    def _name(self) -> str | None:
        """Return a member's name, None for one that is too long to be wanted."""
        if self._next() != b'"':
            raise _not_json(f"a name is missing at byte {self._at}")
        began = self._at
        self._skip_string()
        name: str | None = _decoded(self._body[began : self._at])
        return name

    def _skip(self) -> None:
        """Skip a value."""
        first = self._next()
        if first == b'"':
            self._skip_string()
        elif first in (b"{", b"["):
            self._skip_nested()
        else:
            match = _BARE.match(self._body, self._at)
            if match is None:
                raise _not_json(f"a value is missing at byte {self._at}")
            self._at = match.end()

    def _skip_nested(self) -> None:
        depth = 0
        while (match := _STRUCTURE.search(self._body, self._at)) is not None:
            token = match[0]
            if token == b'"':
                self._at = match.start()
                self._skip_string()
                continue
            self._count()
            self._at = match.end()
            depth += 1 if token in b"{[" else -1
            if not depth:
                return
        raise _not_json("it ends in the middle")

    def _skip_string(self) -> None:
        self._count()
        began = self._at + 1
        end = self._body.find(b'"', began)  # 50 times as fast as the expression, for images
        if end > began and self._body[end - 1] == 0x5C:  # a backslash may escape the quote
            match = _REST_OF_STRING.match(self._body, began)
            end = -1 if match is None else match.end() - 1
        if end < 0:
            raise _not_json("it ends in the middle of a string")
        self._at = end + 1

    def _count(self) -> None:
        self._tokens += 1
        if self._tokens > TOKENS_MAX:
            raise BadInput(f"the body has more than {TOKENS_MAX} strings and brackets", hint="Send less.")


def _decoded(value: bytes) -> Any:
    if len(value) > 4096:
        return None  # neither a model's name nor that of a member that is wanted
    try:
        return json.loads(value.decode())
    except (ValueError, RecursionError) as error:
        raise _not_json(str(error)) from error


def _not_json(why: str) -> BadInput:
    return BadInput(f"the body is not valid JSON: {why}", hint="Send a JSON object.")
