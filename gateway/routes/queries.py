"""POST /query and POST /search."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import (
    Answer,
    AnswerDone,
    Models,
    QueryResponse,
    QuerySource,
    QueryTimings,
    SearchResponse,
    SearchTimings,
    Source,
    Span,
    Token,
    Usage,
)
from gateway.decoding import BodyDecoder
from gateway.exchange import Exchange, exchange_of
from gateway.pipeline import Finished, Found, Pipeline
from gateway.routes.common import json_response, no_parameters, read_json
from gateway.schemas import QueryRequest, SearchRequest
from gateway.sse import EventStream, event

_QUERY: Final = BodyDecoder(QueryRequest)
_SEARCH: Final = BodyDecoder(SearchRequest)


class QueryRoutes:
    """Questions to answers, and to passages alone."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def search(self, request: Request) -> Response:
        """The passages."""
        no_parameters(request)
        exchange = exchange_of(request)
        ask = read_json(exchange, _SEARCH)
        exchange.query = ask.query
        found = await self._pipeline.find_passages(ask, exchange.deadline)
        _note(exchange, found)
        timings = found.timings_ms
        return json_response(
            SearchResponse(
                sources=found.sources,
                latency_ms=exchange.elapsed_ms(),
                cache_hit=found.cache_hit,
                timings_ms=SearchTimings(
                    timings.get("embed", 0.0),
                    timings.get("search", 0.0),
                    timings.get("rerank", 0.0),
                ),
                degraded=list(found.degraded),
                request_id=exchange.request_id,
            )
        )

    async def query(self, request: Request) -> Response:
        """The answer, whole or as it is made."""
        no_parameters(request)
        exchange = exchange_of(request)
        ask = read_json(exchange, _QUERY)
        exchange.query = ask.query
        if ask.stream:
            exchange.last_words = partial(event, "error")
            return EventStream(self._events(ask, exchange))
        text: list[str] = []
        sources: list[Source] = []
        done: AnswerDone | None = None
        async with aclosing(self._pipeline.answer_query(ask, exchange.deadline)) as story:
            async for part in story:
                if isinstance(part, str):
                    text.append(part)
                elif isinstance(part, Found):
                    _note(exchange, part)
                    sources = part.sources
                else:
                    done = _done(part, "".join(text), exchange)
        assert done is not None  # noqa: S101 - every story that does not raise ends with one
        return json_response(
            QueryResponse(
                sources=[*map(_marked, sources, done.spans)],
                **{name: getattr(done, name) for name in Answer.__struct_fields__},
            )
        )

    async def _events(self, ask: QueryRequest, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        text: list[str] = []
        async with aclosing(self._pipeline.answer_query(ask, exchange.deadline)) as story:
            async for part in story:
                if isinstance(part, str):
                    text.append(part)
                    yield event("token", Token(part))
                elif isinstance(part, Found):
                    _note(exchange, part)
                    yield event("sources", part.sources)
                else:
                    yield event("done", _done(part, "".join(text), exchange))


def _marked(source: Source, spans: list[Span]) -> QuerySource:
    return QuerySource(
        **{name: getattr(source, name) for name in Source.__struct_fields__}, spans=spans
    )


def _note(exchange: Exchange, found: Found) -> None:
    """For the log line."""
    exchange.cache_hit = found.cache_hit
    exchange.sources = len(found.sources)


def _done(end: Finished, answer: str, exchange: Exchange) -> AnswerDone:
    found, completion = end.found, end.completion
    timings = found.timings_ms
    spans: list[list[Span]] = [[] for _ in found.sources]
    for span in completion.spans if completion else ():
        spans[span.passage].append(Span(span.start, span.end))
    return AnswerDone(
        answer=answer,
        latency_ms=exchange.elapsed_ms(),
        cache_hit=found.cache_hit,
        timings_ms=QueryTimings(
            timings.get("embed", 0.0),
            timings.get("search", 0.0),
            timings.get("rerank", 0.0),
            timings.get("generate", 0.0),
        ),
        degraded=list(found.degraded),
        usage=Usage(
            completion.prompt_tokens if completion else 0,
            completion.completion_tokens if completion else 0,
        ),
        model=Models(
            found.embedder,
            found.reranker,
            f"{completion.engine}:{completion.model}" if completion else None,
        ),
        request_id=exchange.request_id,
        spans=spans,
    )
