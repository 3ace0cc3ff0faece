"""A worker's metrics, read over HTTP."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from bench.scrape import scrape
from runtime.metrics import serve_metrics


def test_values_by_name_and_labels() -> None:
    registry = CollectorRegistry()
    counter = Counter("calls", "Calls.", ["method", "code"], registry=registry)
    counter.labels("A", "OK").inc(2)
    counter.labels("B", "OK").inc(3)
    counter.labels("B", "REFUSED").inc(5)
    server = serve_metrics("127.0.0.1", 0, registry)
    try:
        metrics = scrape(f"http://127.0.0.1:{server.port}/metrics")
    finally:
        server.close()
    assert metrics.value("calls_total", method="A") == 2
    assert metrics.value("calls_total", code="OK") == 5
    assert metrics.value("calls_total", method="B", code="REFUSED") == 5
    with pytest.raises(KeyError, match="EXPIRED"):
        metrics.value("calls_total", code="EXPIRED")
