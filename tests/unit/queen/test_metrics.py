"""What is counted, what Prometheus reads of it, and that dashboard and alerts ask for nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rbee.gateway.metrics import Metrics as GatewayMetrics
from rbee.gateway.metrics import write as write_gateway
from rbee.queen.metrics import CATALOG_SECONDS, LATENESS, OPENMETRICS, Histogram, Metrics, Moment, write
from rbee.text import printable
from rbee.wire.devices import Gpu
from rbee.wire.workers import WorkerView
from tests.unit.wire_values import HIVE_VIEW

PACKAGING = Path(__file__).parents[3] / "packaging"


def scraped(metrics: Metrics, moment: Moment | None = None) -> dict[tuple[str, ...], float]:
    """Each sample of the OpenMetrics text by its name and the values of its labels, in their names' order."""
    text, media_type = write(metrics, moment or Moment(), "")
    assert media_type.startswith(OPENMETRICS)
    found = {}
    for family in openmetrics.text_string_to_metric_families(text.decode()):
        assert family.documentation
        for sample in family.samples:
            found[sample.name, *sample.labels.values()] = sample.value
    return found


# Counting


@pytest.mark.parametrize(
    ("value", "bucket"), [(-1.0, 0), (0.0, 0), (0.001, 0), (0.0011, 1), (5.0, 6), (5.1, 7), (10**6, 11)]
)
def test_a_value_is_in_the_first_bucket_that_it_is_not_above(value: float, bucket: int) -> None:
    histogram = Histogram(LATENESS)

    histogram.observe(value)

    assert [number for number, count in enumerate(histogram.counts) if count] == [bucket]


def test_beats_are_told_by_state_with_their_lateness() -> None:
    metrics = Metrics()
    for state in ("starting", "ready", "ready"):
        metrics.beat_came(state)
    metrics.beat_refused()
    for lateness in (-1.4, 0.2, 7.0):
        metrics.beat_was_late(lateness)

    told = scraped(metrics)

    assert told["rbee_heartbeats_total", "ready"] == 2
    assert told["rbee_heartbeats_total", "stopping"] == 0
    assert told["rbee_heartbeats_refused_total",] == 1
    assert told["rbee_heartbeat_lateness_seconds_count",] == 3
    assert told["rbee_heartbeat_lateness_seconds_sum",] == pytest.approx(7.2)  # early is on time
    assert told["rbee_heartbeat_lateness_seconds_bucket", "0.001"] == 1
    assert told["rbee_heartbeat_lateness_seconds_bucket", "5.0"] == 2
    assert told["rbee_heartbeat_lateness_seconds_bucket", "+Inf"] == 3


def test_uses_are_told_by_key() -> None:
    told = scraped(Metrics(), Moment(key_uses={"ada": 7, "bob": 0}))

    assert (told["rbee_key_uses_total", "ada"], told["rbee_key_uses_total", "bob"]) == (7, 0)


def test_models_and_workers_are_told_by_state_with_starts_and_requests() -> None:
    metrics = Metrics()
    metrics.worker_started("ready")
    metrics.worker_evicted()
    busy = WorkerView("bee-1", "bee", "a", "busy", "", 1, in_flight=3)
    asleep = WorkerView(None, "wasp", None, "asleep", "", 1)
    text, _ = write(metrics, Moment(models=["ready", "ready"], workers=[busy, asleep]), "")

    for line in (
        'rbee_models{state="ready"} 2.0',
        'rbee_workers{state="busy"} 1.0',
        'rbee_workers{state="ready"} 0.0',
        'rbee_worker_starts_total{result="ready"} 1.0',
        "rbee_worker_evictions_total 1.0",
        "rbee_requests_in_flight 3.0",
    ):
        assert line in text.decode().splitlines()
    assert "asleep" not in text.decode()


