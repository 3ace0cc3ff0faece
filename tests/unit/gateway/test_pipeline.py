"""The story of one question, and every way it degrades."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import COMPLETION, Parts, hit

from gateway.embedders import mismatch
from gateway.fusion import fuse
from gateway.pipeline import Finished, Found, Policy
from gateway.schemas import QueryRequest, SearchRequest
from gateway.search.types import Hit
from runtime.answers import NO_ANSWER
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


@pytest.fixture
def parts() -> Parts:
    return Parts()


def lost(reason: Reason) -> ServiceError:
    return ServiceError(reason, "lost", 1.0, field="texts[0]")


async def find(parts: Parts, budget_s: float = 10, **fields: Any) -> Found:
    ask = SearchRequest(**({"query": "  why   so? "} | fields))
    return await parts.pipeline.find_passages(ask, Deadline.after(budget_s))


async def answer(parts: Parts, **fields: Any) -> tuple[Found, str, Finished]:
    ask = QueryRequest(**({"query": "why?"} | fields))
    found, *rest = [p async for p in parts.pipeline.answer_query(ask, Deadline.after(10))]
    assert isinstance(found, Found)
    *pieces, end = rest
    assert isinstance(end, Finished)
    return found, "".join(str(piece) for piece in pieces), end


async def test_every_stage_runs_on_the_normalised_question(parts: Parts) -> None:
    found = await find(parts, filter={"language": "en"}, top_k=2)
    assert parts.vectors.calls[0]["text"] == "why so?"
    assert parts.vectors.calls[0]["fingerprint"] == "a" * 64
    searched = parts.search.calls[0]
    assert (searched["text"], searched["mode"], searched["limit"]) == ("why so?", "hybrid", 30)
    assert searched["collection"] == "documents"
    # For the store to compare with whatever generation it searches in the end.
    assert searched["fingerprint"] == "a" * 64
    assert searched["where"].must[0].key == "language"
    assert parts.reranker.calls[0]["passages"] == ["text of a", "text of b", "text of c"]
    assert set(found.timings_ms) == {"embed", "search", "rerank"}
    assert (found.embedder, found.reranker) == (
        "all-MiniLM-L6-v2@aaaaaaaa",
        "late@bbbbbbbb",
    )
    assert found.degraded == []


async def test_the_reranker_and_retrieval_are_fused(parts: Parts) -> None:
    found = await find(parts)
    # c is third by retrieval and first by the reranker, a the other way round: both have
    # 1/12 + 1/10, and the reranker decides.
    assert [source.document_id for source in found.sources] == ["c", "a", "b"]
    assert found.sources[0].scores.rerank == 0.9
    scores = [source.score for source in found.sources]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx((1 / 10 + 1 / 12) / (2 / 10))


def test_documents_are_fused_whichever_of_their_passages_each_order_prefers() -> None:
    # By retrieval a's first passage comes second, by the reranker its last one comes first.
    documents = ["b", "a", "c", "a"]
    (first, score), *_ = fuse([0.1, 0.2, 0.3, 0.9], documents, 10)
    assert documents[first] == "a"
    assert score == pytest.approx((1 / 11 + 1 / 10) / (2 / 10))


async def test_without_fusion_the_reranker_decides_alone(parts: Parts) -> None:
    parts.pipeline = parts.joined(Policy("documents", 2.0, 30, None))
    found = await find(parts)
    assert [source.document_id for source in found.sources] == ["c", "b", "a"]
    assert [source.score for source in found.sources] == [0.9, 0.2, 0.1]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), max_size=40),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_fused_scores_are_in_range_and_never_increase(
    passages: list[tuple[float, str]], k: int | None
) -> None:
    scores, documents = [score for score, _ in passages], [name for _, name in passages]
    fused = fuse(scores, documents, k)
    assert sorted(position for position, _ in fused) == list(range(len(scores)))
    values = [score for _, score in fused]
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= 1 for value in values)


async def test_without_rerank_the_order_is_that_of_retrieval(parts: Parts) -> None:
    found = await find(parts, rerank=False, top_k=2)
    assert [(s.document_id, s.score, s.scores.rerank) for s in found.sources] == [
        ("a", 0.9, None),
        ("b", 0.8, None),
    ]
    assert parts.search.calls[0]["limit"] == 2
    assert parts.reranker.calls == []
    assert found.reranker is None


def of_documents(names: str) -> list[Hit]:
    """A hit for each letter, its document; scores fall by .01."""
    return [
        replace(hit(name, 0.9 - at / 100), text=f"text {at}", chunk_id=f"{name}#{at}", ordinal=at)
        for at, name in enumerate(names)
    ]


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize(("per_document", "expected"), [(0, "aaaab"), (3, "aaabc"), (1, "abcde")])
async def test_a_document_does_not_fill_the_list(
    parts: Parts, rerank: bool, per_document: int, expected: str
) -> None:
    parts.search.hits = of_documents("aaaabcdeeeeeeeee")
    # As retrieval orders them, and not fused, which would spread documents by itself.
    parts.reranker.values = [0.9 - at / 100 for at in range(30)]
    parts.pipeline = parts.joined(Policy("documents", 2.0, 30, None, per_document))
    found = await find(parts, top_k=5, rerank=rerank)
    assert "".join(source.document_id for source in found.sources) == expected
    scores = [source.score for source in found.sources]
    assert scores == sorted(scores, reverse=True)
    # Others are looked for only where some may be left out.
    wanted = 5 if per_document == 0 else 15
    assert parts.search.calls[0]["limit"] == (max(wanted, 30) if rerank else wanted)


async def test_the_reranker_reads_no_more_because_of_it(parts: Parts) -> None:
    parts.search.hits = of_documents("a" * 20 + "bcdefghij" * 10)
    parts.reranker.values = [0.5] * 50
    parts.pipeline = parts.joined(Policy("documents", 2.0, 30, 10, 2))
    found = await find(parts, top_k=20)
    assert parts.search.calls[0]["limit"] == 60
    assert len(parts.reranker.calls[0]["passages"]) == 30
    names = [source.document_id for source in found.sources]
    assert len(names) == 20
    assert names.count("a") == 2


async def test_a_lost_reranker_leaves_documents_their_share(parts: Parts) -> None:
    parts.search.hits = of_documents("aaaabcde")
    parts.reranker.error = lost(Reason.RERANKER_UNAVAILABLE)
    parts.pipeline = parts.joined(Policy("documents", 2.0, 30, 10, 1))
    found = await find(parts, top_k=3)
    assert [source.document_id for source in found.sources] == ["a", "b", "c"]
    assert found.degraded == ["rerank"]


async def test_sparse_needs_no_vector(parts: Parts) -> None:
    parts.vectors.error = lost(Reason.EMBEDDER_UNAVAILABLE)
    found = await find(parts, mode="sparse")
    assert parts.vectors.calls == []
    assert parts.search.calls[0]["vector"] is None
    assert found.degraded == []


@pytest.mark.parametrize("reason", [Reason.EMBEDDER_UNAVAILABLE, Reason.DEADLINE_EXCEEDED])
async def test_hybrid_without_the_embedder_is_bm25_alone(parts: Parts, reason: Reason) -> None:
    parts.vectors.error = lost(reason)
    found = await find(parts)
    assert found.degraded == ["dense"]
    assert parts.search.calls[0]["vector"] is None
    assert parts.registry.get_sample_value("rag_degraded_total", {"stage": "dense"}) == 1
    with pytest.raises(ServiceError) as caught:
        await find(parts, mode="dense")
    assert caught.value.reason is reason


@pytest.mark.parametrize("reason", [Reason.QUEUE_FULL, Reason.MODEL_FAILED, Reason.MODEL_MISMATCH])
async def test_an_embedder_that_is_there_but_cannot_is_an_error(
    parts: Parts, reason: Reason
) -> None:
    parts.vectors.error = lost(reason)
    with pytest.raises(ServiceError) as caught:
        await find(parts)
    assert caught.value.reason is reason


async def test_the_model_that_no_embedder_holds_is_named(parts: Parts) -> None:
    parts.vectors.error = mismatch("a" * 64, [])
    with pytest.raises(ServiceError) as caught:
        await find(parts)
    assert caught.value.message.startswith("The collection's model is all-MiniLM-L6-v2@aaaaaaaa. ")
    assert "(fingerprint aaaaaaaa)" in caught.value.message


async def test_a_text_the_model_refuses_is_the_query(parts: Parts) -> None:
    parts.vectors.error = lost(Reason.INVALID_ARGUMENT)
    with pytest.raises(ServiceError) as caught:
        await find(parts)
    assert caught.value.metadata == {"field": "query"}


async def test_a_question_cut_is_said_so(parts: Parts) -> None:
    parts.vectors.cut = True
    assert (await find(parts)).degraded == ["query_truncated"]


@pytest.mark.parametrize(
    "reason", [Reason.RERANKER_UNAVAILABLE, Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED]
)
async def test_without_the_reranker_the_order_of_retrieval_stays(
    parts: Parts, reason: Reason
) -> None:
    parts.reranker.error = lost(reason)
    found = await find(parts, top_k=2)
    assert found.degraded == ["rerank"]
    assert [source.document_id for source in found.sources] == ["a", "b"]
    assert all(source.scores.rerank is None for source in found.sources)


async def test_a_reranker_that_answers_nonsense_is_an_error(parts: Parts) -> None:
    parts.reranker.error = lost(Reason.MODEL_FAILED)
    with pytest.raises(ServiceError) as caught:
        await find(parts)
    assert caught.value.reason is Reason.MODEL_FAILED


async def test_no_stage_eats_what_its_fallback_needs(parts: Parts) -> None:
    await find(parts, budget_s=2)
    embed, rerank = parts.vectors.calls[0]["deadline"], parts.reranker.calls[0]["deadline"]
    assert embed.remaining_s() <= 1
    assert rerank.remaining_s() <= 1
    await find(parts, budget_s=100)
    assert parts.reranker.calls[1]["deadline"].remaining_s() <= 2
    await find(parts, budget_s=2, mode="dense")
    assert parts.vectors.calls[2]["deadline"].remaining_s() > 1.5


async def test_an_answer_is_made_from_the_sources(parts: Parts) -> None:
    found, text, end = await answer(parts, top_k=2)
    assert text == "Because of [1]."
    assert end.completion == COMPLETION
    passages = parts.generator.calls[0]["passages"]
    assert [passage.text for passage in passages] == [source.text for source in found.sources]
    assert [passage.title for passage in passages] == ["", "A"]
    assert "generate" in end.found.timings_ms


async def test_nothing_found_calls_no_generator(parts: Parts) -> None:
    parts.search.hits = ()
    found, text, end = await answer(parts)
    assert (found.sources, text, end.completion) == ([], NO_ANSWER, None)
    assert parts.generator.calls == []
    assert parts.reranker.calls == []


async def test_an_empty_collection_calls_nobody(parts: Parts) -> None:
    parts.search.model = None
    found, text, _ = await answer(parts)
    assert (found.sources, text) == ([], NO_ANSWER)
    assert parts.vectors.calls == []
    assert parts.search.calls == []


async def test_the_language_model_gone_is_said_so(parts: Parts) -> None:
    fallback = type(COMPLETION)("extractive", "MiniLM", 0, 3, True, True, False)
    parts.generator.pieces = ("text", fallback)
    _, _, end = await answer(parts)
    assert end.found.degraded == ["generate"]


async def test_the_generator_gone_is_an_error(parts: Parts) -> None:
    parts.generator.error = lost(Reason.GENERATOR_UNAVAILABLE)
    with pytest.raises(ServiceError):
        await answer(parts)


async def test_leaving_in_the_middle_reaches_the_generator(parts: Parts) -> None:
    story = parts.pipeline.answer_query(QueryRequest(query="why?"), Deadline.after(10))
    parts.generator.gate.clear()
    async with aclosing(story):
        await anext(story)
        waiting = asyncio.ensure_future(anext(story))
        while not parts.generator.calls:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert parts.generator.cancelled.is_set()
