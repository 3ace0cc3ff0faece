"""The OpenAPI 3.1 document, made from the very structs that decode requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import answers, schemas
from gateway.problems import PROBLEM_JSON, PROBLEMS, HttpReason, Problem
from gateway.routes.common import JSON
from runtime.errors import Reason

DOCS_PAGE: Final = Path(__file__).with_name("docs.html")
_REF: Final = "#/components/schemas/{name}"

# What any route but the open ones may answer.
_AT_THE_DOOR: Final = (
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
_EXAMPLE_QUERY: Final = {"query": "How does Rust ensure memory safety?", "top_k": 5}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. path_id: the path ends in a document's id."""

    method: str
    path: str
    tag: str
    summary: str
    answer: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None = None
    parameters: type[msgspec.Struct] | None = None
    path_id: bool = False
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
        reasons=(*_BODY, *_STORE, *_EMBED),
        notes="All or nothing is checked before anything is written: one bad document, and "
        "none is indexed. A time-out keeps the documents completed before it; send the same "
        "request again to go on from there.",
    ),
    Operation(
        "get", "/documents", "Documents", "List documents",
        answers.DocumentList, parameters=schemas.ListParameters,
        reasons=(Reason.INVALID_ARGUMENT, *_STORE),
    ),
    Operation(
        "get", "/documents/{id}", "Documents", "Read a document with its chunks",
        answers.DocumentDetail, parameters=schemas.CollectionParameter, path_id=True,
        reasons=(Reason.INVALID_ARGUMENT, Reason.DOCUMENT_NOT_FOUND, *_STORE),
    ),
    Operation(
        "delete", "/documents/{id}", "Documents", "Delete a document",
        answers.Deleted, parameters=schemas.CollectionParameter, path_id=True,
        reasons=(Reason.INVALID_ARGUMENT, Reason.DOCUMENT_NOT_FOUND, *_STORE),
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


def openapi_document(version: str, *, keyed: bool) -> dict[str, Any]:
    """The document. keyed: whether callers need an API key."""
    structs = [
        struct for one in OPERATIONS for struct in (one.answer, one.body) if struct is not None
    ]
    _, components = msgspec.json.schema_components(
        [*structs, answers.Token, answers.AnswerDone, Problem], ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one, keyed)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "production-rag",
            "version": version,
            "description": "Questions answered from your documents, with the sources.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": {
                "X-Request-ID": {
                    "description": "The caller's own if it sent a sane one, else new.",
                    "schema": {"type": "string"},
                }
            },
        },
    }
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def docs_page(openapi: bytes) -> bytes:
    """The page at /docs, with the document inside, so that it needs no second request."""
    # "</script>" in the document would end the element that holds it.
    return DOCS_PAGE.read_bytes().replace(b"/*OPENAPI*/", openapi.replace(b"</", b"<\\/"))


def _operation(one: Operation, keyed: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [one.tag],
        "summary": one.summary,
        "operationId": f"{one.method}_{one.path.strip('/').replace('/', '_')}".translate(
            {ord(mark): None for mark in "{}."}
        ),
        "responses": {"200": _answer(one), **_errors(one)},
    }
    if one.notes:
        operation["description"] = one.notes
    if one.body is not None:
        content: dict[str, Any] = {"schema": _ref(one.body)}
        if one.example is not None:
            content["example"] = one.example
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    if parameters := _parameters(one):
        operation["parameters"] = parameters
    if keyed and not one.is_open:
        operation["security"] = [{"key": []}]
    return operation


def _answer(one: Operation) -> dict[str, Any]:
    schema = {"type": "string"} if one.answer is None else _ref(one.answer)
    if one.path == "/openapi.json":
        schema = {"type": "object"}
    content: dict[str, Any] = {one.media_type: {"schema": schema}}
    if one.path == "/query":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": one.summary, "headers": _headers(), "content": content}


def _errors(one: Operation) -> dict[str, Any]:
    """Every status but 200, with the reasons that lead to it."""
    if one.path == "/health/ready":
        content = {JSON: {"schema": _ref(answers.Readiness)}}
        answer = {"description": "Not ready", "headers": _headers(), "content": content}
        return {"503": answer}
    reasons = () if one.is_open else (*one.reasons, *_AT_THE_DOOR)
    by_status: dict[int, list[Reason | HttpReason]] = {}
    for reason in reasons:
        by_status.setdefault(PROBLEMS[reason][0], []).append(reason)
    return {str(status): _error(status, by_status[status]) for status in sorted(by_status)}


def _error(status: int, reasons: Sequence[Reason | HttpReason]) -> dict[str, Any]:
    headers = _headers()
    if status == 503:
        headers["Retry-After"] = {
            "description": "Seconds until another try makes sense.",
            "schema": {"type": "integer", "minimum": 1},
        }
    return {
        "description": "; ".join(f"`{reason}`: {PROBLEMS[reason][1]}" for reason in reasons),
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": _ref(Problem)}},
    }


def _headers() -> dict[str, Any]:
    return {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}


def _parameters(one: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if one.path_id:
        parameters.append(
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The document's id; it may hold `/`, encoded or not.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 256},
            }
        )
    if one.parameters is not None:
        schema = msgspec.json.schema_components([one.parameters], ref_template=_REF)[1]
        for name, kind in schema[one.parameters.__name__]["properties"].items():
            parameters.append({"name": name, "in": "query", "schema": kind})
    if not one.is_open:
        parameters.append(
            {
                "name": "X-Request-Timeout",
                "in": "header",
                "description": "Seconds; it can only shorten the time budget.",
                "schema": {"type": "number", "exclusiveMinimum": 0},
            }
        )
    return parameters


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}
