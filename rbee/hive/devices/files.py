"""What the kernel writes into /proc and /sys, read so that nothing is raised."""

from __future__ import annotations

import re
from pathlib import Path

_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?", re.ASCII)


def read(path: Path) -> str:
    """The text of a file, '' where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def numbers(text: str) -> set[int]:
    """A list of CPUs as the kernel writes it, such as 0-3,8; what it would not write is left out."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if match := _RANGE.fullmatch(part):
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
