"""The queen's metrics for Prometheus: counted in RAM, written out when they are scraped.

Counting costs a beat some microseconds and imports nothing; prometheus_client, which writes the
exposition, is imported at the first scrape, in the scrape's own thread. Names follow
https://prometheus.io/docs/practices/naming/. The hives and keys in the catalog bound the number of
series: no label has a value that a client chose, except the names of hives, of their hardware, and of keys.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from rbee import __version__
from rbee.server.histogram import Histogram
from rbee.text import printable
from rbee.wire.devices import Gpu
from rbee.wire.hives import HiveView, State
from rbee.wire.jobs import JobKind

if TYPE_CHECKING:
    from prometheus_client import Metric

    from rbee.wire.workers import WorkerView

OPENMETRICS = "application/openmetrics-text"

LATENESS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds. 5 s, the default grace, is one of the bounds: a hive with a later beat was suspect."""

JOB_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

CATALOG_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0, 5.0)


class Metrics:
    """The counters. Each method counts the event that it is named for."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.beats: Counter[str] = Counter()
        self.beats_refused = 0
        self.lateness = Histogram(LATENESS)
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.job_seconds: dict[str, Histogram] = {}
        self.catalog_seconds = {name: Histogram(CATALOG_SECONDS) for name in ("read", "write")}
        self.catalog_failures: Counter[str] = Counter()
        self.worker_starts: Counter[str] = Counter()
        self.evictions = 0

    def beat_came(self, state: str) -> None:
        """Count an accepted beat by the state that it reports."""
        self.beats[state] += 1

    def beat_refused(self) -> None:
        """Count a beat of a hive that is not in the catalog."""
        self.beats_refused += 1

    def beat_was_late(self, seconds: float) -> None:
        """Count a beat that came `seconds` after its interval; less than 0 is early and counts as 0."""
        self.lateness.observe(max(0.0, seconds))

    def job_ended(self, kind: str, result: str, seconds: float) -> None:
        """Count a job that ran for `seconds`; `result` is 'done' or 'error'."""
        self.jobs[kind, result] += 1
        self.job_seconds.setdefault(kind, Histogram(JOB_SECONDS)).observe(seconds)

    def worker_started(self, result: str) -> None:
        """Count a worker's start that has ended: 'ready', 'failed' or 'no-room'."""
        self.worker_starts[result] += 1

    def worker_evicted(self) -> None:
        """Count a worker that was stopped for another model."""
        self.evictions += 1

    @contextmanager
    def catalog_timed(self, operation: str) -> Iterator[None]:
        """Time a 'read', in the event loop's thread only, or a 'write', in the writer's only."""
        began = time.perf_counter()
        try:
            yield
        except Exception:
            self.catalog_failures[operation] += 1
            raise
        finally:
            self.catalog_seconds[operation].observe(time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at a scrape, beside the counters."""

    hives: Iterable[HiveView] = ()
    jobs_running: Mapping[str, int] = field(default_factory=dict)
    key_uses: Mapping[str, int] = field(default_factory=dict)
    models: Iterable[str] = ()
    """The state of each model."""
    workers: Iterable[WorkerView] = ()


def write(metrics: Metrics, moment: Moment, accept: str) -> tuple[bytes, str]:
    """Return the exposition and its media type: OpenMetrics, unless `accept` asks for Prometheus's text."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    wants_text = "text/plain" in accept and OPENMETRICS not in accept
    encode, media_type = choose_encoder("text/plain" if wants_text else OPENMETRICS)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics, moment))
    return encode(registry), media_type


class _Collector:
    """All metrics of one scrape, as prometheus_client collects them."""

    def __init__(self, metrics: Metrics, moment: Moment) -> None:
        self._metrics = metrics
        self._moment = moment

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from _queen(self._metrics)
        yield from _heartbeats(self._metrics)
        yield from _jobs(self._metrics, self._moment.jobs_running)
        yield from _catalog(self._metrics)
        yield from _keys(self._moment.key_uses)
        yield from _serving(self._metrics, self._moment)
        hives = list(self._moment.hives)
        yield from _hives(hives)
        yield from _machines(hives)
        yield from _gpus(hives)


