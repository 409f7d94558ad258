"""The gateway's metrics for Prometheus: counted in RAM since its start, and written out when scraped.

A model is a label only once the queen has granted a worker of it: no label has a value that a client chose.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rbee import __version__
from rbee.server.histogram import Histogram

if TYPE_CHECKING:
    from prometheus_client import Metric

OPENMETRICS = "application/openmetrics-text"

FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

COLD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

CLIENT_GONE = "gone"
"""The status of a request whose client has left."""


class Metrics:
    """The counters. Each method counts the event that it is named for."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.first_token: dict[str, Histogram] = {}
        self.cold: dict[str, Histogram] = {}

    def request_ended(self, model: str, status: str) -> None:
        """Count a request by the status that it got; `model` is '' if no worker was granted."""
        self.requests[model, status] += 1

    def tokens_came(self, model: str, tokens: dict[str, int]) -> None:
        """Count tokens by their kind, as the engine has reported them."""
        for kind, count in tokens.items():
            self.tokens[model, kind] += count

    def first_token_came(self, model: str, seconds: float) -> None:
        """Count the time from a request to the first part of its answer."""
        self.first_token.setdefault(model, Histogram(FIRST_TOKEN_SECONDS)).observe(seconds)

    def was_cold(self, model: str, seconds: float) -> None:
        """Count a request that had to wait for its worker's start."""
        self.cold.setdefault(model, Histogram(COLD_SECONDS)).observe(seconds)


def write(metrics: Metrics, *, in_flight: int, waiting: int, accept: str) -> tuple[bytes, str]:
    """Return the exposition and its media type: OpenMetrics, unless `accept` asks for Prometheus's text."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    wants_text = "text/plain" in accept and OPENMETRICS not in accept
    encode, media_type = choose_encoder("text/plain" if wants_text else OPENMETRICS)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics, in_flight, waiting))
    return encode(registry), media_type


class _Collector:
    def __init__(self, metrics: Metrics, in_flight: int, waiting: int) -> None:
        self._metrics = metrics
        self._in_flight = in_flight
        self._waiting = waiting

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from _gateway(self._metrics, self._in_flight, self._waiting)
        yield from _requests(self._metrics)
        yield from _times(self._metrics)


def _gateway(metrics: Metrics, in_flight: int, waiting: int) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("rbee_gateway", "The gateway that answers.", {"version": __version__})
    yield GaugeMetricFamily(
        "rbee_gateway_start_time_seconds",
        "When the gateway's process began.",
        metrics.started_at,
        unit="seconds",
    )
    yield GaugeMetricFamily("rbee_gateway_requests_in_flight", "Requests that are being handled.", in_flight)
    yield GaugeMetricFamily("rbee_gateway_requests_waiting", "Requests that wait for a worker.", waiting)


def _requests(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    ended = CounterMetricFamily(
        "rbee_gateway_requests",
        "Requests that ended, by model, '' if no worker was granted, and status: that of HTTP, 'broken' if a "
        "stream ended with an error, or 'gone' if the client left.",
        labels=["model", "status"],
    )
    for (model, status), count in sorted(metrics.requests.items()):
        ended.add_metric([model, status], count)
    tokens = CounterMetricFamily(
        "rbee_gateway_tokens",
        "Tokens that the engines reported, by their kind: prompt or completion.",
        labels=["model", "kind"],
    )
    for (model, kind), count in sorted(metrics.tokens.items()):
        tokens.add_metric([model, kind], count)
    yield from (ended, tokens)


def _times(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    first = HistogramMetricFamily(
        "rbee_gateway_first_token_seconds",
        "Time from a request to the first part of its answer from the engine, a cold start included.",
        labels=["model"],
        unit="seconds",
    )
    for model, seconds in sorted(metrics.first_token.items()):
        first.add_metric([model], buckets=seconds.buckets(), sum_value=seconds.sum)
    cold = HistogramMetricFamily(
        "rbee_gateway_cold_start_seconds",
        "How long requests waited for a worker that had to be started.",
        labels=["model"],
        unit="seconds",
    )
    for model, seconds in sorted(metrics.cold.items()):
        cold.add_metric([model], buckets=seconds.buckets(), sum_value=seconds.sum)
    yield from (first, cold)
