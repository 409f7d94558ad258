"""The queen's /metrics over her socket, after what a queen lives through."""

from __future__ import annotations

import asyncio

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from rbee.queen.metrics import OPENMETRICS
from tests.integration.house import House, until


async def scrape(house: House) -> dict[tuple[str, ...], float]:
    answer = await house.send("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(OPENMETRICS)
    families = text_string_to_metric_families(answer.content.decode())
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


async def test_a_day_of_a_queen_is_in_her_metrics(house: House) -> None:
    await house.added(heartbeat_interval=0.1)
    before = await scrape(house)
    assert before["rbee_hives", "online"] == 1
    assert before["rbee_jobs_total", "add-hive", "done"] == 1
    assert before["rbee_jobs_running", "add-hive"] == 0
    assert before["rbee_heartbeats_total", "starting"] == 1
    assert before["rbee_catalog_duration_seconds_count", "write"] >= 2
    assert before["rbee_catalog_failures_total", "write"] == 0
    assert before["rbee_hive_cpu_threads", "localhost"] > 0

    seen = len(house.hive.notifier.statuses)
    await until(lambda: len(house.hive.notifier.statuses) >= seen + 5)
    await house.remove().end()
    await house.post("/heartbeat", {**BEAT, "hive_id": "nobody"})

    after = await scrape(house)
    assert after["rbee_heartbeats_total", "ready"] >= before["rbee_heartbeats_total", "ready"] + 5
    assert after["rbee_heartbeat_lateness_seconds_count",] >= 5
    assert after["rbee_heartbeats_refused_total",] == 1
    assert after["rbee_jobs_total", "remove-hive", "done"] == 1
    assert after["rbee_hives", "online"] == 0
    assert ("rbee_hive_info", "localhost") not in {name[:2] for name in after}


async def test_many_scrapes_at_once_each_get_the_whole_page(house: House) -> None:
    await house.added()

    # Each asks in a thread of the loop's, which the queen's own page needs one of, too.
    pages = await asyncio.gather(*(scrape(house) for _ in range(3)))

    assert all(page["rbee_queen_up",] == 1 for page in pages)


BEAT = {"hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "7" * 32}
