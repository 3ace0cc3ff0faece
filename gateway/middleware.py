"""Everything that happens around every request, in one pure ASGI layer.

Request id, trace, keys, admission, body limit, time budget, the caller's
departure, problem documents, metrics and the log line. One layer instead of
eight: each layer costs a frame per message, and they all share one `Exchange`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problems
from gateway.admission import Admission, ApiKeys, draining
from gateway.bodies import Bodies
from gateway.exchange import CALLER_LEFT, Exchange, attach, request_id
from gateway.metrics import GatewayMetrics
from gateway.problems import Fault, HttpError, HttpReason, invalid
from runtime.deadline import Deadline, expired
from runtime.telemetry import Span, Tracing

# Never refused, never keyed: probes and scrapes must not fail because the gateway is busy.
OPEN_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
# Never keyed: a browser cannot send the key before the page that asks for it is there. They
# describe the API and hold nothing else.
UNKEYED_PATHS: Final = frozenset({"/", "/docs", "/openapi.json"})
# Most requests are over by then; watching for the caller's departure costs a task.
WATCH_AFTER_S: Final = 0.05
LOGGED_QUERY_CHARACTERS: Final = 200
# For a caller who does not read what is sent: the time for saying so has run out already.
LAST_WORDS_S: Final = 1.0

log: Final = logging.getLogger("gateway.requests")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request, where it is not the line before: budgets_s by method and path
    (`POST /index`), bodies_bytes by path."""

    budget_s: float
    budgets_s: dict[str, float]
    body_bytes: int
    bodies_bytes: dict[str, int]
    log_queries: bool


class Front:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission: Admission,
        bodies: Bodies,
        keys: ApiKeys,
        tracing: Tracing,
        metrics: GatewayMetrics,
        limits: Limits,
    ) -> None:
        self._app = app
        self._admission = admission
        self._bodies = bodies
        self._keys = keys
        self._tracing = tracing
        self._metrics = metrics
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one HTTP request. The server's lifespan is off, websockets are not offered."""
        exchange = self._begin(scope)
        respond = _responder(exchange, send)
        # Probes and scrapes would drown a trace's readers.
        span = None if exchange.path in OPEN_PATHS else self._span(exchange)
        try:
            if exchange.path in OPEN_PATHS:
                await self._app(scope, receive, respond)
            else:
                await self._serve(exchange, scope, receive, respond)
        except asyncio.CancelledError:
            if not exchange.left and not self._admission.closed:
                raise
            _forgive_cancellation()
            if not exchange.left:  # the drain has waited long enough
                await self._refuse(draining(), exchange, scope, receive, respond)
        except Exception as error:
            await self._refuse(error, exchange, scope, receive, respond)
        finally:
            if exchange.left:
                exchange.status = CALLER_LEFT
            if span is not None:
                span.end(exchange.reason)
            self._record(exchange)

    def _begin(self, scope: Scope) -> Exchange:
        headers = dict(scope["headers"])
        path = scope["path"]
        exchange = Exchange(
            request_id=request_id(headers),
            method=scope["method"],
            path=path,
            headers=headers,
            deadline=Deadline.after(
                self._limits.budgets_s.get(f"{scope['method']} {path}", self._limits.budget_s)
            ),
        )
        attach(scope, exchange)
        scope["app"] = self  # the router then raises instead of answering in plain text
        return exchange

    def _span(self, exchange: Exchange) -> Span:
        traceparent = exchange.headers.get(b"traceparent")
        # The first part of the path names the route; the rest may be a document's id.
        name = f"{exchange.method} /{exchange.path.strip('/').partition('/')[0]}"
        return self._tracing.enter(name, traceparent.decode("latin-1") if traceparent else None)

    async def _serve(
        self, exchange: Exchange, scope: Scope, receive: Receive, respond: Send
    ) -> None:
        if exchange.path not in UNKEYED_PATHS:
            self._keys.check(exchange.headers)
        exchange.deadline = _shortened(exchange)
        body_bytes = self._limits.bodies_bytes.get(exchange.path, self._limits.body_bytes)
        with self._admission:
            try:
                async with asyncio.timeout(exchange.deadline.remaining_s()):
                    await self._bodies.read(exchange, receive, body_bytes)
                    if exchange.left:
                        return
                    with _Departure(exchange, receive):
                        await self._app(scope, receive, respond)
            except TimeoutError as error:
                raise expired() from error
            finally:
                self._bodies.release(exchange)

    async def _refuse(
        self, error: Exception, exchange: Exchange, scope: Scope, receive: Receive, respond: Send
    ) -> None:
        if isinstance(error, HTTPException):
            error = _of_router(error, exchange)
        if problems.unknown_to_http(error):  # the caller is told nothing of the cause
            log.error("request failed", exc_info=error, extra={"request_id": exchange.request_id})
        document, headers = problems.problem(error, exchange.request_id)
        exchange.reason = document.reason
        if exchange.status == 0:
            await problems.response(document, headers)(scope, receive, respond)
        elif exchange.last_words is not None and not exchange.complete:
            end = {"type": "http.response.body", "body": exchange.last_words(document)}
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await respond(end)

    def _record(self, exchange: Exchange) -> None:
        latency_ms = exchange.elapsed_ms()
        if exchange.path not in OPEN_PATHS:
            self._metrics.requests.inc()
        if exchange.path == "/query" and exchange.method == "POST":
            self._metrics.queries.inc()
            self._metrics.query_duration.observe(latency_ms / 1000)
        if exchange.reason is not None:
            self._metrics.error(exchange.reason)
        probe = exchange.path in OPEN_PATHS and exchange.status < 400
        level = logging.DEBUG if probe else logging.INFO
        if not log.isEnabledFor(level):
            return
        query = exchange.query if self._limits.log_queries else None
        log.log(
            level,
            "%s %s",
            exchange.method,
            exchange.path,
            extra={
                "query": query[:LOGGED_QUERY_CHARACTERS] if query else query,
                "latency_ms": latency_ms,
                "cache_hit": exchange.cache_hit,
                "sources": exchange.sources,
                "request_id": exchange.request_id,
                "trace_id": self._tracing.trace_id(),
                "status": exchange.status,
                "reason": exchange.reason,
            },
        )


