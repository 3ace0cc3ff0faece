"""RFC 9457 problem details: the only file that knows the HTTP status of a `Reason`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
from starlette.responses import Response

from runtime.errors import INTERNAL_MESSAGE, Reason, ServiceError

PROBLEM_JSON: Final = "application/problem+json"


class HttpReason(StrEnum):
    """Why a request failed before it meant anything to the services behind."""

    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    MALFORMED_JSON = "MALFORMED_JSON"
    UNAUTHORIZED = "UNAUTHORIZED"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    HEAD_TOO_LARGE = "HEAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    OVERLOADED = "OVERLOADED"


# reason: (status, title). A title never varies, the detail says what happened this time.
PROBLEMS: Final[dict[Reason | HttpReason, tuple[int, str]]] = {
    HttpReason.MALFORMED_REQUEST: (400, "Not an HTTP request"),
    HttpReason.MALFORMED_JSON: (400, "The body is not JSON"),
    HttpReason.UNAUTHORIZED: (401, "An API key is needed"),
    HttpReason.NOT_FOUND: (404, "No such resource"),
    HttpReason.METHOD_NOT_ALLOWED: (405, "The resource does not take this method"),
    HttpReason.BODY_TOO_LARGE: (413, "The body is too large"),
    HttpReason.UNSUPPORTED_MEDIA_TYPE: (415, "The body must be plain JSON in UTF-8"),
    HttpReason.HEAD_TOO_LARGE: (431, "The head of the request is too large"),
    HttpReason.OVERLOADED: (503, "Too many requests at once"),
    Reason.INVALID_ARGUMENT: (422, "The request is not valid"),
    Reason.TEXT_TOO_LONG: (422, "A text is longer than the model reads"),
    Reason.MODEL_MISMATCH: (409, "No embedder holds the collection's model"),
    Reason.QUEUE_FULL: (503, "The queue is full"),
    Reason.DEADLINE_EXCEEDED: (504, "The time budget ran out"),
    Reason.MODEL_LOADING: (503, "The model is still loading"),
    Reason.DRAINING: (503, "The server is stopping"),
    Reason.MODEL_FAILED: (502, "A worker failed"),
    Reason.UNAVAILABLE: (503, "A service cannot be reached"),
    Reason.INTERNAL: (500, "The gateway failed inside"),
    Reason.DOCUMENT_NOT_FOUND: (404, "No such document"),
    Reason.COLLECTION_NOT_FOUND: (404, "No such collection"),
    Reason.JOB_NOT_FOUND: (404, "No such job"),
    Reason.JOB_ENDED: (409, "The job has ended already"),
    Reason.REINDEX_RUNNING: (409, "The collection is being rebuilt already"),
    Reason.JOBS_ELSEWHERE: (503, "This gateway runs no jobs"),
    Reason.VECTOR_DB_UNAVAILABLE: (503, "The vector store cannot be reached"),
    Reason.EMBEDDER_UNAVAILABLE: (503, "The embedder cannot be reached"),
    Reason.RERANKER_UNAVAILABLE: (503, "The reranker cannot be reached"),
    Reason.GENERATOR_UNAVAILABLE: (503, "The generator cannot be reached"),
}

# For a 503 whose cause did not say when to come back.
RETRY_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request. field: where, such as `documents[3].text`."""

    field: str
    message: str


class HttpError(Exception):
    """A request refused at the door, before any service was asked.

    errors: every fault found, for 422; headers: what the status obliges to send.
    """

    def __init__(
        self,
        reason: Reason | HttpReason,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error. `instance` is the request's id."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    reason: str
    errors: tuple[Fault, ...] = ()


def invalid(errors: Sequence[Fault]) -> HttpError:
    """422 with every fault named."""
    return HttpError(Reason.INVALID_ARGUMENT, _detail(errors), errors=errors)


def _detail(errors: Sequence[Fault]) -> str:
    first = errors[0]
    detail = f"{first.field}: {first.message}" if first.field else first.message
    return detail if len(errors) == 1 else f"{len(errors)} faults, the first being {detail}"


def unknown_to_http(error: BaseException) -> bool:
    """Whether the error is one nobody foresaw: the log must hold it."""
    return not isinstance(error, ServiceError | HttpError)


def problem(error: BaseException, request_id: str) -> tuple[Problem, dict[str, str]]:
    """The problem document of an error, and the headers that go with it."""
    headers: dict[str, str] = {}
    errors: tuple[Fault, ...] = ()
    reason: Reason | HttpReason = Reason.INTERNAL
    detail = INTERNAL_MESSAGE
    retry_after_s: float | None = None
    if isinstance(error, ServiceError):
        reason, detail, retry_after_s = error.reason, error.message, error.retry_after_s
        if "field" in error.metadata:
            errors = (Fault(error.metadata["field"], error.message),)
            detail = _detail(errors)
    elif isinstance(error, HttpError):
        reason, detail, errors, headers = error.reason, error.detail, error.errors, error.headers
    status, title = PROBLEMS[reason]
    if status == 503:
        seconds = RETRY_AFTER_S if retry_after_s is None else retry_after_s
        headers = {**headers, "Retry-After": str(max(1, math.ceil(seconds)))}
    kind = "/problems/" + reason.value.lower().replace("_", "-")
    return Problem(kind, title, status, detail, request_id, reason.value, errors), headers


def response(document: Problem, headers: dict[str, str]) -> Response:
    """The HTTP response of a problem."""
    return Response(
        encode(document), status_code=document.status, headers=headers, media_type=PROBLEM_JSON
    )


_encoder: Final = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON, as compact as it gets."""
    return _encoder.encode(value)
