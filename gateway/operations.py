"""Every operation of the API: what it takes, what it answers, and what it is refused for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway import answers, schemas
from gateway.problems import HttpReason
from gateway.routes.common import JSON
from runtime.errors import Reason

# What any route but the open ones may answer.
AT_THE_DOOR: Final = (
    HttpReason.UNAUTHORIZED,
    HttpReason.OVERLOADED,
    Reason.UNAVAILABLE,
    Reason.DRAINING,
    Reason.DEADLINE_EXCEEDED,
    Reason.INTERNAL,
)
_BODY: Final = (
    HttpReason.MALFORMED_JSON,
    HttpReason.BODY_TOO_LARGE,
    HttpReason.UNSUPPORTED_MEDIA_TYPE,
    Reason.INVALID_ARGUMENT,
)
_STORE: Final = (Reason.COLLECTION_NOT_FOUND, Reason.VECTOR_DB_UNAVAILABLE)
_JOB: Final = (Reason.INVALID_ARGUMENT, Reason.JOB_NOT_FOUND, Reason.JOBS_ELSEWHERE)
_EMBED: Final = (
    Reason.TEXT_TOO_LONG,
    Reason.MODEL_MISMATCH,
    Reason.MODEL_FAILED,
    Reason.QUEUE_FULL,
    Reason.EMBEDDER_UNAVAILABLE,
)

_EXAMPLE_INDEX: Final = {
    "documents": [
        {
            "id": "rust/ownership",
            "text": "Ownership is a set of rules that govern how a Rust program manages memory.",
            "metadata": {"title": "What Is Ownership?"},
        }
    ]
}
_EXAMPLE_REINDEX: Final = {"collection": "documents", "chunk_size": 1024, "overlap": 100}
_EXAMPLE_QUERY: Final = {"query": "How does Rust ensure memory safety?", "top_k": 5}


def _limits(kind: Any) -> dict[str, Any]:
    """What the server holds a string to, less the words: a path's part has its own."""
    schema = msgspec.json.schema(kind)
    del schema["description"]
    return schema


