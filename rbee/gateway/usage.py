"""The tokens that an engine reports in its answer."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

HEAD_KEPT, TAIL_KEPT = 4 * 1024, 16 * 1024
"""Bytes of an answer's beginning and end in which its `usage` is looked for."""

_USAGE = re.compile(r'"usage"\s*:\s*(?=\{)')
_NAMES = {
    "prompt_tokens": "prompt",
    "input_tokens": "prompt",
    "completion_tokens": "completion",
    "output_tokens": "completion",
}
_DECODER = json.JSONDecoder()


class Usage:
    """Keeps the beginning and the end of an answer that passes."""

    def __init__(self) -> None:
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._tail_size = 0

    def note(self, part: bytes) -> None:
        """Note a part of the answer."""
        if len(self._head) < HEAD_KEPT:
            self._head += part[: HEAD_KEPT - len(self._head)]
        self._tail.append(part[-TAIL_KEPT:])
        self._tail_size += len(self._tail[-1])
        while self._tail_size - len(self._tail[0]) >= TAIL_KEPT:
            self._tail_size -= len(self._tail.popleft())

    def tokens(self) -> dict[str, int]:
        """Return the tokens by kind, 'prompt' and 'completion', without kinds that were not reported."""
        tokens: dict[str, int] = {}
        for text in (self._head, b"".join(self._tail)):
            for found in _usages(text.decode(errors="replace")):
                for name, kind in _NAMES.items():
                    count = found.get(name)
                    if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**40:
                        # The last report counts, unless it is 0: some have only one of the kinds.
                        tokens[kind] = count or tokens.get(kind, 0)
        return tokens


def _usages(text: str) -> list[dict[str, Any]]:
    found = []
    for match in _USAGE.finditer(text):
        try:
            value, _ = _DECODER.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue  # it is cut off
        found.append(value)
    return found
