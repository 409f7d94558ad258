"""The list of hives, whole or in pages, as JSON."""

from __future__ import annotations

import asyncio
import json
import math
from bisect import bisect_right
from collections.abc import AsyncIterator

from rbee.queen.hives.hive import Hive
from rbee.queen.hives.hives import Hives
from rbee.server.responses import json_content
from rbee.wire.selectors import Selector

PAGE_SIZE = 1024 * 1024
"""Bytes at which a page ends: a hive may have many devices, and a client reads at most 4 MiB."""

AT_ONCE = 100
"""Hives read in one go before other tasks run: heartbeats do not wait for a long list."""


async def page_of(hives: Hives, *, limit: int | None, after: str, selector: Selector) -> bytes:
    """Return rbee.wire.hives.Hives as JSON: the selected hives after the place `after`, at most `limit`.

    Without a limit (None) these are all, whatever their size. They are ordered by id, so a hive that is added
    or removed between two pages neither hides nor repeats others.
    """
    views: list[bytes] = []
    last, size = "", 0
    room, most = (math.inf, math.inf) if limit is None else (PAGE_SIZE, limit)
    async for name, hive in in_turn(hives, after):
        if not selector.takes(hive.standing.row.labels):
            continue
        if len(views) >= most:
            return _page(views, last)
        view = json_content(hive.standing.view())
        size += len(view)
        if views and size > room:
            return _page(views, last)
        views.append(view)
        last = name
    return _page(views, None)


async def in_turn(hives: Hives, after: str = "") -> AsyncIterator[tuple[str, Hive]]:
    """Yield the hives after the place `after`, with their places, by id; other tasks run in between."""
    for number, name in enumerate(hives.names[bisect_right(hives.names, after) :], start=1):
        if not number % AT_ONCE:
            await asyncio.sleep(0)
        hive = hives.find(name)
        if hive is not None:
            yield name, hive


def _page(views: list[bytes], last: str | None) -> bytes:
    return b'{"hives":[%b],"next":%b}' % (b",".join(views), json.dumps(last).encode())
