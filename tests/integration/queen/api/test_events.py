"""The routes for the feed and for Prometheus."""

from __future__ import annotations

import asyncio

import pytest

from rbee.narration import HIVE_ONLINE
from rbee.wire.codec import decode
from rbee.wire.events import FeedEvents
from tests.integration.queen.served_queen import Served
from tests.integration.unix_http import TIMEOUT, request

pytestmark = pytest.mark.deadline(10)


async def last(queen: Served, query: str = "") -> FeedEvents:
    return decode(FeedEvents, (await queen.ask(request("GET", f"/v1/events/last{query}"))).json)


async def test_the_last_events_are_as_many_as_asked_for_of_all_or_of_one_hive(queen: Served) -> None:
    for hive in ("gpu1", "gpu2", "gpu1"):
        queen.narrator.narrate(HIVE_ONLINE, f"{hive} is online", hive=hive)

    assert [event.hive for event in (await last(queen)).events][-3:] == ["gpu1", "gpu2", "gpu1"]
    assert [event.hive for event in (await last(queen, "?limit=1")).events] == ["gpu1"]
    assert [event.hive for event in (await last(queen, "?limit=9&hive=gpu2")).events] == ["gpu2"]
    assert (await last(queen, "?limit=0")).events == ()


async def test_a_reader_of_the_feed_has_what_comes_after_the_event_that_it_names(queen: Served) -> None:
    queen.narrator.narrate(HIVE_ONLINE, "before", hive="gpu1")
    seen = (await last(queen)).id
    queen.narrator.narrate(HIVE_ONLINE, "after", hive="gpu1")

    reader, writer = await asyncio.open_unix_connection(str(queen.path))
    writer.write(request("GET", "/v1/events", Last_Event_ID=seen))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
    shown = b""
    while b"after" not in shown:
        shown += await asyncio.wait_for(reader.read(4096), TIMEOUT)
    writer.close()
    await writer.wait_closed()

    assert b"text/event-stream" in head
    assert b"before" not in shown


@pytest.mark.parametrize("seen", ["x", "1", "a-1"])
async def test_an_event_that_cannot_be_one_is_refused(queen: Served, seen: str) -> None:
    answer = await queen.ask(request("GET", "/v1/events", Last_Event_ID=seen))

    assert (answer.status, answer.json["field"]) == (400, "Last-Event-ID")


async def test_metrics_are_those_of_that_moment_for_each_of_many_who_scrape(queen: Served) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    await queen.rules.load()
    answers = await asyncio.gather(*(queen.ask(request("GET", "/metrics")) for _ in range(3)))

    for answer in answers:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert b'hive="localhost"' in answer.content
        assert answer.content.endswith(b"# EOF\n")


async def test_a_scraper_of_the_older_format_gets_that(queen: Served) -> None:
    answer = await queen.ask(request("GET", "/metrics", Accept="text/plain"))

    assert answer.headers["content-type"].startswith("text/plain")
    assert not answer.content.endswith(b"# EOF\n")