def _queen(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("rbee_queen", "The queen that answers.", {"version": __version__})
    yield GaugeMetricFamily("rbee_queen_up", "Whether the queen is awake: 1 if it answers.", 1)
    yield GaugeMetricFamily(
        "rbee_queen_start_time_seconds", "When the queen's process began.", metrics.started_at, unit="seconds"
    )


def _keys(uses: Mapping[str, int]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    used = CounterMetricFamily("rbee_key_uses", "Requests to the gateway, by their key.", labels=("key",))
    for key, count in uses.items():
        used.add_metric((printable(key),), count)
    yield used


def _serving(metrics: Metrics, moment: Moment) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    from rbee.wire.models import ModelState
    from rbee.wire.workers import WorkerState

    models = GaugeMetricFamily("rbee_models", "Models in the catalog, by their state.", labels=["state"])
    model_counts = Counter(moment.models)
    for state in get_args(ModelState):
        models.add_metric([state], model_counts[state])
    workers = GaugeMetricFamily("rbee_workers", "Workers, by their state.", labels=["state"])
    there = [worker for worker in moment.workers if worker.id is not None]
    counts = Counter(worker.state for worker in there)
    for state in get_args(WorkerState):
        if state not in ("asleep", "waiting"):  # of models that have no worker
            workers.add_metric([state], counts[state])
    starts = CounterMetricFamily(
        "rbee_worker_starts", "Starts of workers that ended, by their result.", labels=["result"]
    )
    for result in ("ready", "failed", "no-room"):
        starts.add_metric([result], metrics.worker_starts[result])
    yield from (models, workers, starts)
    yield CounterMetricFamily(
        "rbee_worker_evictions", "Idle workers that were stopped for another model.", metrics.evictions
    )
    in_flight = sum(worker.in_flight for worker in there)
    yield GaugeMetricFamily("rbee_requests_in_flight", "Requests that workers answer now.", in_flight)


def _heartbeats(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    taken = CounterMetricFamily(
        "rbee_heartbeats",
        "Heartbeats that were accepted, by the state that the hive reported.",
        labels=["state"],
    )
    for state in ("starting", "ready", "stopping"):
        taken.add_metric([state], metrics.beats[state])
    yield taken
    yield CounterMetricFamily(
        "rbee_heartbeats_refused", "Heartbeats of hives that are not in the catalog.", metrics.beats_refused
    )
    yield HistogramMetricFamily(
        "rbee_heartbeat_lateness_seconds",
        "How long after its interval a heartbeat came, by the queen's clock; an early one counts as 0.",
        buckets=metrics.lateness.buckets(), sum_value=metrics.lateness.sum, unit="seconds",
    )  # fmt: skip


def _jobs(metrics: Metrics, running: Mapping[str, int]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    now = GaugeMetricFamily("rbee_jobs_running", "Jobs that run now, by their kind.", labels=["kind"])
    ended = CounterMetricFamily(
        "rbee_jobs", "Jobs that ended, by their kind and result: done or error.", labels=["kind", "result"]
    )
    took = HistogramMetricFamily(
        "rbee_job_duration_seconds",
        "Time from the start of a job to its end.",
        labels=["kind"],
        unit="seconds",
    )
    for kind in get_args(JobKind):
        now.add_metric([kind], running.get(kind, 0))
        for result in ("done", "error"):
            ended.add_metric([kind, result], metrics.jobs[kind, result])
        seconds = metrics.job_seconds.get(kind, Histogram(JOB_SECONDS))
        took.add_metric([kind], buckets=seconds.buckets(), sum_value=seconds.sum)
    yield from (now, ended, took)


def _catalog(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    took = HistogramMetricFamily(
        "rbee_catalog_duration_seconds",
        "Time that a read or a write of the hive catalog took, including the disk.",
        labels=["operation"],
        unit="seconds",
    )
    failed = CounterMetricFamily(
        "rbee_catalog_failures", "Reads and writes of the hive catalog that failed.", labels=["operation"]
    )
    for operation, seconds in metrics.catalog_seconds.items():
        took.add_metric([operation], buckets=seconds.buckets(), sum_value=seconds.sum)
        failed.add_metric([operation], metrics.catalog_failures[operation])
    yield from (took, failed)


def _hives(hives: list[HiveView]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    counts = Counter(hive.state for hive in hives)
    by_state = GaugeMetricFamily("rbee_hives", "Hives in the catalog, by their state.", labels=["state"])
    for state in get_args(State):
        by_state.add_metric([state], counts[state])
    about = InfoMetricFamily("rbee_hive", "A hive in the catalog.", labels=["hive"])
    online = GaugeMetricFamily("rbee_hive_online", "Whether the hive is online.", labels=["hive"])
    since = GaugeMetricFamily(
        "rbee_hive_state_since_timestamp_seconds",
        "Since when the hive is in its state.",
        labels=["hive"],
        unit="seconds",
    )
    beat = GaugeMetricFamily(
        "rbee_hive_last_heartbeat_timestamp_seconds",
        "When the hive's last heartbeat came; absent before the first since the queen started.",
        labels=["hive"],
        unit="seconds",
    )
    for hive in hives:
        about.add_metric([hive.id], {"host": hive.host, "version": printable(hive.version or "")})
        online.add_metric([hive.id], float(hive.state == "online"))
        since.add_metric([hive.id], hive.since_ms / 1000)
        if hive.last_beat_ms is not None:
            beat.add_metric([hive.id], hive.last_beat_ms / 1000)
    yield from (by_state, about, online, since, beat)


def _machines(hives: list[HiveView]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    threads = GaugeMetricFamily("rbee_hive_cpu_threads", "Threads of the processors.", labels=["hive"])
    memory = GaugeMetricFamily(
        "rbee_hive_memory_bytes", "Memory of the machine.", labels=["hive"], unit="bytes"
    )
    cpus_allowed = GaugeMetricFamily(
        "rbee_hive_cpus_allowed",
        "CPUs that a cgroup allows, if it limits them.",
        labels=["hive"],
    )
    memory_allowed = GaugeMetricFamily(
        "rbee_hive_memory_allowed_bytes", "Memory that a cgroup allows, if it limits it.",
        labels=["hive"], unit="bytes",
    )  # fmt: skip
    for hive in hives:
        if hive.devices is not None:
            cpu = hive.devices.cpu
            _add_if_known(threads, [hive.id], cpu.threads)
            _add_if_known(memory, [hive.id], cpu.ram_bytes)
            _add_if_known(cpus_allowed, [hive.id], cpu.cpus_allowed)
            _add_if_known(memory_allowed, [hive.id], cpu.ram_allowed_bytes)
    yield from (threads, memory, cpus_allowed, memory_allowed)


def _gpus(hives: list[HiveView]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    cards = GaugeMetricFamily(
        "rbee_hive_gpus", "GPUs that were detected, by vendor.", labels=["hive", "vendor"]
    )
    gpu = InfoMetricFamily("rbee_gpu", "A GPU.", labels=["hive", "gpu"])
    vram = GaugeMetricFamily(
        "rbee_gpu_memory_bytes", "Memory of the GPU.", labels=["hive", "gpu"], unit="bytes"
    )
    shared = GaugeMetricFamily(
        "rbee_gpu_shared_memory_bytes",
        "Memory of the machine that the GPU may use.",
        labels=["hive", "gpu"],
        unit="bytes",
    )
    broken = GaugeMetricFamily(
        "rbee_gpu_problem", "Whether something is wrong with the GPU.", labels=["hive", "gpu"]
    )
    for hive in hives:
        gpus = () if hive.devices is None else hive.devices.gpus
        for vendor, count in Counter(one.vendor for one in gpus).items():
            cards.add_metric([hive.id, vendor], count)
        for one in gpus:
            labels = [hive.id, f"gpu{one.index}"]
            gpu.add_metric(labels, _described(one))
            _add_if_known(vram, labels, one.vram_bytes)
            _add_if_known(shared, labels, one.shared_memory_bytes)
            broken.add_metric(labels, float(one.problem is not None))
    yield from (cards, gpu, vram, shared, broken)


def _described(gpu: Gpu) -> dict[str, str]:
    known = {"name": gpu.name, "uuid": gpu.uuid, "driver": gpu.driver, "memory": gpu.memory_kind}
    # Escaped, as operators read it with grep on a terminal.
    return {"vendor": gpu.vendor, **{key: printable(text or "") for key, text in known.items()}}


def _add_if_known(family: Any, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
