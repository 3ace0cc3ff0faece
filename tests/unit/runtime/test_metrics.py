"""The port that metrics are read from."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from runtime.metrics import serve_metrics
from runtime.supervision import ResourceTaken


# 192.0.2.1 is of the block for documentation (RFC 5737), which no machine has.
@pytest.mark.parametrize("host", ["192.0.2.1", "no such name"])
def test_an_address_of_others_is_one_line_that_names_both_settings(host: str) -> None:
    with pytest.raises(ResourceTaken, match="^METRICS_HOST, METRICS_PORT: ") as caught:
        serve_metrics(host, 0, CollectorRegistry())
    assert f"{host}:0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_is_told_the_same_way() -> None:
    server = serve_metrics("127.0.0.1", 0, CollectorRegistry())
    try:
        with pytest.raises(ResourceTaken, match=f"127.0.0.1:{server.port} "):
            serve_metrics("127.0.0.1", server.port, CollectorRegistry())
    finally:
        server.close()
