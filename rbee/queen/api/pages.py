"""The list of hives, whole or in pages, as JSON."""

from __future__ import annotations

import asyncio
import json
import math
from bisect import bisect_right

from rbee.queen.hives.hives import Hives
from rbee.server.responses import json_content
from rbee.wire.selectors import Selector

PAGE_SIZE = 1024 * 1024
"""Bytes of a page, after which it ends: a hive may have many devices, and a client reads at most 4 MiB."""

AT_ONCE = 100
"""Hives that are written before the event loop has its turn: heartbeats do not wait for a long list."""


async def page_of(hives: Hives, *, limit: int | None, after: str, selector: Selector) -> bytes:
    """Return rbee.wire.hives.Hives as JSON: what is selected after a place, `limit` at most; None is all.

    The order is that of the ids: one that comes or goes between two pages neither hides nor repeats others.
    """
    names = hives.names[bisect_right(hives.names, after) :]
    views: list[bytes] = []
    last, size = "", 0
    room, most = (math.inf, math.inf) if limit is None else (PAGE_SIZE, limit)
    for number, name in enumerate(names, start=1):
        if not number % AT_ONCE:
            await asyncio.sleep(0)
        hive = hives.find(name)
        if hive is None or not selector.takes(hive.standing.row.labels):
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


def _page(views: list[bytes], last: str | None) -> bytes:
    return b'{"hives":[%b],"next":%b}' % (b",".join(views), json.dumps(last).encode())