# What the last part of a path names.
_DOCUMENT_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The document's id; it may hold `/`, encoded or not.",
    "schema": _limits(schemas.DocumentId),
}
_JOB_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The `job_id` of the answer that took the job.",
    "schema": {"type": "string", "minLength": 1},
}
_COLLECTION_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The collection's name.",
    "schema": _limits(schemas.Collection),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    answer: of 200. accepted: of 202, where the work may go on, or does.
    body_required: False where no body means an empty object.
    path_parameter: what the end of the path names.
    """

    method: str
    path: str
    tag: str
    summary: str
    answer: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    accepted: type[msgspec.Struct] | None = None
    parameters: type[msgspec.Struct] | None = None
    path_parameter: Mapping[str, Any] | None = None
    reasons: Sequence[Reason | HttpReason] = ()
    example: Mapping[str, Any] | None = None
    is_open: bool = False
    media_type: str = JSON
    notes: str = ""


OPERATIONS: Final = (
    Operation(
        "post", "/query", "Questions", "Ask a question, get an answer with its sources",
        answers.QueryResponse, body=schemas.QueryRequest, example=_EXAMPLE_QUERY,
        reasons=(*_BODY, *_STORE, *_EMBED, Reason.GENERATOR_UNAVAILABLE),
        notes="With `stream: true` the answer is `text/event-stream`: `event: sources` (the "
        "sources), `event: token` (`{\"text\"}`, many times), `event: done` (the answer less "
        "`sources`), or `event: error` (the problem object); a `: ping` comment keeps the "
        "stream alive.",
    ),
    Operation(
        "post", "/search", "Questions", "Find passages",
        answers.SearchResponse, body=schemas.SearchRequest, example=_EXAMPLE_QUERY,
        reasons=(*_BODY, *_STORE, *_EMBED),
    ),
    Operation(
        "post", "/index", "Documents", "Add or replace documents",
        answers.IndexResponse, body=schemas.IndexRequest, example=_EXAMPLE_INDEX,
        parameters=schemas.IndexParameters, accepted=answers.JobAccepted,
        reasons=(*_BODY, *_STORE, *_EMBED, Reason.JOBS_ELSEWHERE),
        notes="All or nothing is checked before anything is written: one bad document, and "
        "none is indexed. A time-out keeps the documents completed before it; send the same "
        "request again to go on from there. With `wait=false` the answer is 202 and a job, once "
        "the documents are safe on the disk.",
    ),
    Operation(
        "get", "/documents", "Documents", "List documents",
        answers.DocumentList, parameters=schemas.ListParameters,
        reasons=(Reason.INVALID_ARGUMENT, *_STORE),
    ),
    Operation(
        "delete", "/documents", "Documents", "Delete the documents that pass a filter",
        answers.DocumentsDeleted, parameters=schemas.DeleteParameters,
        reasons=(Reason.INVALID_ARGUMENT, *_STORE),
        notes="Those that were indexed before the call; each is gone for good when it "
        "returns. A time-out keeps what was deleted before it; send the same request again "
        "to go on from there.",
    ),
    Operation(
        "get", "/documents/{id}", "Documents", "Read a document with its chunks",
        answers.DocumentDetail, parameters=schemas.CollectionParameter, path_parameter=_DOCUMENT_ID,
        reasons=(Reason.INVALID_ARGUMENT, Reason.DOCUMENT_NOT_FOUND, *_STORE),
    ),
    Operation(
        "delete", "/documents/{id}", "Documents", "Delete a document",
        answers.Deleted, parameters=schemas.CollectionParameter, path_parameter=_DOCUMENT_ID,
        reasons=(Reason.INVALID_ARGUMENT, Reason.DOCUMENT_NOT_FOUND, *_STORE),
    ),
    Operation(
        "post", "/reindex", "Collections", "Rebuild a collection beside the live one, then switch",
        None, body=schemas.ReindexRequest, body_required=False, accepted=answers.JobAccepted,
        example=_EXAMPLE_REINDEX,
        reasons=(*_BODY, *_STORE, *_EMBED, Reason.REINDEX_RUNNING, Reason.JOBS_ELSEWHERE),
        notes="With today's embedding model and the chunking named, from the texts that are kept. "
        "Reads and writes go on throughout. A job that fails or is cancelled leaves the live "
        "collection as it is.",
    ),
    Operation(
        "get", "/collections", "Collections", "List collections", answers.CollectionList,
        reasons=(Reason.INVALID_ARGUMENT, Reason.VECTOR_DB_UNAVAILABLE),
    ),
    Operation(
        "delete", "/collections/{name}", "Collections", "Delete a collection and all in it",
        answers.CollectionDeleted, path_parameter=_COLLECTION_NAME,
        reasons=(Reason.INVALID_ARGUMENT, *_STORE),
        notes="The first /index that names a collection makes it; the default one comes back "
        "empty at once.",
    ),
    Operation(
        "get", "/jobs", "Jobs", "List jobs, newest first", answers.JobList,
        parameters=schemas.JobsParameters,
        reasons=(Reason.INVALID_ARGUMENT, Reason.JOBS_ELSEWHERE),
    ),
    Operation(
        "get", "/jobs/{id}", "Jobs", "How far a job is, and its results",
        answers.JobDetail, path_parameter=_JOB_ID, reasons=_JOB,
    ),
    Operation(
        "delete", "/jobs/{id}", "Jobs", "Cancel a job",
        answers.JobDetail, path_parameter=_JOB_ID, reasons=(*_JOB, Reason.JOB_ENDED),
        notes="One that waits is cancelled at once, one that runs between two documents: the "
        "answer waits up to 5 s for it, and may then still say `running`. What was indexed "
        "stays. To cancel what is cancelled is 200 again.",
    ),
    Operation(
        "get", "/health", "Service", "State of the service and its dependencies",
        answers.HealthResponse, is_open=True,
    ),
    Operation(
        "get", "/health/live", "Service", "The event loop answers", answers.Liveness, is_open=True
    ),
    Operation(
        "get", "/health/ready", "Service", "Whether to send requests here",
        answers.Readiness, is_open=True,
    ),
    Operation(
        "get", "/metrics", "Service", "Prometheus metrics", None, is_open=True,
        media_type="text/plain",
    ),
    Operation("get", "/openapi.json", "Service", "This document", None),
    Operation(
        "get", "/docs", "Service", "A page to read and try the API", None, media_type="text/html"
    ),
)  # fmt: skip
