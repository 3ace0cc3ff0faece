"""What the gateway reads from the environment, beside the settings of its store and its jobs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from gateway.jobs.settings import JobSettings
from gateway.search.settings import StoreSettings


class GatewaySettings(JobSettings, StoreSettings):
    """Settings of the gateway process. A field's environment name is its own in capitals."""

    server_host: str = Field("0.0.0.0", description="Address the REST server listens on.")
    server_port: int = Field(
        8080, ge=0, le=65535, description="Port of the REST server; 0 takes a free one."
    )
    api_keys: SecretStr | None = Field(
        None,
        description="Keys a caller may send as `Authorization: Bearer <key>`, comma separated. "
        "Unset: everybody may call.",
    )
    log_queries: bool = Field(
        True,
        description="Whether the log line of a request holds the query's first 200 characters.",
    )

    max_connections: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Requests served at once; one more is 503. Also the size of the Redis pool. "
        "/health* and /metrics are exempt.",
    )
    request_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="Time budget of a request; X-Request-Timeout shortens it."
    )
    index_timeout_seconds: float = Field(
        600.0, gt=0, le=86_400, description="Time budget of POST /index and DELETE /documents."
    )
    rerank_timeout_seconds: float = Field(
        2.0,
        gt=0,
        le=600,
        description="Longest a query waits for the reranker; then the order of retrieval stays.",
    )
    max_body_bytes: int = Field(
        33_554_432,
        ge=1024,
        le=1 << 30,
        description="Largest body of POST /index; other routes take 1 MiB. A larger one is 413. "
        "Eight times as much is what all bodies may hold of memory together.",
    )

    redis_url: SecretStr | None = Field(
        None,
        description="Redis for the second tier of the embedding cache, such as "
        "redis://localhost:6379. Unset: memory alone.",
    )
    redis_timeout_seconds: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Longest a request waits for Redis before it goes on without.",
    )
    cache_size: int = Field(
        10_000,
        ge=0,
        le=10_000_000,
        description="Question vectors kept in memory (1.5 KiB each at 384 dimensions).",
    )
    cache_ttl_seconds: int = Field(
        3600, ge=1, le=31_536_000, description="How long Redis keeps a vector."
    )

    embedder_target: str = Field(
        "localhost:50051",
        min_length=1,
        description="gRPC target of the embedder workers; dns:/// names reach all their pods.",
    )
    embedder_target_next: str | None = Field(
        None,
        min_length=1,
        description="gRPC target of embedders with another model, to which POST /reindex moves "
        "collections. Unset: it rebuilds them with the model of EMBEDDER_TARGET.",
    )
    reranker_target: str = Field(
        "localhost:50052", min_length=1, description="gRPC target of the reranker workers."
    )
    generator_target: str = Field(
        "localhost:50053", min_length=1, description="gRPC target of the generator workers."
    )
    embedding_batch_size: int = Field(
        32, ge=1, le=1024, description="Most texts sent to the embedder in one call."
    )

    rerank_candidates: int = Field(
        30,
        ge=1,
        le=1024,
        description="Passages fetched for reranking, when a request asks for fewer.",
    )
    rerank_fusion: Literal["rrf", "off"] = Field(
        "rrf",
        description="How the reranker decides the order: rrf fuses its rank with the rank of "
        "retrieval, by documents, off takes its score alone.",
    )
    rerank_fusion_k: int = Field(
        10,
        ge=1,
        le=1000,
        description="Constant of the fusion of ranks; smaller trusts the top more.",
    )
    passages_per_document: int = Field(
        3,
        ge=0,
        le=1000,
        description="Passages of one document among the `top_k`, and identical passages only "
        "once; more of them fill up when nothing else is found. 0 takes the best passages, "
        "whatever they are.",
    )

    probe_interval_seconds: float = Field(
        5.0,
        gt=0,
        le=300,
        description="How often the gateway looks whether its dependencies answer.",
    )

    @field_validator("api_keys")
    @classmethod
    def _some_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _split(value):
            raise ValueError("holds no key; unset it to let everybody call")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "unix://")
        if value is not None and not value.get_secret_value().startswith(schemes):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    def keys(self) -> tuple[str, ...]:
        """The API keys; empty when everybody may call."""
        return _split(self.api_keys) if self.api_keys is not None else ()


def _split(keys: SecretStr) -> tuple[str, ...]:
    return tuple(key for part in keys.get_secret_value().split(",") if (key := part.strip()))
