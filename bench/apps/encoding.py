"""What both frameworks serve: SentenceTransformer.encode in bf16, by OpenAI's form of embeddings.

Imports nothing of this project but what lies beside it: it is not installed there.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any


class Encoder:
    """A model, and calls of several texts each that it answers as one batch of all texts."""

    def __init__(self, folder: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(
            folder, device="cpu", local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
        )

    def answer(self, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer for each call."""
        texts = [text for call in calls for text in call["input"]]
        # float32 whatever the weights are; all texts are sorted by length, 32 a batch.
        vectors = iter(self._model.encode(texts, batch_size=32, show_progress_bar=False))
        return [
            {"data": [{"embedding": _base64(next(vectors))} for _ in call["input"]]}
            for call in calls
        ]


def _base64(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
