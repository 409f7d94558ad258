"""What the kernel writes into /proc and /sys, read so that nothing is raised."""

from __future__ import annotations

import re
from pathlib import Path

MOST_BYTES = 2**53
"""The most bytes of memory that a Count (rbee.wire.types) can hold."""

_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?", re.ASCII)

# The kernel's numbers have 64 bits: energies in microjoules have 16 digits after half a year.
_NUMBER = re.compile(rb"-?[0-9]{1,20}")


def read_text(path: Path) -> str:
    """The text of a file, '' if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def cpu_numbers(text: str) -> set[int]:
    """A list of CPUs as the kernel writes it, such as 0-3,8; what it would not write is left out."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if match := _RANGE.fullmatch(part):
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


# Files of sysfs, each with one value


def read_value(path: Path) -> bytes | None:
    """The file without the blanks around it; None if it is empty or cannot be read.

    A driver that is busy, or whose card is asleep, refuses.
    """
    try:
        with path.open("rb") as file:
            return file.read(4096).strip() or None
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """Return the integer in a file; None if it cannot be read, or is not an integer."""
    content = read_value(path)
    return int(content) if content and _NUMBER.fullmatch(content) else None


def read_byte_count(path: Path) -> int | None:
    """Return the bytes of memory in a file; None if that number cannot be true."""
    count = read_number(path)
    return count if count is not None and 0 <= count <= MOST_BYTES else None
