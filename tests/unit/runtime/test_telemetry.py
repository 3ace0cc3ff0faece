"""Traces: one from the request through every call, and the W3C context in and out."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime.telemetry import Tracing, open_tracing

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider.get_tracer("test"), provider.shutdown)


async def test_request_stage_and_call_are_one_trace(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    async def request() -> None:
        span = tracing.enter("POST /query", TRACEPARENT)
        assert tracing.trace_id() == TRACE_ID
        with tracing.stage("search"):
            pass
        call, traceparent = tracing.call("/rag.embedder.v1.EmbedderService/EmbedTexts")
        assert traceparent is not None
        assert TRACE_ID in traceparent
        call.end("UNAVAILABLE")
        span.end()

    await asyncio.create_task(request())
    stage, call, root = exporter.get_finished_spans()
    assert root.parent is not None
    assert root.context is not None
    assert stage.parent is not None
    assert call.parent is not None
    assert f"{root.parent.span_id:016x}" == "b7ad6b7169203331"
    assert stage.parent.span_id == call.parent.span_id == root.context.span_id
    assert not call.status.is_ok


async def test_requests_side_by_side_do_not_mix(tracing: Tracing) -> None:
    async def request(number: int) -> str:
        tracing.enter("r", f"00-{number:032x}-b7ad6b7169203331-01")
        await asyncio.sleep(0)
        return tracing.trace_id()

    ids = await asyncio.gather(*(asyncio.create_task(request(n)) for n in range(1, 20)))
    assert ids == [f"{n:032x}" for n in range(1, 20)]


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [(TRACEPARENT, TRACEPARENT), (None, None), ("nonsense\r\nx: y", None)],
)
async def test_off_a_sane_context_is_still_handed_on(
    sent: str | None, passed_on: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    tracing = open_tracing("test")
    tracing.enter("r", sent)
    span, traceparent = tracing.call("c")
    span.end()
    assert traceparent == passed_on
    assert tracing.trace_id() == (TRACE_ID if passed_on else "")
    tracing.close()


def test_on_by_the_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = open_tracing("test")
    tracing.enter("r", TRACEPARENT)
    assert tracing.trace_id() == TRACE_ID
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    off = open_tracing("test")
    off.enter("r", None)
    assert off.trace_id() == ""
    tracing.close()
