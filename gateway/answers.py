"""What callers get: the structs that encode answers, and document them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Degraded = Annotated[
    list[Literal["dense", "query_truncated", "rerank", "generate"]],
    Meta(
        description="What the answer had to do without: `dense` (the embedder is gone, BM25 "
        "alone), `query_truncated` (the question is longer than the model reads), `rerank` (the "
        "order of retrieval was kept), `generate` (the language model is gone, sentences were "
        "extracted)."
    ),
]
Milliseconds = Annotated[float, Meta(ge=0)]


class StageScores(Struct, frozen=True):
    """Raw scores of the stages; null where a stage did not run or did not find the passage."""

    dense: float | None
    sparse: float | None
    rerank: float | None


class Source(Struct, frozen=True):
    """A passage found. `score` never increases down the list, whichever stage decided."""

    id: Annotated[str, Meta(description="`document_id#chunk`")]
    document_id: str
    chunk: int
    text: str
    score: Annotated[float, Meta(ge=0, le=1)]
    scores: StageScores
    metadata: dict[str, Any]


class SearchTimings(Struct, frozen=True):
    """Where the time went; 0 for a stage that did not run."""

    embed: Milliseconds
    search: Milliseconds
    rerank: Milliseconds


class QueryTimings(Struct, frozen=True):
    """Where the time went; 0 for a stage that did not run."""

    embed: Milliseconds
    search: Milliseconds
    rerank: Milliseconds
    generate: Milliseconds


class Usage(Struct, frozen=True):
    """Tokens of the language model; 0 where none was called."""

    prompt_tokens: int
    completion_tokens: int


class Models(Struct, frozen=True):
    """Which models took part; null for one that did not."""

    embedder: str | None
    reranker: str | None
    generator: str | None


class SearchResponse(Struct, frozen=True, kw_only=True):
    """The passages found, best first."""

    sources: list[Source]
    latency_ms: Milliseconds
    cache_hit: Annotated[bool, Meta(description="The question's vector came from a cache.")]
    timings_ms: SearchTimings
    degraded: Degraded
    request_id: str


class AnswerDone(Struct, frozen=True, kw_only=True):
    """The answer, without the sources that were sent before it."""

    answer: Annotated[str, Meta(description="Citation [n] means the n-th source.")]
    latency_ms: Milliseconds
    cache_hit: Annotated[bool, Meta(description="The question's vector came from a cache.")]
    timings_ms: QueryTimings
    degraded: Degraded
    usage: Usage
    model: Models
    request_id: str


class QueryResponse(AnswerDone, frozen=True, kw_only=True):
    """The answer and the passages it was made from, best first."""

    sources: list[Source]


class Token(Struct, frozen=True):
    """A piece of the answer."""

    text: str


class IndexedDocument(Struct, frozen=True):
    """What became of one document. truncated_chunks: longer than the model reads."""

    id: str
    status: Literal["added", "replaced", "unchanged"]
    chunks: int
    truncated_chunks: int


class IndexResponse(Struct, frozen=True, kw_only=True):
    """Everything is durable. `results` are in the order of the request."""

    indexed: Annotated[int, Meta(description="Documents in the request.")]
    chunks: int
    results: list[IndexedDocument]
    latency_ms: Milliseconds


class DocumentItem(Struct, frozen=True, kw_only=True):
    """A document without its text."""

    id: str
    chunks: int
    metadata: dict[str, Any]
    indexed_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    content_sha256: str


class DocumentList(Struct, frozen=True):
    """One page of documents; `next_cursor` is null on the last."""

    documents: list[DocumentItem]
    next_cursor: str | None


class ChunkItem(Struct, frozen=True):
    """A piece of a document as it was cut."""

    chunk: int
    text: str


class DocumentDetail(Struct, frozen=True, kw_only=True):
    """A document with its source text and its chunks in order."""

    id: str
    text: str
    chunks: list[ChunkItem]
    metadata: dict[str, Any]
    indexed_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    content_sha256: str


class Deleted(Struct, frozen=True):
    """The document is gone; `chunks` went with it."""

    deleted: bool
    chunks: int


Component = Literal["up", "down"]


class Components(Struct, frozen=True):
    """What the gateway depends on, as last seen."""

    vector_db: Component
    cache: Component
    embedder: Component
    reranker: Component
    generator: Component


class HealthResponse(Struct, frozen=True, kw_only=True):
    """The state of the service, in words people can act on in `notes`."""

    status: Literal["healthy", "degraded", "unhealthy"]
    components: Components
    notes: list[str]
    uptime_seconds: float
    version: str


class Liveness(Struct, frozen=True):
    """The event loop answers."""

    status: Literal["alive"] = "alive"


class Readiness(Struct, frozen=True):
    """Whether this gateway takes requests, and if not, why."""

    ready: bool
    notes: list[str]
