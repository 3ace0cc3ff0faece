"""One trace from the REST request through every worker, as an OTLP collector receives it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from support.system import System, eventually

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps (service, span) of all it is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[str, Any]] = []

    def Export(self, request: Any, context: Any) -> Any:
        with self._lock:
            for resource in request.resource_spans:
                attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self._spans += [(attributes["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[tuple[str, Any]]:
        with self._lock:
            return [(name, s) for name, s in self._spans if s.trace_id.hex() == trace_id]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, int]]:
    server = grpc.server(ThreadPoolExecutor(4))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, port
    server.stop(0).wait()


def test_a_query_is_one_trace(collector: tuple[Collector, int], tmp_path: Path) -> None:
    received, port = collector
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with System(tmp_path, **environment) as system:
        system.index({"id": "a", "text": "The sky is blue because air scatters blue light."})
        response = system.client.post(
            "/query",
            json={"query": "Why is the sky blue?"},
            headers={"traceparent": f"00-{TRACE_ID}-{PARENT}-01"},
        )
        assert response.status_code == 200
        expected = {"gateway", "EmbedderService", "RerankerService", "GeneratorService"}

        def services() -> set[str]:
            return {name.rsplit(".", 1)[-1] for name, _ in received.of(TRACE_ID)}

        eventually(lambda: services() >= expected, f"spans of {expected}, got {services()}", 20)

    spans = [span for _, span in received.of(TRACE_ID)]
    ids = {span.span_id.hex() for span in spans}
    parents = {span.parent_span_id.hex() for span in spans}
    assert parents - ids == {PARENT}, "every span but the request's own has its parent in the trace"
