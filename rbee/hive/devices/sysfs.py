"""Files of sysfs, each with one value; what cannot be read, or is not what it should be, is None."""

from __future__ import annotations

import re
from pathlib import Path

MOST_BYTES = 2**53
"""As much memory as a contract's Count holds."""

# The kernel's numbers have 64 bits: energies in microjoules have 16 digits after half a year.
_NUMBER = re.compile(rb"-?[0-9]{1,20}")


def read(path: Path) -> bytes | None:
    """The file without the blanks around it; None if it is empty or cannot be read.

    A driver that is busy, or whose card is asleep, refuses.
    """
    try:
        with path.open("rb") as file:
            return file.read(4096).strip() or None
    except OSError:
        return None


def number(path: Path) -> int | None:
    content = read(path)
    return int(content) if content and _NUMBER.fullmatch(content) else None


def byte_count(path: Path) -> int | None:
    """How many bytes of memory; None where it cannot be true."""
    count = number(path)
    return count if count is not None and 0 <= count <= MOST_BYTES else None
