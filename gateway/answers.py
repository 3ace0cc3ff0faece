"""What callers get: the structs that encode answers, and document them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

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
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


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


class Span(Struct, frozen=True):
    """Characters `[start, end)` of a source's `text`, in Unicode code points."""

    start: Annotated[int, Meta(ge=0)]
    end: Annotated[int, Meta(ge=1)]


Spans = Annotated[
    list[Span],
    Meta(description="Where in `text` the answer stands; empty when nothing is marked."),
]


class QuerySource(Source, frozen=True):
    """A passage that the answer was made from."""

    spans: Spans


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


class Answer(Struct, frozen=True, kw_only=True):
    """The answer and how it came about."""

    answer: Annotated[str, Meta(description="Citation [n] means the n-th source.")]
    latency_ms: Milliseconds
    cache_hit: Annotated[bool, Meta(description="The question's vector came from a cache.")]
    timings_ms: QueryTimings
    degraded: Degraded
    usage: Usage
    model: Models
    request_id: str


class QueryResponse(Answer, frozen=True, kw_only=True):
    """The answer and the passages it was made from, best first."""

    sources: list[QuerySource]


class AnswerDone(Answer, frozen=True, kw_only=True):
    """The answer, without the sources that were sent before it."""

    spans: Annotated[
        list[Spans], Meta(description="Those of each source, in the order of the sources.")
    ]


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
    indexed_at: Time
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
    indexed_at: Time
    content_sha256: str


class Deleted(Struct, frozen=True):
    """The document is gone; `chunks` went with it."""

    deleted: bool
    chunks: int


class JobAccepted(Struct, frozen=True):
    """The work is taken and survives a restart; `GET /jobs/{job_id}` says how far it is."""

    job_id: str


class JobProgress(Struct, frozen=True):
    """Documents; `total` is 0 until it is known."""

    done: int
    total: int


class JobProblem(Struct, frozen=True):
    """Why a job, or one document of it, failed. `reason` is for programs."""

    reason: str
    detail: str


class JobItem(Struct, frozen=True, kw_only=True):
    """A job. `error` is there when it failed."""

    job_id: str
    kind: Literal["index", "reindex"]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    collection: str
    progress: JobProgress
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    error: JobProblem | UnsetType = UNSET


class JobDocument(Struct, frozen=True):
    """What became of one document of a job; `error` is there when it failed."""

    id: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    chunks: int
    truncated_chunks: int
    error: JobProblem | UnsetType = UNSET


class JobDetail(JobItem, frozen=True, kw_only=True):
    """A job with its results so far, in the order of the request; a rebuild has none."""

    results: list[JobDocument] | UnsetType = UNSET


class JobList(Struct, frozen=True):
    """Jobs, newest first."""

    jobs: list[JobItem]


class CollectionModel(Struct, frozen=True):
    """The embedding model of a collection; models are compared by their fingerprints."""

    name: str
    fingerprint: str


class CollectionItem(Struct, frozen=True, kw_only=True):
    """A collection. `model` is null until something is written."""

    name: str
    model: CollectionModel | None
    dimension: int
    chunk_size: int
    overlap: int
    documents: int
    chunks: int


class CollectionList(Struct, frozen=True):
    """All collections, by their names."""

    collections: list[CollectionItem]


class CollectionDeleted(Struct, frozen=True):
    """The collection is gone, with everything in it."""

    deleted: bool


class DocumentsDeleted(Struct, frozen=True):
    """So many documents are gone; `chunks` went with them."""

    deleted: int
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