def test_jobs_are_told_by_kind_and_end() -> None:
    metrics = Metrics()
    metrics.job_ended("add-hive", "done", 0.3)
    metrics.job_ended("add-hive", "error", 40)

    told = scraped(metrics, Moment(jobs_running=Counter({"shutdown": 1})))

    assert told["rbee_jobs_total", "add-hive", "done"] == 1
    assert told["rbee_jobs_total", "remove-hive", "done"] == 0
    assert told["rbee_jobs_total", "add-model", "done"] == 0
    assert told["rbee_jobs_running", "shutdown"] == 1
    assert told["rbee_job_duration_seconds_bucket", "add-hive", "0.5"] == 1
    assert told["rbee_job_duration_seconds_count", "add-hive"] == 2


def test_the_time_of_a_failure_counts_too() -> None:
    metrics = Metrics()
    with metrics.catalog_timed("read"):
        pass
    with pytest.raises(OSError, match="full"), metrics.catalog_timed("write"):
        raise OSError("full")

    told = scraped(metrics)

    assert told["rbee_catalog_duration_seconds_count", "read"] == 1
    assert told["rbee_catalog_duration_seconds_count", "write"] == 1
    assert told["rbee_catalog_failures_total", "write"] == 1
    assert told["rbee_catalog_duration_seconds_bucket", str(CATALOG_SECONDS[-1]), "read"] == 1


# What is so


def test_hives_are_told_by_state_and_each_by_its_name() -> None:
    offline = HIVE_VIEW._replace(id="blade", state="offline", last_beat_ms=None, devices=None, version=None)

    told = scraped(Metrics(), Moment([HIVE_VIEW._replace(version="1.2", last_beat_ms=5_500), offline]))

    assert told["rbee_hives", "online"] == told["rbee_hives", "offline"] == 1
    assert told["rbee_hives", "suspect"] == 0
    assert (told["rbee_hive_online", "localhost"], told["rbee_hive_online", "blade"]) == (1, 0)
    assert told["rbee_hive_info", "localhost", "localhost", "1.2"] == 1
    assert told["rbee_hive_last_heartbeat_timestamp_seconds", "localhost"] == 5.5
    assert ("rbee_hive_last_heartbeat_timestamp_seconds", "blade") not in told


def test_devices_are_told_and_what_is_not_known_is_left_out() -> None:
    assert HIVE_VIEW.devices is not None
    strange = Gpu(1, "amd", None, None, None, None, "0000:02:00.0", problem="it is 'broken'\n\\")
    spark = Gpu(2, "nvidia", "NVIDIA GB10", None, None, None, None, None, "shared", 96 * 2**30)
    devices = HIVE_VIEW.devices._replace(gpus=(*HIVE_VIEW.devices.gpus, strange, spark))

    told = scraped(Metrics(), Moment([HIVE_VIEW._replace(devices=devices)]))

    assert told["rbee_hive_cpu_threads", "localhost"] == 256
    assert told["rbee_hive_memory_bytes", "localhost"] == 512 * 2**30
    assert told["rbee_hive_gpus", "localhost", "amd"] == 1
    assert told["rbee_hive_gpus", "localhost", "nvidia"] == 2
    assert told["rbee_gpu_memory_bytes", "gpu0", "localhost"] == 24 * 2**30
    assert ("rbee_gpu_memory_bytes", "gpu1", "localhost") not in told
    assert ("rbee_gpu_memory_bytes", "gpu2", "localhost") not in told
    assert told["rbee_gpu_shared_memory_bytes", "gpu2", "localhost"] == 96 * 2**30
    assert [told["rbee_gpu_problem", f"gpu{index}", "localhost"] for index in range(3)] == [0, 1, 0]


def test_what_a_cgroup_allows_is_told_of_the_hives_that_it_limits() -> None:
    assert HIVE_VIEW.devices is not None
    cpu = HIVE_VIEW.devices.cpu._replace(cpus_allowed=1.5, ram_allowed_bytes=2**31)
    guest = HIVE_VIEW._replace(id="guest", devices=HIVE_VIEW.devices._replace(cpu=cpu))

    told = scraped(Metrics(), Moment([HIVE_VIEW, guest]))

    assert told["rbee_hive_cpus_allowed", "guest"] == 1.5
    assert told["rbee_hive_memory_allowed_bytes", "guest"] == 2**31
    assert ("rbee_hive_cpus_allowed", "localhost") not in told
    assert ("rbee_hive_memory_allowed_bytes", "localhost") not in told


