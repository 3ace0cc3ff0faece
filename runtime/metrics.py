"""Prometheus metrics that every worker has, and the port they are read from."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from runtime.errors import FAILURE_CODES
from runtime.supervision import ResourceTaken

# From a query's embedding (2 ms) to a long generation.
RPC_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

_NOT_OURS: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)

# How a call can end. CANCELLED: its caller left.
RPC_CODES: Final = ("OK", "CANCELLED", *(code.name for code in FAILURE_CODES))


def new_registry() -> CollectorRegistry:
    """A registry with the process's own metrics; each process has exactly one."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class RpcMetrics:
    """Duration, outcome and number in flight of each RPC of one service."""

    def __init__(self, registry: CollectorRegistry, methods: tuple[str, ...]) -> None:
        self._duration = Histogram(
            "rag_rpc_duration_seconds",
            "Time from the arrival of a call to its end.",
            ["method"],
            buckets=RPC_BUCKETS_S,
            registry=registry,
        )
        self._ended = Counter(
            "rag_rpcs_total", "Calls ended, by status code.", ["method", "code"], registry=registry
        )
        self.in_flight = Gauge("rag_rpcs_in_flight", "Calls being served.", registry=registry)
        for method in methods:
            self._duration.labels(method)
            for code in RPC_CODES:
                self._ended.labels(method, code)

    def observe(self, method: str, code: str, duration_s: float) -> None:
        """Counts one call that ended."""
        self._duration.labels(method).observe(duration_s)
        self._ended.labels(method, code).inc()


@dataclass(frozen=True)
class MetricsServer:
    """A thread that answers `GET /metrics`."""

    port: int
    close: Callable[[], None]


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> MetricsServer:
    """Starts it; port 0 takes a free one.

    Raises ResourceTaken when the port is, or the host is no address of this machine.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        # A name that leads nowhere fails with an error number of the resolver's own.
        if error.errno not in _NOT_OURS and not isinstance(error, socket.gaierror):
            raise
        raise ResourceTaken(
            f"METRICS_HOST, METRICS_PORT: cannot listen on {host}:{port} ({error.strerror}). "
            "Set another one."
        ) from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return MetricsServer(server.server_port, close)
