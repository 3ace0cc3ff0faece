"""Who cannot be served is told before their texts are tokenised."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batching import FakeModel, Text, bench

from embedder_worker.model import Embedder
from encoders.limits import Limits
from encoders.tokenizing import Tokens, guessed_tokens
from reranker_worker.model import Reranker
from runtime.errors import Reason, ServiceError


class Untouched:
    """A model whose tokenizer nobody may ask."""

    def guessed_tokens(self, texts: Sequence[str]) -> list[int]:
        return [guessed_tokens(text, 256) for text in texts]

    def tokenize(self, *_: object) -> list[Tokens]:
        raise AssertionError("it was tokenised")

    prepare = tokenize


@pytest.mark.parametrize("worker", ["embedder", "reranker"])
async def test_a_full_queue_costs_no_tokenising(worker: str) -> None:
    made = bench(Limits(queue_tokens=100), FakeModel())
    waiting = made.ask([Text("before", 99)])
    while made.sample("rag_queue_tokens", lane="interactive") == 0:
        await made.ask([])
    model, batcher = Untouched(), made.batcher
    with pytest.raises(ServiceError) as caught:
        if worker == "embedder":
            await Embedder(model, batcher).embed(  # type: ignore[arg-type]
                ["a text of a few words"], input_type="query", lane="interactive",
                truncate=True, remaining_s=lambda: 1.0,
            )  # fmt: skip
        else:
            await Reranker(model, batcher).score(  # type: ignore[arg-type]
                "a question", ["a text of a few words"], truncate=True, remaining_s=lambda: 1.0
            )
    assert caught.value.reason == Reason.QUEUE_FULL
    made.batcher.start()
    assert await waiting == ["before"]
    await made.batcher.aclose()


@given(st.text(max_size=4000))
def test_it_is_never_more_than_the_model_reads(text: str) -> None:
    assert 1 <= guessed_tokens(text, 256) <= 256
    assert guessed_tokens(text, 256) <= 1 + len(text) // 5