def test_a_name_from_outside_cannot_forge_a_series() -> None:
    assert HIVE_VIEW.devices is not None
    (gpu,) = HIVE_VIEW.devices.gpus
    evil = gpu._replace(name='"} 1\nrbee_queen_up 0\n\\')

    told = scraped(Metrics(), Moment([HIVE_VIEW._replace(devices=HIVE_VIEW.devices._replace(gpus=(evil,)))]))

    assert told["rbee_queen_up",] == 1
    # Escaped for terminals, too, which see it by grep.
    assert any(printable(evil.name) in name for name in told)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", OPENMETRICS),
        ("*/*", OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", OPENMETRICS),
        ("text/plain", "text/plain"),
        ("text/plain;version=0.0.4,*/*;q=0.1", "text/plain"),
    ],
)
def test_the_older_format_is_for_who_accepts_only_that(accept: str, media_type: str) -> None:
    text, told = write(Metrics(), Moment([HIVE_VIEW]), accept)

    assert told.startswith(media_type)
    assert text.decode().endswith("# EOF\n") == (media_type == OPENMETRICS)
    assert list(text_string_to_metric_families(text.decode()))


# The dashboard and the alerts


def known_names() -> set[str]:
    """The names of all series that there can be, the queen's and the gateway's."""
    assert HIVE_VIEW.devices is not None
    moment = Moment([HIVE_VIEW._replace(last_beat_ms=1)], key_uses={"alice": 1})
    return {name for name, *_ in scraped(Metrics(), moment)} | gateway_names()


def gateway_names() -> set[str]:
    metrics = GatewayMetrics()
    metrics.request_ended("bee", "200")
    metrics.tokens_came("bee", {"prompt": 1})
    metrics.first_token_came("bee", 0.1)
    metrics.was_cold("bee", 0.1)
    text, _ = write_gateway(metrics, in_flight=0, waiting=0, accept="")
    families = openmetrics.text_string_to_metric_families(text.decode())
    return {sample.name for family in families for sample in family.samples}


OF_NODE_EXPORTER = {"node_textfile_mtime_seconds"}
"""Metrics of node_exporter's own."""

_NOT_NAMES = {
    "and", "histogram_quantile", "increase", "max", "min", "or", "rate", "sum", "time", "unless",
}  # fmt: skip


def names_in(expression: str) -> set[str]:
    """The metrics that an expression of PromQL names: what is left without strings, labels and spans."""
    bare = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|without|on)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare)) - _NOT_NAMES


def expressions(value: Any) -> list[str]:
    """Each 'expr' anywhere in it."""
    if isinstance(value, dict):
        own = [value["expr"]] if isinstance(value.get("expr"), str) else []
        return own + [found for part in value.values() for found in expressions(part)]
    if isinstance(value, list):
        return [found for part in value for found in expressions(part)]
    return []


def test_the_dashboard_names_only_metrics_that_there_are() -> None:
    dashboard = json.loads((PACKAGING / "grafana/rbee.json").read_text())

    asked = {name for expression in expressions(dashboard) for name in names_in(expression)}

    assert len(asked) > 10
    assert asked <= known_names()


def test_the_dashboard_shows_each_panel_in_its_own_place() -> None:
    panels = json.loads((PACKAGING / "grafana/rbee.json").read_text())["panels"]
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (place["x"] + right, place["y"] + down)
        for place in places
        for right in range(place["w"])
        for down in range(place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert all(panel["targets"] for panel in panels)


def test_the_alerts_name_only_metrics_that_there_are() -> None:
    text = (PACKAGING / "prometheus/rbee-alerts.yml").read_text()

    asked = {name for line in re.findall(r"(?m)^ +expr: (.*)$", text) for name in names_in(line)}

    assert len(asked) > 3
    assert asked <= known_names() | OF_NODE_EXPORTER


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (hive) (rate(rbee_x_total{state="a b"}[5m])) > 0', {"rbee_x_total"}),
        ("time() - rbee_y_seconds", {"rbee_y_seconds"}),
        ("histogram_quantile(0.9, rate(rbee_z_bucket[$__rate_interval]))", {"rbee_z_bucket"}),
    ],
)
def test_names_are_found_in_an_expression(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names
