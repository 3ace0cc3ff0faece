"""The generator worker over a real socket, with a reader beside the embedding model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry
from rag.generator.v1 import generator_pb2
from support.generator import (
    IDENTITY,
    READER_IDENTITY,
    WordModel,
    WordReader,
    ask,
    collect,
    generator,
)

from encoders.reading import Reading
from generator_worker.engines import extractive
from generator_worker.markdown import MAX_PASSAGE_CHARACTERS
from runtime.answers import NO_ANSWER
from runtime.errors import Reason, ServiceError

QUESTION = "Which tool manages Rust projects?"
PASSAGES = (
    "# Cargo\n\nCargo is the tool that manages Rust projects. It builds code. It is old.",
    "Bananas are yellow. They grow in warm countries.",
)
READER = WordReader(frozenset({"1991", "Linus", "Torvalds"}))
HISTORY = (
    "# Linux\n\nLinux is a *kernel*. It came in 1991. It is written in C.",
    "🐧 is the mark. The kernel Linux is by Linus Torvalds. He lives now.",
)


@pytest.fixture
def model() -> WordModel:
    return WordModel()


def texts_of(completion: generator_pb2.Completion, passages: Sequence[str]) -> list[str]:
    return [passages[span.passage][span.start : span.end] for span in completion.spans]


async def test_with_a_reader_the_sentence_that_holds_the_span_answers_and_it_is_marked(
    model: WordModel,
) -> None:
    async with generator(model, READER, ready=False) as (stub, running):
        started = await running.ready()
        # By words alone the first sentence would answer.
        pieces, completion = await collect(
            stub.GenerateAnswer(ask("When was Linux a kernel?", HISTORY[0]), timeout=10)
        )
    assert pieces == ["It came in 1991. [1]"]
    assert texts_of(completion, HISTORY) == ["1991"]
    assert completion.model == "words and words-reader"
    assert started == "extractive over words and a reader of words (LM_MODEL is not set)"


async def test_models_that_the_weights_were_not_fitted_with_are_warned_of(
    model: WordModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    monkeypatch.setattr(extractive, "EMBEDDER", IDENTITY.fingerprint)
    async with generator(model, READER):
        pass
    (warning,) = warnings()
    assert "bench.answer_evidence" in warning
    caplog.clear()
    monkeypatch.setattr(extractive, "READER", READER_IDENTITY.fingerprint)
    async with generator(model, READER):
        pass
    async with generator(model):
        pass
    assert warnings() == []


async def test_several_passages_are_marked_in_characters(model: WordModel) -> None:
    async with generator(model, READER) as (stub, _):
        pieces, completion = await collect(
            stub.GenerateAnswer(ask("Who made Linux and when?", *HISTORY), timeout=10)
        )
    assert "".join(pieces) == ("It came in 1991. [1] The kernel Linux is by Linus Torvalds. [2]")
    assert texts_of(completion, HISTORY) == ["1991", "Linus Torvalds"]
    assert [span.passage for span in completion.spans] == [0, 1]


async def test_what_the_reader_finds_nowhere_is_not_answered(model: WordModel) -> None:
    async with generator(model, WordReader()) as (stub, _):
        pieces, completion = await collect(
            stub.GenerateAnswer(ask(QUESTION, *PASSAGES), timeout=10)
        )
    assert pieces == [NO_ANSWER]
    assert (completion.answered, list(completion.spans)) == (False, [])


async def test_of_a_passage_of_any_length_the_reader_gets_what_sentences_come_from(
    model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    prepare = WordReader.prepare

    def noting(self: WordReader, question: str, passages: Sequence[str]) -> list[Reading]:
        given.extend(len(passage) for passage in passages)
        return prepare(self, question, passages)

    monkeypatch.setattr(WordReader, "prepare", noting)
    passage = "Linux came in 1991. " + "It is a kernel. " * 3000
    async with generator(model, WordReader(frozenset({"1991"}))) as (stub, _):
        _, completion = await collect(stub.GenerateAnswer(ask(QUESTION, passage), timeout=10))
    assert given[-1] == MAX_PASSAGE_CHARACTERS  # after the texts of the self-check
    assert texts_of(completion, [passage]) == ["1991"]


async def test_a_reader_that_fails_takes_the_worker_out(model: WordModel) -> None:
    reader = WordReader(READER.answers)
    async with generator(model, reader, max_model_failures=1) as (stub, _):
        reader.error = OSError("/secret/path")
        for reason in (Reason.MODEL_FAILED, Reason.UNAVAILABLE):
            with pytest.raises(ServiceError) as caught:
                await collect(stub.GenerateAnswer(ask(QUESTION, *PASSAGES), timeout=10))
            assert caught.value.reason is reason
    assert reader.closed
    assert model.closed


async def test_the_readers_queue_has_metrics_of_its_own(
    model: WordModel, registry: CollectorRegistry
) -> None:
    async with generator(model, READER, registry=registry) as (stub, _):
        await collect(stub.GenerateAnswer(ask(QUESTION, *["Words of a passage."] * 10), timeout=10))
    items = {"lane": "interactive"}
    assert registry.get_sample_value("rag_reader_batch_items_total", items) == 8
    assert registry.get_sample_value("rag_batch_items_total", items) is not None
