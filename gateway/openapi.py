"""The OpenAPI 3.1 document, made from the very structs that decode requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import answers
from gateway.operations import AT_THE_DOOR, OPERATIONS, Operation
from gateway.problems import PROBLEM_JSON, PROBLEMS, HttpReason, Problem
from gateway.routes.common import JSON
from runtime.errors import Reason

DOCS_PAGE: Final = Path(__file__).with_name("docs.html")
_REF: Final = "#/components/schemas/{name}"


def openapi_document(version: str, *, keyed: bool) -> dict[str, Any]:
    """The document. keyed: whether callers need an API key."""
    structs = [
        struct
        for one in OPERATIONS
        for struct in (one.answer, one.accepted, one.body)
        if struct is not None
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
        "responses": {**_answers(one), **_errors(one)},
    }
    if one.notes:
        operation["description"] = one.notes
    if one.body is not None:
        content: dict[str, Any] = {"schema": _ref(one.body)}
        if one.example is not None:
            content["example"] = one.example
        operation["requestBody"] = {"required": one.body_required, "content": {JSON: content}}
    if parameters := _parameters(one):
        operation["parameters"] = parameters
    if keyed and not one.is_open:
        operation["security"] = [{"key": []}]
    return operation


def _answers(one: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if one.accepted is None or one.answer is not None:
        found["200"] = _answer(one)
    if one.accepted is not None:
        location = {"description": "Where the job is.", "schema": {"type": "string"}}
        found["202"] = {
            "description": "A job does it",
            "headers": {**_headers(), "Location": location},
            "content": {JSON: {"schema": _ref(one.accepted)}},
        }
    return found


def _answer(one: Operation) -> dict[str, Any]:
    schema = {"type": "string"} if one.answer is None else _ref(one.answer)
    if one.path == "/openapi.json":
        schema = {"type": "object"}
    content: dict[str, Any] = {one.media_type: {"schema": schema}}
    if one.path == "/query":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": one.summary, "headers": _headers(), "content": content}


def _errors(one: Operation) -> dict[str, Any]:
    """Every status of an error, with the reasons that lead to it."""
    if one.path == "/health/ready":
        content = {JSON: {"schema": _ref(answers.Readiness)}}
        answer = {"description": "Not ready", "headers": _headers(), "content": content}
        return {"503": answer}
    reasons = () if one.is_open else (*one.reasons, *AT_THE_DOOR)
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
    if one.path_parameter is not None:
        parameters.append(dict(one.path_parameter))
    if one.parameters is not None:
        components = msgspec.json.schema_components([one.parameters], ref_template=_REF)[1]
        schema = components[one.parameters.__name__]
        for name, kind in schema["properties"].items():
            required = name in schema["required"]
            parameters.append({"name": name, "in": "query", "required": required, "schema": kind})
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
