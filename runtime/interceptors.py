"""What happens around every call: one interceptor for servers, two small ones for clients."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from grpc.aio import ClientCallDetails, Metadata, ServicerContext

from runtime.errors import (
    INTERNAL_MESSAGE,
    STATUS_DETAILS_KEY,
    Reason,
    ServiceError,
    decode,
    encode,
    status_code,
)
from runtime.health import Health
from runtime.metrics import RpcMetrics
from runtime.telemetry import TRACEPARENT, Span, Tracing

log = logging.getLogger(__name__)

RETRY_AFTER_LOADING_S = 2.0
RETRY_AFTER_FULL_S = 1.0


class Gate:
    """Lets calls in while the service is ready and not full, and knows when the last has left."""

    def __init__(self, health: Health, max_concurrent_rpcs: int) -> None:
        self._health = health
        self._max_concurrent_rpcs = max_concurrent_rpcs
        self._in_flight = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self) -> None:
        """Raises ServiceError DRAINING, MODEL_LOADING or QUEUE_FULL."""
        if self._closed:
            raise ServiceError(Reason.DRAINING, "The worker is stopping.", 0.0)
        if not self._health.ready and not self._health.draining:
            raise ServiceError(
                Reason.MODEL_LOADING,
                "The worker's model is not ready.",
                RETRY_AFTER_LOADING_S,
            )
        if self._in_flight >= self._max_concurrent_rpcs:
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"The worker already serves {self._max_concurrent_rpcs} calls.",
                RETRY_AFTER_FULL_S,
            )
        self._in_flight += 1
        self._empty.clear()

    def in_flight(self) -> float:
        """Calls being served."""
        return float(self._in_flight)

    def leave(self) -> None:
        """The call that entered is over."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._empty.set()

    def close(self) -> None:
        """From now on nothing enters."""
        self._closed = True

    async def wait_empty(self) -> None:
        """Returns when no call is being served."""
        await self._empty.wait()


class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Gate, span, metrics and the error codec around the calls of one service.

    Health and reflection pass untouched: a probe must not fail because the
    worker is busy.
    """

    def __init__(
        self, service_name: str, gate: Gate, tracing: Tracing, metrics: RpcMetrics
    ) -> None:
        self._prefix = f"/{service_name}/"
        self._gate = gate
        self._tracing = tracing
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        method = handler_call_details.method.removeprefix(self._prefix)
        traceparent = _traceparent(handler_call_details.invocation_metadata)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream, method, traceparent),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method, traceparent),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, serve: Any, method: str, traceparent: str | None) -> Any:
        async def call(request: Any, context: ServicerContext[Any, Any]) -> Any:
            observed = _Observed(self._metrics, method, self._tracing.enter(method, traceparent))
            try:
                self._gate.enter()
                try:
                    response = await serve(request, context)
                finally:
                    self._gate.leave()
            except BaseException as error:
                await observed.fail(error, context)
            observed.end("OK")
            return response

        return call

    def _streaming(self, serve: Any, method: str, traceparent: str | None) -> Any:
        async def call(request: Any, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            observed = _Observed(self._metrics, method, self._tracing.enter(method, traceparent))
            try:
                self._gate.enter()
                try:
                    # Closed here and not by the garbage collector: a call that is cancelled
                    # while a message is sent leaves the generator standing at its `yield`.
                    async with aclosing(serve(request, context)) as responses:
                        async for response in responses:
                            yield response
                finally:
                    self._gate.leave()
            except BaseException as error:
                await observed.fail(error, context)
            observed.end("OK")

        return call


class _Observed:
    """One call's span and metrics, closed once whichever way it ends."""

    def __init__(self, metrics: RpcMetrics, method: str, span: Span) -> None:
        self._metrics = metrics
        self._method = method
        self._span = span
        self._started_s = time.perf_counter()

    def end(self, code: str, error: str | None = None) -> None:
        self._metrics.observe(self._method, code, time.perf_counter() - self._started_s)
        self._span.end(error)

    async def fail(self, error: BaseException, context: ServicerContext[Any, Any]) -> NoReturn:
        if not isinstance(error, Exception):  # cancelled: the caller left, or its deadline passed
            self.end("CANCELLED", "cancelled")
            raise error
        if isinstance(error, ServiceError):
            typed = error
        else:
            log.error("%s failed", self._method, exc_info=error)
            typed = ServiceError(Reason.INTERNAL, INTERNAL_MESSAGE)
        code = status_code(typed)
        self.end(code.name, typed.reason)
        await context.abort(code, typed.message, ((STATUS_DETAILS_KEY, encode(typed)),))


class UnaryClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Sends the trace context and raises `ServiceError` in place of gRPC's own error."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_unary_unary(
        self,
        continuation: Callable[[ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        span, traceparent = self._tracing.call(_name(client_call_details))
        try:
            call = await continuation(_with(client_call_details, traceparent), request)
            response = await call
        except grpc.aio.AioRpcError as error:
            failed = decode(error)
            span.end(failed.reason)
            raise failed from error
        except asyncio.CancelledError:
            span.end("cancelled")
            raise
        span.end()
        return response


class StreamClientInterceptor(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """The same for a server stream. Closing the iterator cancels the call."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_unary_stream(
        self,
        continuation: Any,
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        span, traceparent = self._tracing.call(_name(client_call_details))
        call = await continuation(_with(client_call_details, traceparent), request)
        return self._read(call, span)

    async def _read(self, call: Any, span: Span) -> AsyncIterator[Any]:
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            failed = decode(error)
            span.end(failed.reason)
            raise failed from error
        except BaseException:
            call.cancel()
            span.end("cancelled")
            raise
        span.end()


def _name(details: ClientCallDetails) -> str:
    method: str | bytes = details.method
    return method.decode() if isinstance(method, bytes) else method


def _with(details: ClientCallDetails, traceparent: str | None) -> ClientCallDetails:
    if traceparent is None:
        return details
    metadata = Metadata(*(details.metadata or ()), (TRACEPARENT, traceparent))
    return ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _traceparent(metadata: Any) -> str | None:
    for key, value in metadata or ():
        if key == TRACEPARENT and isinstance(value, str):
            return value
    return None
