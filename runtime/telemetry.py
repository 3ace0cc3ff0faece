"""One trace from the REST request through every worker call.

Tracing is on when the standard `OTEL_EXPORTER_OTLP_ENDPOINT` (or the one for
traces) is set and `OTEL_SDK_DISABLED` is not. Off, nothing of the SDK is
imported, and an incoming `traceparent` is still handed on, so that a trace
that others keep does not break here.

Each request and each call owns an asyncio task; the context is therefore set
and never reset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from opentelemetry.context import attach
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT: Final = "traceparent"
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_passed_on: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Span(Protocol):
    """One timed piece of work."""

    def end(self, error: str | None = None) -> None:
        """Closes it; `error` is the reason it failed."""


class _NoSpan:
    def end(self, error: str | None = None) -> None:
        return


class _RealSpan:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def end(self, error: str | None = None) -> None:
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


_NO_SPAN: Final = _NoSpan()


class Tracing:
    """Starts spans and carries the W3C context in and out."""

    def __init__(self, tracer: Tracer | None, shutdown: Callable[[], None] | None = None) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self._shutdown = shutdown

    def enter(self, name: str, traceparent: str | None) -> Span:
        """The span of a request that came in; everything this task does belongs to it."""
        if self._tracer is None:
            _passed_on.set(traceparent if _sane(traceparent) else None)
            return _NO_SPAN
        carrier = {TRACEPARENT: traceparent} if traceparent else {}
        span = self._tracer.start_span(
            name, context=self._propagator.extract(carrier), kind=SpanKind.SERVER
        )
        attach(set_span_in_context(span))
        return _RealSpan(span)

    def call(self, name: str) -> tuple[Span, str | None]:
        """The span of a call to another process, and the `traceparent` to send with it."""
        if self._tracer is None:
            return _NO_SPAN, _passed_on.get()
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=set_span_in_context(span))
        return _RealSpan(span), carrier.get(TRACEPARENT)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span around a piece of work inside this process."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(name):
            yield

    def trace_id(self) -> str:
        """The 32 hex digits of the current trace; empty when there is none."""
        if self._tracer is None:
            found = _TRACEPARENT.fullmatch(_passed_on.get() or "")
            return found.group(1) if found else ""
        context = get_current_span().get_span_context()
        return "" if context == INVALID_SPAN_CONTEXT else f"{context.trace_id:032x}"

    def close(self) -> None:
        """Sends what has not been sent yet."""
        if self._shutdown is not None:
            self._shutdown()


def open_tracing(service_name: str) -> Tracing:
    """Tracing as the `OTEL_*` variables say."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or disabled:
        return Tracing(None)
    # Imported here: the exporter takes 0.2 s that a process without tracing need not spend.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", service_name)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("production-rag"), provider.shutdown)


def _sane(traceparent: str | None) -> bool:
    return traceparent is not None and _TRACEPARENT.fullmatch(traceparent) is not None
