"""What a worker that runs an encoder reads from the environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

from pydantic import Field

from encoders.limits import Limits
from encoders.options import (
    DEFAULT_CACHE_DIR,
    DEFAULT_EXPORTS_DIR,
    BackendName,
    PrecisionName,
    Runtime,
)
from runtime.settings import WorkerSettings


class ModelSettings(WorkerSettings):
    """What every worker with an encoder reads beside `WorkerSettings`."""

    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads the model computes with; 0: as many as the cgroup's quota allows.",
    )
    model_streams: int = Field(
        0,
        ge=0,
        le=1024,
        description="Batches that OpenVINO computes at once, each with its share of the threads; "
        "0: one thread each, more of a large model, so that a short question takes some 5 ms.",
    )
    model_exports_dir: Path = Field(
        DEFAULT_EXPORTS_DIR,
        description="Folder with models exported for OpenVINO beforehand, as an image carries "
        "them: looked into first, never written, and it need not be there.",
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
    max_model_failures: int = Field(
        3,
        ge=1,
        le=1000,
        description="Texts on which the model fails in a row, each alone, before it is checked; "
        "the worker is not ready when it fails the check too.",
    )

    def runtime(self, backend: BackendName, precision: PrecisionName, stopped: Event) -> Runtime:
        """How to run a model by these settings; `stopped` set, it stops loading."""
        return Runtime(
            backend,
            precision,
            self.threads,
            self.model_cache_dir,
            stopped,
            self.model_exports_dir,
            self.model_streams,
        )

    def limits(self, fastest_batch_tokens: int) -> Limits:
        """The batcher's bounds by these settings, for padded tokens of the fastest batch."""
        return Limits.of_batches(
            fastest_batch_tokens,
            queue_tokens=self.queue_tokens,
            max_failures=self.max_model_failures,
        )


class EncoderSettings(ModelSettings):
    """What embedder and reranker read beside `ModelSettings`."""

    max_batch_tokens: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Padded tokens of one batch; 0: what is fastest on this machine.",
    )
    bulk_quantum_seconds: float = Field(
        0.03,
        gt=0,
        le=10,
        description="How long one batch of bulk work may take, for nothing interrupts one: an "
        "interactive call waits for the stream that is free first. A single text that takes "
        "longer is a batch of its own, and is never cut.",
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

    def limits(self, fastest_batch_tokens: int) -> Limits:
        """As `ModelSettings.limits`; MAX_BATCH_TOKENS goes before what is fastest."""
        return replace(
            super().limits(self.max_batch_tokens or fastest_batch_tokens),
            bulk_share=self.bulk_share,
            bulk_quantum_s=self.bulk_quantum_seconds,
        )


class EmbeddingSettings(ModelSettings):
    """What a worker with an embedding model reads beside `ModelSettings`."""

    embedding_model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        min_length=1,
        description="Sentence-transformers model: a hub name or a local folder.",
    )
    embedding_backend: BackendName = Field(
        "auto",
        description="What computes: `openvino`, `torch`, or `auto` (torch on a GPU, else "
        "OpenVINO where it is installed).",
    )
    embedding_precision: PrecisionName = Field(
        "auto",
        description="`bf16`, `fp32`, or `auto` (bf16 where the machine multiplies it faster).",
    )

    def embedding_runtime(self, stopped: Event) -> Runtime:
        """How to run the embedding model by these settings; `stopped` set, it stops loading."""
        return self.runtime(self.embedding_backend, self.embedding_precision, stopped)
