"""A Qdrant server that is not there: the gateway starts all the same, and says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.store import COLLECTION, a_plan, soon, vector_of

from gateway.search.search import Search
from gateway.search.server import ServerPoints, connect
from runtime.errors import Reason, ServiceError


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("speaks", ["gRPC", "REST"])
async def test_calls_fail_as_unavailable_and_closing_works(closed_port: int, speaks: str) -> None:
    client = connect(
        f"http://127.0.0.1:{closed_port}",
        api_key="secret",
        grpc_port=closed_port if speaks == "gRPC" else 0,
    )
    search = Search(ServerPoints(client), a_plan())
    await search.start()
    try:
        for call in (
            search.ping(),
            search.stamp(COLLECTION, soon()),
            search.get_document(COLLECTION, "a", soon()),
            search.nearest(
                COLLECTION,
                text="x",
                vector=vector_of("x"),
                mode="hybrid",
                filter=None,
                limit=1,
                deadline=soon(),
            ),
        ):
            with pytest.raises(ServiceError) as caught:
                await call
            assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
            assert caught.value.retry_after_s is not None
            assert "127.0.0.1" not in caught.value.message
        assert not search.broken  # it is not this gateway's own
    finally:
        await search.aclose()
