"""The syntax of systemd's files and command lines: systemd.syntax(7) and systemd.service(5)."""

from __future__ import annotations

import re
from typing import NamedTuple

_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " ",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_CODES = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}
"""The digits and the base of an escape, by its letter; octal escapes have no letter."""


class BadLineError(ValueError):
    """A line that is not valid; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Assignment(NamedTuple):
    """Key=value in a section; `line` is the number of its first line."""

    line: int
    section: str
    key: str
    value: str


def parse(text: str) -> list[Assignment]:
    """Return the assignments of a file in their order. Raises BadLineError."""
    section = ""
    assignments = []
    for number, line in _joined(text):
        if header := re.fullmatch(r"\[([^\[\]]+)\]", line):
            section = header[1]
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise BadLineError(number, "it is neither [Section] nor Key=value")
        if not section:
            raise BadLineError(number, "it is before any section, such as [Engine]")
        assignments.append(Assignment(number, section, key.strip(), value.strip()))
    return assignments


def _joined(text: str) -> list[tuple[int, str]]:
    """Return each line, joined with its continuations, and its number; without comments and empty lines.

    A comment between continued lines is skipped, as in systemd.
    """
    lines: list[tuple[int, str]] = []
    begun: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(("#", ";")):
            continue
        start, before = begun or (number, "")
        if stripped.endswith("\\"):
            begun = start, f"{before}{stripped[:-1]} "
            continue
        begun = None
        if whole := f"{before}{stripped}".strip():
            lines.append((start, whole))
    if begun is not None and begun[1].strip():
        lines.append((begun[0], begun[1].strip()))
    return lines


def split_words(value: str) -> tuple[str, ...]:
    """Split a command line as systemd does: with quotes and C escapes, without a shell. Raises ValueError."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    rest = value
    while rest:
        character, rest = rest[0], rest[1:]
        if character == "\\":
            escaped, rest = _unescape(rest)
            word = (word or "") + escaped
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "\"'":
            quote, word = character, word or ""
        elif character.isspace():
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    if quote:
        raise ValueError(f"has a quote ({quote}) that is not closed")
    return tuple(words if word is None else [*words, word])


def _unescape(rest: str) -> tuple[str, str]:
    """Return the character of the escape at the beginning of what follows a backslash, and the rest."""
    kind = rest[:1]
    if kind in _ESCAPES:
        return _ESCAPES[kind], rest[1:]
    if octal := re.match("[0-3][0-7]{2}", rest):
        return _character(int(octal[0], 8)), rest[3:]
    digits, base = _CODES.get(kind, (0, 0))
    code = rest[1 : 1 + digits]
    if not digits or not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", code):
        raise ValueError(f"has the unknown escape \\{rest[:1]}")
    return _character(int(code, base)), rest[1 + digits :]


def _character(code: int) -> str:
    if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"has an escape for {code:#x}, which is not a valid character")
    return chr(code)


def expand(word: str, specifiers: dict[str, str]) -> str:
    """Replace each specifier in a word by its value, and %% by %. Raises ValueError for an unknown one."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name == "%":
            return "%"
        if name not in specifiers:
            known = " ".join(f"%{one}" for one in specifiers)
            raise ValueError(f"has the unknown specifier %{name}; known are {known} %%")
        return specifiers[name]

    return re.sub("(?s)%(.?)", replace, word)
