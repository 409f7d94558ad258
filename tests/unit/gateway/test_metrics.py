"""The gateway's metrics as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from rbee.gateway.metrics import CLIENT_GONE, Metrics, write


def test_everything_is_written_that_was_counted() -> None:
    metrics = Metrics()
    metrics.request_ended("bee", "200")
    metrics.request_ended("bee", "200")
    metrics.request_ended("", CLIENT_GONE)
    metrics.tokens_came("bee", {"prompt": 7, "completion": 3})
    metrics.first_token_came("bee", 0.2)
    metrics.was_cold("bee", 6.4)

    content, media_type = write(metrics, in_flight=3, waiting=1, accept="")

    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }
    assert media_type.startswith("application/openmetrics-text")
    assert samples["rbee_gateway_requests_total", "200", "bee"] == 2
    assert samples["rbee_gateway_requests_total", "", "gone"] == 1
    assert samples["rbee_gateway_tokens_total", "bee", "completion"] == 3
    assert samples["rbee_gateway_first_token_seconds_bucket", "0.1", "bee"] == 0
    assert samples["rbee_gateway_first_token_seconds_bucket", "0.25", "bee"] == 1
    assert samples["rbee_gateway_cold_start_seconds_sum", "bee"] == 6.4
    assert samples["rbee_gateway_requests_in_flight",] == 3
    assert samples["rbee_gateway_requests_waiting",] == 1


def test_plain_text_is_written_to_whom_asks_for_it() -> None:
    _, media_type = write(Metrics(), in_flight=0, waiting=0, accept="text/plain")

    assert media_type.startswith("text/plain")
