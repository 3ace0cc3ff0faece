"""What a failed call means to its caller when gRPC itself, and no service, made the status."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from runtime.errors import Reason, decode


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.UNAVAILABLE),
        # Of a stopping server, for calls it has not taken: whoever gets it asks another replica.
        (grpc.StatusCode.CANCELLED, Reason.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.QUEUE_FULL),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.INTERNAL),
    ],
)
def test_a_bare_status_has_the_nearest_reason_and_none_of_its_words(
    code: grpc.StatusCode, reason: Reason
) -> None:
    failed = decode(AioRpcError(code, Metadata(), Metadata(), details="ipv4:10.0.0.7:50051"))
    assert failed.reason is reason
    assert "10.0.0.7" not in failed.message
