"""Names that a person typed: checked before they are used, and similar ones for one that is mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rbee.errors import BadInput
from rbee.wire.codec import decode

NEAR_MAX = 5
"""Names that are suggested for one that was mistyped."""


def checked(kind: Any, field: str, text: str) -> str:
    """The text that was typed for `field`; BadInput, which does not repeat it, if it is not a `kind`."""
    try:
        value: str = decode(kind, text)
    except BadInput as error:
        raise BadInput(f"{field} {error.message.removeprefix('the body ')}", field=field) from error
    return value


def did_you_mean(typed: str, names: Iterable[str]) -> str:
    """The end of a sentence, with the names that are similar to what was typed; '' if there are none.

    Names that begin with it, or have it between their hyphens, come before those that are spelled alike.
    """
    known = list(names)
    near = [name for name in known if typed and (name.startswith(typed) or typed in name.split("-"))]
    if not near:
        import difflib  # only for a mistyped name

        near = difflib.get_close_matches(typed, known, n=3)
    return f"; did you mean {' or '.join(near[:NEAR_MAX])}?" if near else ""
