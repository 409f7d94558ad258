"""What a person typed: checked before anybody is asked, with the near name for one that was mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rbee.errors import BadInput
from rbee.wire.codec import decode

NEAR_MAX = 5
"""Names that are suggested for one that was mistyped."""


def checked(kind: Any, field: str, text: str) -> str:
    """The text that was typed for `field`; BadInput, which does not repeat it, where it is no such thing."""
    try:
        found: str = decode(kind, text)
    except BadInput as error:
        raise BadInput(f"{field} {error.message.removeprefix('the body ')}", field=field) from error
    return found


def did_you_mean(typed: str, names: Iterable[str]) -> str:
    """A sentence's end with the names that are near to what was typed; '' where none is.

    Those that begin with it, or have it as one of their words, are meant before those that look like it.
    """
    known = list(names)
    near = [name for name in known if typed and (name.startswith(typed) or typed in name.split("-"))]
    if not near:
        import difflib  # only for who mistyped

        near = difflib.get_close_matches(typed, known, n=3)
    return f"; did you mean {' or '.join(near[:NEAR_MAX])}?" if near else ""
