"""A Qdrant server that is not there or refuses: what callers are told, and nothing breaks.

The in-memory client of the conformance suite skips the translation to gRPC; here every call
goes through it, up to the wire.
"""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import grpc
import pytest
from support.store import COLLECTION, DIMENSION, a_plan, soon, vector_of

from gateway.search import wire
from gateway.search.bm25 import Encoder
from gateway.search.search import Search
from gateway.search.server import ServerPoints, connect
from runtime.errors import Reason, ServiceError

CONFIG = wire.Config(DIMENSION, 1.2, 0.75, 64.0, "english", {"kind": "keyword"})
POINT = wire.Point("8a1f5f0e-6f0b-5c51-9c3e-2f3b7d0c9a42", {"a": [1, 2.5, None, {"b": True}]})
VECTOR = wire.pack(vector_of("x").tolist())


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
async def refusing_port() -> AsyncIterator[int]:
    """A gRPC server that knows no collection."""

    class Refuses(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            async def refuse(request: bytes, context: grpc.aio.ServicerContext) -> None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "Collection `x` doesn't exist!")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Refuses(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


def every_call(points: ServerPoints) -> list[Coroutine[Any, Any, Any]]:
    both = wire.Selection(
        (wire.Match("a", "x"), wire.Match("b", True), wire.Between("c", 1.0, 1.0)),
        (POINT.id,),
        (POINT.id,),
    )
    chunk = wire.Point(POINT.id, POINT.payload, VECTOR, "some words")
    return [
        points.upsert("x@1", [chunk], soon()),
        points.swap("x@1", POINT, None, soon()),
        points.advance("x@1", POINT, 1, soon()),
        points.count("x@1", both, soon()),
        points.optimize("x@1", soon()),
        points.swap("x@1", POINT, 3, soon()),
        points.set_payload("x@1", POINT.id, {"a": 1}, soon()),
        points.delete("x@1", wire.Selection(ids=(POINT.id,)), soon()),
        points.delete("x@1", both, soon()),
        points.query("x@1", wire.Query(VECTOR, "some words", both, 5, 50, 10), soon()),
        points.query("x@1", wire.Query(VECTOR, None, both, 5, 50, 10), soon()),
        points.query("x@1", wire.Query(None, "some words", both, 5, 50, 10), soon()),
        points.retrieve("x@1", [POINT.id], soon(), fields=["a"], vectors=True),
        points.scroll("x@1", both, 5, soon(), start_id=POINT.id, fields=["a"]),
    ]


def points_on(port: int, *, rest: bool = False) -> ServerPoints:
    client = connect(f"http://127.0.0.1:{port}", api_key="secret", grpc_port=0 if rest else port)
    points = ServerPoints(client)
    encoder = Encoder(k1=1.2, b=0.75, average_tokens=64.0, language="english")
    points._encoders["x@1"] = encoder, math.inf
    return points


@pytest.mark.parametrize("rest", [False, True], ids=["gRPC", "REST"])
async def test_every_call_fails_as_unavailable(closed_port: int, rest: bool) -> None:
    points = points_on(closed_port, rest=rest)
    more = [
        points.ping(soon()),
        points.create("x", CONFIG, soon()),
        points.collections(soon()),
        points.generations("x", soon()),
        points.create_generation("x", 2, CONFIG, soon()),
        points.switch("x", 2, soon()),
        points.drop_generation("x", 2, soon()),
        points.drop("x", soon()),
    ]
    for call in (*every_call(points), *more):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
        assert caught.value.retry_after_s is not None
        assert "127.0.0.1" not in caught.value.message
    await points.aclose()


async def test_an_unknown_collection_is_told_by_every_call(refusing_port: int) -> None:
    points = points_on(refusing_port)
    for call in every_call(points):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.reason is Reason.COLLECTION_NOT_FOUND
        assert caught.value.metadata == {"collection": "x@1"}
    await points.aclose()


async def test_the_gateway_starts_without_its_server(closed_port: int) -> None:
    search = Search(points_on(closed_port), a_plan())
    await search.start()
    try:
        for call in (
            search.ping(),
            search.stamp(COLLECTION, soon()),
            search.get_document(COLLECTION, "a", soon()),
        ):
            with pytest.raises(ServiceError) as caught:
                await call
            assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
        assert not search.broken  # it is not this gateway's own
    finally:
        await search.aclose()
