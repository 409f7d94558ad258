"""A fetch's StatusText: rbee-fetch writes it, the hive reads it."""

from __future__ import annotations

import re
from typing import NamedTuple

_PROGRESS = re.compile(r"([0-9]{1,16}) of ([0-9]{1,16}|\?) bytes(?: \([0-9]{1,3} %\))?(?:: (.*))?")


class Progress(NamedTuple):
    """So many bytes have arrived of `total`, None if that is not known; `note` is what it waits for."""

    bytes: int
    total: int | None
    note: str = ""

    def text(self) -> str:
        """Return it as a status text, such as '512 of 1024 bytes (50 %)'."""
        share = f" ({min(self.bytes * 100 // self.total, 100)} %)" if self.total else ""
        note = f": {self.note}" if self.note else ""
        return f"{self.bytes} of {'?' if self.total is None else self.total} bytes{share}{note}"


def read(text: str) -> Progress | None:
    """Return the progress that a status text has; None if it is about something else."""
    match = _PROGRESS.fullmatch(text)
    if match is None:
        return None
    return Progress(int(match[1]), None if match[2] == "?" else int(match[2]), match[3] or "")
