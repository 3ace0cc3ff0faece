"""mosec: `python mosec_app.py --port <port>`, the model's folder in MODEL_FOLDER.

Its front is written in Rust; whatever waits, up to four calls, is one batch.
"""

from __future__ import annotations

import os
from typing import Any

import mosec
from encoding import Encoder

CALLS: int = 4
WAIT_MS: int = 2
TIMEOUT_S: int = 120


class Embedding(mosec.Worker):  # type: ignore[misc]
    """Calls are batched as they are and answered by one call of the encoder."""

    def __init__(self) -> None:
        self.encoder = Encoder(os.environ["MODEL_FOLDER"])

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer for each."""
        answers: list[dict[str, Any]] = self.encoder.answer(data)
        return answers


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Embedding, num=1, max_batch_size=CALLS, max_wait_time=WAIT_MS, timeout=TIMEOUT_S
    )
    server.run()
