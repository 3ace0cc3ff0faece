"""What the reranker worker reads from the environment."""

from __future__ import annotations

from pydantic import Field

from encoders.options import BackendName, PrecisionName
from encoders.settings import EncoderSettings


class RerankerSettings(EncoderSettings):
    """What the reranker worker reads beside `EncoderSettings`."""

    grpc_port: int = Field(50052, ge=0, le=65535, description="Port; 0 takes a free one.")
    reranker_model: str = Field(
        "production-rag/reranker",
        min_length=1,
        description="Adapter that comes with this version, by name, or of one's own, by its file; "
        "or, by hub name or local folder, a sentence-transformers CrossEncoder, or an embedding "
        "model, which scores by late interaction.",
    )
    reranker_backend: BackendName = Field(
        "auto",
        description="What computes: `openvino`, `torch`, or `auto` (torch on a GPU, else "
        "OpenVINO where it is installed).",
    )
    reranker_precision: PrecisionName = Field(
        "auto",
        description="`bf16`, `fp32`, or `auto` (bf16 where the machine multiplies it faster).",
    )
