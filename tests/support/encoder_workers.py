"""The three workers inside a test, with the real model, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from support.models import exports
from support.serving import Running, listening

from embedder_worker.settings import EmbedderSettings
from embedder_worker.worker import serve as serve_embedder
from encoders.settings import ModelSettings
from generator_worker.settings import GeneratorSettings
from generator_worker.worker import serve as serve_generator
from reranker_worker.settings import RerankerSettings
from reranker_worker.worker import serve as serve_reranker
from runtime.errors import STATUS_DETAILS_KEY, ServiceError, decode

_LOOPBACK = {
    "grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_host": "127.0.0.1", "metrics_port": 0,
    "drain_pause_seconds": 0, "threads": 2,
}  # fmt: skip


Yielded = tuple[Running, grpc.aio.Channel]


@asynccontextmanager
async def _worker(
    serve: Callable[[Any], Coroutine[Any, Any, None]],
    settings: type[ModelSettings],
    overrides: Mapping[str, Any],
) -> AsyncIterator[Yielded]:
    def run(fd: int) -> Coroutine[Any, Any, None]:
        given = {**_LOOPBACK, "model_cache_dir": exports(), "control_fd": fd, **overrides}
        return serve(settings(_env_file=None, **given))

    async with listening(run) as running, grpc.aio.insecure_channel(running.target) as channel:
        yield running, channel


def embedder(**overrides: Any) -> AbstractAsyncContextManager[Yielded]:
    """An embedder that listens, and a bare channel to it."""
    return _worker(serve_embedder, EmbedderSettings, overrides)


def reranker(**overrides: Any) -> AbstractAsyncContextManager[Yielded]:
    """A reranker that listens, and a bare channel to it."""
    return _worker(serve_reranker, RerankerSettings, overrides)


def generator(**overrides: Any) -> AbstractAsyncContextManager[Yielded]:
    """A generator that listens, and a bare channel to it."""
    return _worker(serve_generator, GeneratorSettings, overrides)


async def failure(call: Awaitable[Any]) -> tuple[grpc.StatusCode, ServiceError]:
    """The status code a call ends with, and the error it carries."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), decode(caught.value)


async def retry_info(call: Awaitable[Any]) -> float:
    """Seconds of the `google.rpc.RetryInfo` of a call that fails, read as any client would."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = dict(caught.value.trailing_metadata() or ())[STATUS_DETAILS_KEY]
    assert isinstance(details, bytes)
    for detail in status_pb2.Status.FromString(details).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToMilliseconds() / 1000
    raise AssertionError("no RetryInfo")
