"""Short calls are tokenised where they are, longer ones in a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from support.batching import bench
from support.models import MINILM, exports

from embedder_worker.model import Embedder
from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.options import Runtime
from encoders.tokenizing import Tokens, short
from runtime.errors import ServiceError


class Witness:
    """Notes the thread that tokenises, and cuts every text."""

    identity = type("Identity", (), {"max_tokens": 8})

    def __init__(self) -> None:
        self.threads: list[int] = []

    def guessed_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1] * len(texts)

    def tokenize(self, texts: Sequence[str], _: str) -> list[Tokens]:
        self.threads.append(threading.get_ident())
        ids = np.zeros(8, np.int64)
        return [Tokens(ids, ids, ids == 0, 0, True)] * len(texts)


@pytest.mark.parametrize(
    ("texts", "here"),
    [
        (["a question"], True),
        (["x" * 512], True),
        (["x" * 513], False),
        (["x" * 256] * 3, False),
        (["x"] * 4, True),
        (["x"] * 5, False),
    ],
)
async def test_only_short_calls_are_tokenised_on_the_event_loop(
    texts: list[str], here: bool
) -> None:
    model = Witness()
    embedder = Embedder(model, bench().batcher)  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match="8 tokens"):
        await embedder.embed(
            texts, input_type="query", lane="interactive", truncate=False, remaining_s=lambda: None
        )
    assert short(texts) is here
    assert (model.threads == [threading.get_ident()]) is here


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return load_embedding_model(MINILM, Runtime("openvino", "fp32", 2, exports()))


@pytest.mark.parametrize("text", ["", "a question", "日本語のテキスト", "a " * 256])
def test_a_short_call_has_the_tokens_it_has_beside_others(model: EmbeddingModel, text: str) -> None:
    (alone,) = model.tokenize([text], "query")
    together = model.tokenize([text] * 5, "query")[0]
    np.testing.assert_array_equal(alone.ids, together.ids)
    np.testing.assert_array_equal(alone.type_ids, together.type_ids)
    np.testing.assert_array_equal(alone.content, together.content)
    assert alone.truncated == together.truncated == (len(text) > 500)
