"""The one error that crosses process boundaries, and both halves of its codec.

A service raises `ServiceError`; the server interceptor turns it into a gRPC
status that carries `google.rpc.ErrorInfo` (and `RetryInfo`); the client
interceptor turns that status back into the same `ServiceError`. HTTP is known
to `gateway/problems.py` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN: Final = "production-rag"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
INTERNAL_MESSAGE: Final = "The service failed inside; the log holds the cause."


class Reason(StrEnum):
    """Why a request failed. The comment says when to raise it."""

    # The request itself is wrong; `field` in the metadata names the part.
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    # A text is longer than the model reads and may not be cut.
    TEXT_TOO_LONG = "TEXT_TOO_LONG"
    # The model loaded here is not the one the caller (or the collection) counts on.
    MODEL_MISMATCH = "MODEL_MISMATCH"
    # The queue is full, or the wait would outlast the caller's deadline.
    QUEUE_FULL = "QUEUE_FULL"
    # The time budget ran out.
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    # The worker has not loaded its model yet.
    MODEL_LOADING = "MODEL_LOADING"
    # The process is stopping and takes no new work.
    DRAINING = "DRAINING"
    # The model failed on this input.
    MODEL_FAILED = "MODEL_FAILED"
    # The peer cannot be reached, or broke off.
    UNAVAILABLE = "UNAVAILABLE"
    # Anything nobody foresaw.
    INTERNAL = "INTERNAL"

    # Raised inside the gateway only.
    DOCUMENT_NOT_FOUND = "DOCUMENT_NOT_FOUND"
    COLLECTION_NOT_FOUND = "COLLECTION_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    # What has ended cannot be cancelled any more.
    JOB_ENDED = "JOB_ENDED"
    # Another gateway runs the jobs, or this one shall not or cannot.
    JOBS_ELSEWHERE = "JOBS_ELSEWHERE"
    # The collection is being rebuilt already.
    REINDEX_RUNNING = "REINDEX_RUNNING"
    # The vector store cannot be reached, or broke off.
    VECTOR_DB_UNAVAILABLE = "VECTOR_DB_UNAVAILABLE"
    EMBEDDER_UNAVAILABLE = "EMBEDDER_UNAVAILABLE"
    RERANKER_UNAVAILABLE = "RERANKER_UNAVAILABLE"
    GENERATOR_UNAVAILABLE = "GENERATOR_UNAVAILABLE"


_CODES: Final[Mapping[Reason, grpc.StatusCode]] = MappingProxyType(
    {
        Reason.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.TEXT_TOO_LONG: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MODEL_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.MODEL_LOADING: grpc.StatusCode.UNAVAILABLE,
        Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
        Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    }
)

# Every code that a service fails a call with.
FAILURE_CODES: Final = (*dict.fromkeys(_CODES.values()), grpc.StatusCode.INTERNAL)

# For a status without ErrorInfo: made by gRPC itself, a proxy, or another server.
_REASONS: Final[Mapping[grpc.StatusCode, Reason]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION: Reason.MODEL_MISMATCH,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.QUEUE_FULL,
        grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE: Reason.UNAVAILABLE,
        # Of a server that stops: gRPC cancels calls that arrive before their client has read its
        # GOAWAY. A caller who cancels gets no status at all.
        grpc.StatusCode.CANCELLED: Reason.UNAVAILABLE,
    }
)


class ServiceError(Exception):
    """A failure the caller may act on.

    reason: what went wrong, for programs.
    message: the same for people; it reaches the caller, so it names no path,
        host or secret.
    retry_after_s: when trying again makes sense; None says nothing of it.
    metadata: short strings beside the reason, such as `field`.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        retry_after_s: float | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"ServiceError({self.reason}, {self.message!r})"


def status_code(error: ServiceError) -> grpc.StatusCode:
    """The gRPC code of the error's reason; INTERNAL for those that never cross the wire."""
    return _CODES.get(error.reason, grpc.StatusCode.INTERNAL)


def encode(error: ServiceError) -> bytes:
    """`google.rpc.Status` with the error's details, serialised for the trailing metadata."""
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=ERROR_DOMAIN, metadata=error.metadata
    )
    status.details.add().Pack(info)
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        status.details.add().Pack(retry)
    return bytes(status.SerializeToString())


def decode(error: grpc.aio.AioRpcError) -> ServiceError:
    """The `ServiceError` a failed call carries, or the nearest one to its bare status code."""
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            decoded = _decode_status(value)
            if decoded is not None:
                return decoded
    reason = _REASONS.get(error.code(), Reason.INTERNAL)
    return ServiceError(reason, _BARE_MESSAGES.get(reason, INTERNAL_MESSAGE))


# The text of a bare status is gRPC's own and names hosts: it is not passed on.
_BARE_MESSAGES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.INVALID_ARGUMENT: "The service refused the request.",
        Reason.MODEL_MISMATCH: "The service holds another model.",
        Reason.QUEUE_FULL: "The service takes no more work at the moment.",
        Reason.DEADLINE_EXCEEDED: "The time budget ran out.",
        Reason.UNAVAILABLE: "The service cannot be reached.",
    }
)


def _decode_status(value: bytes) -> ServiceError | None:
    try:
        status = status_pb2.Status.FromString(value)
    except DecodeError:  # another server's idea of the details
        return None
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    found = False
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    if not found or info.reason not in Reason.__members__:
        return None
    return ServiceError(Reason(info.reason), status.message, retry_after_s, **dict(info.metadata))
