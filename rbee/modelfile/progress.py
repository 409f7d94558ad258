"""The status text of a fetch: rbee-fetch writes it, the hive parses it."""

from __future__ import annotations

import re
from typing import NamedTuple

_PROGRESS = re.compile(r"([0-9]{1,16}) of ([0-9]{1,16}|\?) bytes(?: \([0-9]{1,3} %\))?(?:: (.*))?")


class Progress(NamedTuple):
    """`bytes` of `total` have arrived; `total` is None if unknown. `note` is what the fetch waits for."""

    bytes: int
    total: int | None
    note: str = ""

    def text(self) -> str:
        """Return it as a status text, such as '512 of 1024 bytes (50 %)'."""
        share = f" ({min(self.bytes * 100 // self.total, 100)} %)" if self.total else ""
        note = f": {self.note}" if self.note else ""
        return f"{self.bytes} of {'?' if self.total is None else self.total} bytes{share}{note}"


def read(text: str) -> Progress | None:
    """Return the progress in a status text; None if the text is about something else."""
    match = _PROGRESS.fullmatch(text)
    if match is None:
        return None
    return Progress(int(match[1]), None if match[2] == "?" else int(match[2]), match[3] or "")
