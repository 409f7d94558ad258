"""The events that the feed keeps: the last ones of all, and older ones of operators.

Limits: the last KEPT events, of at most KEPT_SIZE bytes; of those before them only what operators did, at
most OPERATORS_KEPT events of OPERATORS_SIZE bytes. Events of machines do not displace these.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, pairwise
from typing import Any

KEPT = 1000
"""Events that are kept."""

KEPT_SIZE = 1024 * 1024
"""Bytes of them, in JSON."""

OPERATORS_KEPT = 200
"""Events of operators, older than those, that are kept as well."""

OPERATORS_SIZE = 256 * 1024
"""Bytes of them, in JSON."""

Numbered = tuple[int, bytes]
"""An event's number and its line, in JSON."""


class Backlog:
    """Lines of events, numbered from 1; `daemons` are the uids that are not operators'."""

    def __init__(self, daemons: Collection[int] = ()) -> None:
        self.number = 0
        """The last event's number."""
        self._daemons = frozenset(daemons)
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._operators: deque[Numbered] = deque()
        self._operators_size = 0

    @property
    def oldest(self) -> int:
        """The number after which all events are kept."""
        return self.number - len(self._lines)

    def __iter__(self) -> Iterator[bytes]:
        return chain((line for _, line in self._operators), self._lines)

    def __reversed__(self) -> Iterator[bytes]:
        return chain(reversed(self._lines), (line for _, line in reversed(self._operators)))

    def after(self, number: int) -> Numbered | None:
        """Return the next event that is kept after the one of that number.

        None if it is the last; or if it is before `oldest`, and no event of an operator is kept between them.
        """
        if number >= self.oldest:
            return None if number >= self.number else (number + 1, self._lines[number - self.oldest])
        return next((one for one in self._operators if one[0] > number), None)

    def before(self, since_ms: int) -> int:
        """Return the number before that of the first kept event at `since_ms` (since the epoch) or later."""
        for number, line in self._operators:
            if _at_ms(line) >= since_ms:
                return number - 1
        older = 0
        for line in self._lines:
            if _at_ms(line) >= since_ms:
                break
            older += 1
        return self.oldest + older

    def append(self, line: bytes) -> None:
        """Keep one more event."""
        self.number += 1
        self._lines.append(line)
        self._size += len(line)
        while len(self._lines) > KEPT or self._size > KEPT_SIZE:
            self._let_go()

    def take_up(self, numbers: Sequence[int], lines: Iterable[bytes]) -> None:
        """Continue after events that another backlog has kept."""
        for number, line in zip(numbers, lines, strict=True):
            while self._lines and number != self.number + 1:
                self._let_go()
            self.number = number - 1
            self.append(line)

    def could_keep(self, numbers: Sequence[int], events: Sequence[Mapping[str, Any]]) -> bool:
        """Could a backlog have kept these? Before a gap in the numbers there are only operators' events."""
        ends = [at for at, (one, following) in enumerate(pairwise(numbers)) if following != one + 1]
        before = events[: ends[-1] + 1] if ends else []
        rise = all(one < following for one, following in pairwise(numbers))
        return rise and all(self._is_operators(event) for event in before)

    def _let_go(self) -> None:
        """Drop the oldest line, unless it is what an operator did."""
        number, line = self.oldest + 1, self._lines.popleft()
        self._size -= len(line)
        if not self._is_operators(json.loads(line)):
            return
        self._operators.append((number, line))
        self._operators_size += len(line)
        while len(self._operators) > OPERATORS_KEPT or self._operators_size > OPERATORS_SIZE:
            self._operators_size -= len(self._operators.popleft()[1])

    def _is_operators(self, event: Mapping[str, Any]) -> bool:
        return event.get("actor_uid") is not None and event["actor_uid"] not in self._daemons


def _at_ms(line: bytes) -> int:
    return round(datetime.fromisoformat(json.loads(line)["at"]).timestamp() * 1000)
