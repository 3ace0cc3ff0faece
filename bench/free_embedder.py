"""An embedder that costs nothing: what is measured beside it is everything else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from runtime.channel import MAX_MESSAGE_BYTES
from runtime.health import Health

SERVICE: Final = "rag.embedder.v1.EmbedderService"
DIMENSION: Final = 384
FINGERPRINT: Final = "0" * 64
# The first axis, little-endian float32: of length 1, as the store expects it.
_VECTOR: Final = b"\x00\x00\x80\x3f" + bytes(4 * (DIMENSION - 1))


class _Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
    async def GetModel(self, request: Any, context: Any) -> embedder_pb2.GetModelResponse:
        return embedder_pb2.GetModelResponse(
            name="free", fingerprint=FINGERPRINT, dimension=DIMENSION, max_tokens=8192
        )

    async def EmbedTexts(self, request: Any, context: Any) -> embedder_pb2.EmbedTextsResponse:
        return embedder_pb2.EmbedTextsResponse(
            vectors=_VECTOR * len(request.texts), dimension=DIMENSION, fingerprint=FINGERPRINT
        )


@contextmanager
def serving() -> Iterator[str]:
    """The target of one that serves in a thread of this process until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server, target = asyncio.run_coroutine_threadsafe(_start(), loop).result()
    try:
        yield target
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start() -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(_Embedder(), server)
    health = Health(SERVICE)
    await health.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.start()
    return server, f"127.0.0.1:{port}"
