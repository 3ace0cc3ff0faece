"""What is shown of many passages, over both stores: with filters, and in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.gateway import FakeVectors, Parts
from support.store import MODEL, put, soon, vector_of, version

from gateway.pipeline import Policy, QuestionVector
from gateway.schemas import SearchRequest
from gateway.search.points import Points
from gateway.search.search import Search
from runtime.deadline import Deadline

Store = tuple[Points, str]


class Vectors(FakeVectors):
    """The store's own vectors, whatever the model is."""

    async def question(self, text: str, fingerprint: str, deadline: Deadline) -> QuestionVector:
        return QuestionVector(np.asarray(vector_of(text), np.float32), cut=False, cache_hit=False)


async def shown(search: Search, collection: str, per_document: int, **ask: Any) -> list[str]:
    parts = Parts(vectors=Vectors(), policy=Policy(collection, 2.0, 30, 10, per_document))
    parts.search = search  # type: ignore[assignment]
    parts.reranker.values = [0.9 - at / 100 for at in range(60)]
    pipeline = parts.joined(parts.policy)
    found = await pipeline.find_passages(SearchRequest(query="drop glue", **ask), soon())
    scores = [source.score for source in found.sources]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    return [source.document_id for source in found.sources]


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("mode", ["hybrid", "sparse", "dense"])
async def test_a_document_has_its_share_of_what_the_filter_lets_through(
    search: Search, store: Store, mode: str, rerank: bool
) -> None:
    _, collection = store
    await search.claim(collection, MODEL, soon())
    many = [f"drop glue drop glue {number}" for number in range(12)]
    await put(search, collection, version("long", *many, team="red"))
    for name in "bcd":
        await put(search, collection, version(name, f"drop glue of {name} and others", team="red"))
    for name in ("copy1", "copy2"):
        await put(search, collection, version(name, "drop glue, word for word", team="red"))
    await put(search, collection, version("other", "drop glue drop glue", team="blue"))

    ask = {"mode": mode, "rerank": rerank, "filter": {"team": "red"}}
    five = await shown(search, collection, 2, top_k=5, **ask)
    assert five.count("long") <= 2
    assert len({"copy1", "copy2"}.intersection(five)) <= 1
    assert len(five) == 5
    # More than there is that is new: the surplus fills up, and still nothing of another team.
    every = await shown(search, collection, 2, top_k=17, **ask)
    assert every.count("long") == 12
    assert {*every} == {"long", "b", "c", "d", "copy1", "copy2"}
