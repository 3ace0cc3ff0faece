"""The smallest real model for the real worker: what matters here is that it can be killed."""

from __future__ import annotations

from pathlib import Path

from support.models import tiny_encoder

DIMENSION = 32


def small_model(folder: Path) -> dict[str, str]:
    """Saves the model in `folder`; the embedder's settings, and VECTOR_DIM for the gateway."""
    exports = folder / "exports"
    exports.mkdir()
    return {
        "EMBEDDING_MODEL": str(tiny_encoder(folder)),
        "MODEL_CACHE_DIR": str(exports),
        "VECTOR_DIM": str(DIMENSION),
        "THREADS": "1",
    }