class _Departure:
    """While entered, a caller who hangs up cancels the task that serves it."""

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI servers run each request in a task
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._start, task)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _start(self, task: asyncio.Task[object]) -> None:
        self._watcher = asyncio.create_task(self._watch(task))

    async def _watch(self, task: asyncio.Task[object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        # The server says "disconnect" after the last byte of a response, too.
        if not self._exchange.complete:
            self._exchange.left = True
            task.cancel()


def _responder(exchange: Exchange, send: Send) -> Send:
    name_value = (b"x-request-id", exchange.request_id.encode("ascii"))

    async def respond(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            message["headers"] = [*message["headers"], name_value]
            if b"expect" in exchange.headers and not exchange.body_asked:
                # The caller holds its body back, and may now go on with it or with a new request.
                message["headers"].append((b"connection", b"close"))
        elif not message.get("more_body"):
            exchange.complete = True
        await send(message)

    return respond


def _shortened(exchange: Exchange) -> Deadline:
    """The request's deadline, sooner if X-Request-Timeout says so."""
    given = exchange.headers.get(b"x-request-timeout")
    if given is None:
        return exchange.deadline
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid([Fault("X-Request-Timeout", "Expected a positive number of seconds")])
    return exchange.deadline.sooner(seconds)


def _of_router(error: HTTPException, exchange: Exchange) -> Exception:
    """Starlette's own 405 as ours; it is left no other to raise, and that would be a bug."""
    if error.status_code == 405:
        return HttpError(
            HttpReason.METHOD_NOT_ALLOWED,
            f"{exchange.path} does not take {exchange.method}.",
            headers=dict(error.headers or {}),
        )
    return error


def _forgive_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
