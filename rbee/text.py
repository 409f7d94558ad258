"""Text from outside: names, arguments, and output of firmware, units and other machines."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """Return the text on one line, with all characters that Unicode calls unprintable as escapes.

    These are control characters, line ends included, and marks that change the direction of text (Trojan
    Source, CVE-2021-42574): they could control the terminal or mislead the reader.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_LINE_END_OR_COLOUR = re.compile("(\n|\033\\[(?:[01](?:;3[0-7])?|3[0-7])m)")
"""What rbee itself prints beside text: line ends, and the weights and colours that it uses."""


def printable_lines(text: str, *, has_colour: bool = False) -> str:
    """As printable(), for text of several lines; with `has_colour` weights and colours are kept too."""
    if text.isprintable():
        return text
    if not has_colour:
        return "\n".join(map(printable, text.split("\n")))
    parts = _LINE_END_OR_COLOUR.split(text)
    return "".join(part if number % 2 else printable(part) for number, part in enumerate(parts))


class NotUtf8(ValueError):
    """Text that is not UTF-8; `encoding` is the likely one, as iconv(1) calls it, or None."""

    def __init__(self, message: str, encoding: str | None = None) -> None:
        super().__init__(message)
        self.encoding = encoding


_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
"""Byte order marks; UTF-32 first, as its mark begins with that of UTF-16."""


def decoded(content: bytes) -> str:
    """Decode a file that a person wrote: UTF-8, with or without a byte order mark, with any line ends.

    Raises NotUtf8. The lines of the result end with a line feed.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise NotUtf8(f"it is text in {encoding}, and must be UTF-8", encoding)
    if b"\0" in content[:2]:
        raise NotUtf8("it seems to be text in UTF-16, and must be UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise NotUtf8(f"line {line} is not UTF-8: it has the byte 0x{byte:02x}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, its middle cut: the start has what failed, the end why."""
    if len(text) <= limit:
        return text
    mark = " … "
    head = (limit - len(mark)) // 2
    return f"{text[:head]}{mark}{text[len(text) - (limit - len(mark) - head) :]}"


def last_lines(text: str, limit: int = 700) -> str:
    """Return the last lines of a program's output, joined by spaces; the end of a single longer line.

    It has at most `limit` characters, and a mark if something is left out. A program reports why
    it fails at its end, after banners, warnings and progress.
    """
    kept = ""
    for line in reversed(text.splitlines()):
        words = " ".join(line.split())
        if kept and words and len(words) + 1 + len(kept) > limit:
            return f"… {kept}"
        kept = f"{words} {kept}".strip()
    return kept if len(kept) <= limit else f"…{kept[len(kept) - limit :]}"


def shown_span(seconds: float) -> str:
    """Return a span of seconds as text for people, such as '6.4 s', or from a minute on as in_units()."""
    if round(seconds, 1) >= 60:
        return in_units(round(seconds))
    return f"{round(seconds, 1) if seconds >= 1 else float(f'{seconds:.1g}'):.6g} s"


def in_units(seconds: int) -> str:
    """Return a span in its two largest units, as systemd shows it: '1min 30s' or '5min'."""
    spans = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            spans.append(f"{seconds // size}{name}")
            seconds %= size
    return " ".join(spans[:2]) or "0s"


_UNITS = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def parse_span(text: str) -> float:
    """Return the seconds in a time span of systemd.time(7), such as '15' or '1min 30s'. Raises ValueError."""
    rest = text.strip()
    seconds = 0.0
    while match := _SPAN.match(rest):
        if match[2] not in _UNITS:
            break
        seconds += float(match[1]) * _UNITS[match[2]]
        rest = rest[match.end() :].lstrip()
    if rest or not text.strip():
        raise ValueError("is not a time span such as 15s, 500ms or 1min 30s")
    return seconds


_SIZES = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """Return the bytes in a size as systemd takes it (systemd.resource-control(5)): 512M, 1.5G, or a number.

    The suffixes are to the base of 1024, also as KiB, MiB, GiB and TiB. Raises ValueError.
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(?:iB|B)?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("is not a size such as 5G, 512M or 1.5G")
    return round(float(match[1]) * _SIZES[match[2]])


def shown_size(count: int) -> str:
    """Return bytes as text for people, such as '5.1 GiB'; below 0.1 GiB in MiB, below 0.1 MiB in KiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size / 10:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
