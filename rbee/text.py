"""Text from outside: names, arguments, what firmware, units and other machines say."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """The text on one line, with whatever could steer who shows it as an escape.

    That is controls, line ends among them, and also the marks that turn the direction of text
    around (Trojan Source, CVE-2021-42574): all that Unicode does not call printable.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_LINE_END_OR_COLOUR = re.compile("(\n|\033\\[(?:[01](?:;3[0-7])?|3[0-7])m)")
"""What rbee itself prints beside text: the ends of its lines, and the weights and colours that it uses."""


def printable_lines(text: str, *, has_colour: bool = False) -> str:
    """As printable(), for text of several lines; with `has_colour` its weights and colours stay, too."""
    if text.isprintable():
        return text
    if not has_colour:
        return "\n".join(map(printable, text.split("\n")))
    parts = _LINE_END_OR_COLOUR.split(text)
    return "".join(part if number % 2 else printable(part) for number, part in enumerate(parts))


class NotUtf8(ValueError):
    """`encoding` is what the text seems to be in, as iconv(1) calls it; None where that is open."""

    def __init__(self, message: str, encoding: str | None = None) -> None:
        super().__init__(message)
        self.encoding = encoding


_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
"""Byte order marks; that of UTF-32 begins as that of UTF-16."""


def decoded(content: bytes) -> str:
    """The text of a file that a person wrote: UTF-8, with the mark at its start that some editors leave.

    Lines end as they may end anywhere. NotUtf8 says what it is instead.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise NotUtf8(f"it is text in {encoding}, and must be UTF-8", encoding)
    if b"\0" in content[:2]:
        raise NotUtf8("it begins as text in UTF-16 does, and must be UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise NotUtf8(f"line {line} is not UTF-8: it has the byte 0x{byte:02x}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and its end, where it is longer: what failed and why stand there."""
    if len(text) <= limit:
        return text
    mark = " … "
    head = (limit - len(mark)) // 2
    return f"{text[:head]}{mark}{text[len(text) - (limit - len(mark) - head) :]}"


def last_lines(text: str, limit: int = 700) -> str:
    """The last lines of what a program printed, joined by blanks; of a single line that is longer its end.

    A program says last why it ends: before that come banners, warnings and what it did.
    """
    kept = ""
    for line in reversed(text.splitlines()):
        words = " ".join(line.split())
        if kept and words and len(words) + 1 + len(kept) > limit:
            return f"… {kept}"
        kept = f"{words} {kept}".strip()
    return kept if len(kept) <= limit else f"…{kept[len(kept) - limit :]}"


def shown_span(seconds: float) -> str:
    """'59.9 s': what is left of a deadline, as nobody wants to read it to the microsecond."""
    return f"{round(seconds, 1) if seconds >= 1 else float(f'{seconds:.1g}'):.6g} s"
