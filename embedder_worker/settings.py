"""What the embedder worker reads from the environment."""

from __future__ import annotations

from pydantic import Field

from encoders.settings import EmbeddingSettings, EncoderSettings


class EmbedderSettings(EmbeddingSettings, EncoderSettings):
    """What the embedder worker reads."""

    grpc_port: int = Field(50051, ge=0, le=65535, description="Port; 0 takes a free one.")
