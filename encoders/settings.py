"""What a worker that runs an encoder reads from the environment."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from pydantic import Field

from encoders.limits import Limits
from encoders.options import DEFAULT_CACHE_DIR, BackendName, PrecisionName, Runtime
from runtime.settings import WorkerSettings


class EncoderSettings(WorkerSettings):
    """What embedder and reranker read beside `WorkerSettings`."""

    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads the model computes with; 0: as many as the cgroup's quota allows.",
    )
    model_cache_dir: Path = Field(
        DEFAULT_CACHE_DIR,
        description="Folder that keeps models exported for OpenVINO between starts; without "
        "one that can be written, each start exports anew (8 s for the default model).",
    )
    queue_tokens: int = Field(
        131_072,
        ge=1024,
        le=1_000_000_000,
        description="Tokens that may wait for the model; more is RESOURCE_EXHAUSTED.",
    )
    max_batch_tokens: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Padded tokens of one batch; 0: what is fastest on this machine.",
    )
    bulk_quantum_seconds: float = Field(
        0.015,
        gt=0,
        le=10,
        description="How long one batch of bulk work may take: an interactive call waits for "
        "at most one.",
    )
    bulk_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the model's time that bulk work keeps while interactive work waits.",
    )
    max_text_bytes: int = Field(
        65_536,
        ge=1,
        le=16_777_216,
        description="Longest text that a call may hold, in UTF-8 bytes.",
    )
    max_model_failures: int = Field(
        3,
        ge=1,
        le=1000,
        description="Batches that fail in a row before the worker says that it is not ready.",
    )

    def runtime(self, backend: BackendName, precision: PrecisionName, stopped: Event) -> Runtime:
        """How to run a model by these settings; `stopped` set, it stops loading."""
        return Runtime(backend, precision, self.threads, self.model_cache_dir, stopped)

    def limits(self, fastest_batch_tokens: int) -> Limits:
        """The batcher's bounds by these settings."""
        return Limits(
            queue_tokens=self.queue_tokens,
            batch_tokens=self.max_batch_tokens or fastest_batch_tokens,
            bulk_share=self.bulk_share,
            bulk_quantum_s=self.bulk_quantum_seconds,
            max_failures=self.max_model_failures,
        )
