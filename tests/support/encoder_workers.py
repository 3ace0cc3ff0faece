"""The embedder and the reranker worker inside a test, with the real model, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from support.models import exports
from support.serving import Running, listening

from embedder_worker.settings import EmbedderSettings
from embedder_worker.worker import serve as serve_embedder
from reranker_worker.settings import RerankerSettings
from reranker_worker.worker import serve as serve_reranker
from runtime.errors import STATUS_DETAILS_KEY, ServiceError, decode

_LOOPBACK = {
    "grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_host": "127.0.0.1", "metrics_port": 0,
    "drain_pause_seconds": 0, "threads": 2,
}  # fmt: skip


@asynccontextmanager
async def embedder(**overrides: Any) -> AsyncIterator[tuple[Running, grpc.aio.Channel]]:
    """An embedder that listens, and a bare channel to it."""

    def run(fd: int) -> Any:
        given = {**_LOOPBACK, "model_cache_dir": exports(), "control_fd": fd, **overrides}
        return serve_embedder(EmbedderSettings(_env_file=None, **given))

    async with listening(run) as running, grpc.aio.insecure_channel(running.target) as channel:
        yield running, channel


@asynccontextmanager
async def reranker(**overrides: Any) -> AsyncIterator[tuple[Running, grpc.aio.Channel]]:
    """A reranker that listens, and a bare channel to it."""

    def run(fd: int) -> Any:
        given = {**_LOOPBACK, "model_cache_dir": exports(), "control_fd": fd, **overrides}
        return serve_reranker(RerankerSettings(_env_file=None, **given))

    async with listening(run) as running, grpc.aio.insecure_channel(running.target) as channel:
        yield running, channel


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
