"""LitServe: `python litserve_app.py <model folder> <port>`.

Its own OpenAI specification refuses dynamic batching of calls with several texts, so this is a
plain LitAPI: whatever waits, up to four calls, is one batch.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve
from encoding import Encoder

CALLS: int = 4
WAIT_S: float = 0.002


class EmbeddingApi(litserve.LitAPI):  # type: ignore[misc]
    """Calls are batched as they are and answered by one call of the encoder."""

    def setup(self, device: str) -> None:
        """Loads the model in the process that will run it."""
        self.encoder = Encoder(sys.argv[1])

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Calls stay apart."""
        return inputs

    def predict(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer for each."""
        answers: list[dict[str, Any]] = self.encoder.answer(inputs)
        return answers

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """They are apart already."""
        return output


if __name__ == "__main__":
    api = EmbeddingApi(max_batch_size=CALLS, batch_timeout=WAIT_S, api_path="/embeddings")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
