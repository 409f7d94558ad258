"""Routes for the feed of events, and for Prometheus."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rbee.queen.api.asked import feed_id
from rbee.queen.api.pages import in_turn
from rbee.queen.feed import Feed
from rbee.queen.hives.hives import Hives
from rbee.queen.jobs import Jobs
from rbee.queen.keys import ClientKeys
from rbee.queen.metrics import Metrics, Moment, write
from rbee.queen.serving.lazy import LazyServing
from rbee.server.app import Handler
from rbee.server.requests import peer_of, read_query
from rbee.server.responses import event_stream
from rbee.wire.events import FeedEvents
from rbee.wire.routes import QueenRoutes, Route


def routes(
    feed: Feed, hives: Hives, jobs: Jobs, metrics: Metrics, keys: ClientKeys, lazy: LazyServing
) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""
    scraping = asyncio.Lock()

    async def watch(request: Request) -> Response:
        since_ms = read_query(request, QueenRoutes.FEED).get("since_ms")
        return event_stream(feed.stream(peer_of(request), after=feed_id(request), since_ms=since_ms))

    async def last(request: Request) -> FeedEvents:
        asked = read_query(request, QueenRoutes.LAST_EVENTS)
        return feed.last(asked.get("limit", 10), asked.get("hive"))

    async def scrape(request: Request) -> Response:
        async with scraping:  # one at a time: a page is made in a thread
            views = [hive.standing.view() async for _, hive in in_turn(hives)]
            moment = Moment(views, jobs.running_by_kind(), keys.uses(), lazy.model_states(), lazy.views())
            accept = request.headers.get("accept", "")
            content, media_type = await asyncio.to_thread(write, metrics, moment, accept)
        return Response(content, headers={"Content-Type": media_type})

    return {QueenRoutes.FEED: watch, QueenRoutes.LAST_EVENTS: last, QueenRoutes.METRICS: scrape}
