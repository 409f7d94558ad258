"""Text from firmware and drivers, made safe for a terminal."""

from __future__ import annotations

MOST_CHARACTERS = 256  # of a name
MOST_TEXT = 2000  # of a Text (rbee.wire.types)


def printable(raw: str | bytes | None, most: int = MOST_CHARACTERS) -> str | None:
    """One line of printable text, at most `most` characters long; None where nothing is left.

    Control and formatting characters, which could steer a terminal, become spaces.
    """
    if raw is None:
        return None
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    words = "".join(c if c.isprintable() else " " for c in text).split()
    return " ".join(words)[:most].rstrip() or None
