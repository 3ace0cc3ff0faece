"""Vectors and scores against the libraries they are defined by."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from support.models import MINILM, TEXTS, exports, tiny_cross_encoder, tiny_encoder

from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.late_interaction import max_sim
from encoders.location import ModelUnusableError, locate
from encoders.openvino_backend import _choose_streams
from encoders.options import BackendName, Precision, Runtime
from encoders.scoring import load_pair_scorer
from encoders.self_check import GOLDEN, SelfCheckFailedError, check_embedding, check_scoring
from encoders.tokenizing import Tokens

# Libraries of others warn of their own deprecations while they load.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("exports_made_here"),
]

QUESTION = "How does Rust ensure memory safety?"


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(locate(MINILM).folder), device="cpu", local_files_only=True)
    vectors: np.ndarray = model.encode(TEXTS)
    return vectors


def load(backend: BackendName, precision: Precision, name: str = MINILM) -> EmbeddingModel:
    return load_embedding_model(name, Runtime(backend, precision, 2, exports()))


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_fp32_vectors_are_those_of_sentence_transformers(
    backend: BackendName, reference: np.ndarray
) -> None:
    vectors = load(backend, "fp32").encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_vectors_are_close_to_fp32(backend: BackendName, reference: np.ndarray) -> None:
    vectors = load(backend, "bf16").encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert ((vectors * reference).sum(axis=1) >= 0.999).all()


def test_truncation_is_reported_text_by_text() -> None:
    model = load("openvino", "fp32")
    tokens = model.tokenize(TEXTS, "passage")
    assert [row.truncated for row in tokens] == [False] * 5 + [True]
    assert max(len(row) for row in tokens) == model.identity.max_tokens == 256


def test_the_identity_is_the_same_whatever_computes() -> None:
    identities = {
        load(backend, precision).identity
        for backend in ("torch", "openvino")
        for precision in ("fp32", "bf16")
    }
    (identity,) = identities
    assert identity.name == MINILM
    assert identity.dimension == 384
    assert (GOLDEN / f"{identity.fingerprint}.npy").is_file(), "no vector to check it by"


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_local_model_with_prefixes_is_as_its_library_says(
    backend: BackendName, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny_encoder(tmp_path)
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ours = load(backend, "fp32", str(folder))
    assert ours.identity.name == "tiny-encoder"
    assert ours.identity.max_tokens == 48
    assert not ours.normalised
    check_embedding(ours)
    np.testing.assert_allclose(ours.encode(TEXTS, "query"), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(
        ours.encode(TEXTS, "passage"), theirs.encode_document(TEXTS), atol=1e-5
    )
    ours.close()


def test_the_default_model_needs_neither_torch_nor_network_nor_telemetry() -> None:
    load("openvino", "fp32")  # the export is there
    script = f"""
import socket, sys
def refuse(*_): raise AssertionError("the network was touched")
socket.socket.connect = refuse
from pathlib import Path
from encoders.embedding import load_embedding_model
from encoders.options import Runtime
runtime = Runtime("openvino", cache_dir=Path({str(exports())!r}))
model = load_embedding_model({MINILM!r}, runtime)
assert model.encode(["a text"]).shape == (1, 384)
print(sorted({{"torch", "transformers", "sentence_transformers"}} & sys.modules.keys()),
      sys.modules["openvino_telemetry"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[] None"


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("encoders.export.os.access", lambda *_: Path(_[0]) != tmp_path)
    model = load_embedding_model(MINILM, Runtime("openvino", cache_dir=tmp_path))
    assert model.encode(["a text"]).shape == (1, 384)
    assert list(tmp_path.iterdir()) == []
    assert "the model cache cannot be written: Permission denied" in caplog.text


def test_a_wrong_vector_fails_the_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("openvino", "fp32")
    right = model.embed
    turned = np.roll(np.eye(384, dtype=np.float32), 1, axis=0)
    monkeypatch.setattr(model, "embed", lambda batch: right(batch) @ turned)
    with pytest.raises(SelfCheckFailedError, match="cosine to the stored vector"):
        check_embedding(model)


def test_vectors_that_depend_on_the_batch_fail_the_self_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load("openvino", "fp32")
    right = model.embed
    monkeypatch.setattr(model, "embed", lambda batch: right(batch)[::-1])
    with pytest.raises(SelfCheckFailedError, match="what else is in its batch"):
        check_embedding(model)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_late_interaction_is_max_sim_over_the_token_embeddings(precision: Precision) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(locate(MINILM).folder), device="cpu", local_files_only=True)
    # [CLS] and [SEP] are the first and the last token.
    states = [
        rows.numpy()[1:-1]
        for rows in model.encode([QUESTION, *TEXTS], output_value="token_embeddings")
    ]
    query, *passages = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in states]
    expected = [
        (1 + np.mean([max(float(q @ p) for p in passage) for q in query])) / 2
        for passage in passages
    ]
    scorer = load_pair_scorer(MINILM, Runtime("openvino", precision, 2, exports()))
    assert scorer.engine == "late_interaction"
    check_scoring(scorer)
    prepared = scorer.prepare(QUESTION, TEXTS)
    assert prepared.truncated == [5]
    tolerance = 1e-5 if precision == "fp32" else 5e-3
    np.testing.assert_allclose(scorer.score(prepared.pairs), expected, atol=tolerance)


def test_pairs_of_several_queries_share_a_batch() -> None:
    scorer = load_pair_scorer(MINILM, Runtime("openvino", "fp32", 2, exports()))
    asked = [scorer.prepare(query, TEXTS[:3]).pairs for query in (QUESTION, "What is a crab?")]
    together = scorer.score([pair for pairs in zip(*asked, strict=True) for pair in pairs])
    apart = [
        scorer.score(scorer.prepare(query, TEXTS[:3]).pairs)
        for query in (QUESTION, "What is a crab?")
    ]
    np.testing.assert_allclose(together[::2], apart[0], atol=1e-5)
    np.testing.assert_allclose(together[1::2], apart[1], atol=1e-5)


def test_queries_of_a_batch_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load_pair_scorer(MINILM, Runtime("openvino", "fp32", 2, exports()))
    asked = [scorer.prepare(query, TEXTS[:3]).pairs for query in (QUESTION, "What is a crab?")]
    batches: list[int] = []
    run = scorer._encoder.run
    monkeypatch.setattr(
        scorer._encoder, "run", lambda batch: batches.append(len(batch)) or run(batch)
    )
    scorer.score([*asked[0], *asked[1]])
    scorer.score([asked[0][0], asked[1][0]])
    assert batches == [6, 2, 2]


def test_a_query_is_computed_once_for_batches_on_several_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = load_pair_scorer(MINILM, Runtime("openvino", "fp32", 2, exports(), streams=2))
    assert scorer.streams == 2
    pairs = scorer.prepare(QUESTION, TEXTS).pairs
    together, counted = Barrier(2), []
    run = scorer._encoder.run

    def counting(batch: Sequence[Tokens]) -> np.ndarray:
        if batch[0] is pairs[0].query.tokens:
            counted.append(batch)
        else:
            together.wait(10)  # both have their passages' states, and need the query's
        return run(batch)

    monkeypatch.setattr(scorer._encoder, "run", counting)
    with ThreadPoolExecutor(2) as threads:
        halves = threads.map(scorer.score, (pairs[:3], pairs[3:]))
        scores = [score for half in halves for score in half]
    assert len(counted) == 1
    monkeypatch.undo()
    expected = scorer.score(scorer.prepare(QUESTION, TEXTS).pairs)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_streams_give_the_same_vectors_side_by_side() -> None:
    model = load_embedding_model(MINILM, Runtime("openvino", "fp32", 2, exports(), streams=2))
    rows = model.tokenize(TEXTS, "passage")
    alone = [model.embed([row])[0] for row in rows]
    with ThreadPoolExecutor(3) as threads:  # one more than streams: it waits for its turn
        found = list(threads.map(lambda row: model.embed([row])[0], rows * 5))
    np.testing.assert_allclose(np.stack(found), np.stack(alone * 5), atol=1e-5)


@pytest.mark.parametrize(
    ("threads", "wanted", "streams"), [(1, 0, 1), (2, 0, 2), (2, 1, 1), (24, 0, 12), (64, 0, 16)]
)
def test_a_small_model_gets_a_stream_a_thread(threads: int, wanted: int, streams: int) -> None:
    class Shape:
        is_static = True

        def __init__(self, *sides: int) -> None:
            self.to_shape = lambda: sides

    class MatMul:
        def __init__(self, *sides: int) -> None:
            self.get_type_name = lambda: "MatMul"
            self.input_value = lambda _: self
            self.get_partial_shape = lambda: Shape(*sides)

    class Graph:
        def __init__(self, millions: int) -> None:
            self.get_ops = lambda: [MatMul(1000, 1000)] * millions

    assert _choose_streams(Graph(11), threads, wanted)[0] == streams
    # One of 300 million parameters needs twelve threads for a short question.
    assert _choose_streams(Graph(300), 24, 0)[0] == 2
    assert _choose_streams(Graph(300), 2, 0)[0] == 1


def test_max_sim_without_a_token_on_either_side_is_nought() -> None:
    nothing = np.zeros((0, 4), np.float32)
    one = np.eye(1, 4, dtype=np.float32)
    passages = np.stack([one, one])
    content = np.array([[True], [False]])
    np.testing.assert_array_equal(max_sim(nothing, None, passages, content), [0, 0])
    np.testing.assert_array_equal(max_sim(one, None, passages, content), [1, 0])


PROMPTS = {"query": "not this one: ", "rank": "does the passage answer this: "}


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize(
    "saved", [{}, {"prompts": PROMPTS}, {"prompts": PROMPTS, "default_prompt_name": "rank"}]
)
def test_a_cross_encoder_scores_as_its_library_does(
    backend: BackendName, saved: dict[str, object], tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    folder = tiny_cross_encoder(tmp_path, **saved)
    theirs = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    expected = theirs.predict([(QUESTION, text) for text in TEXTS], show_progress_bar=False)
    assert expected.max() - expected.min() > 0.01, "scores that differ are needed to compare"
    scorer = load_pair_scorer(str(folder), Runtime(backend, "fp32", 2, exports()))
    assert scorer.engine == "cross_encoder"
    check_scoring(scorer)
    prepared = scorer.prepare(QUESTION, TEXTS)
    assert prepared.truncated == [4, 5]
    np.testing.assert_allclose(scorer.score(prepared.pairs), expected, atol=1e-5)
    scorer.close()


def test_a_model_of_many_labels_is_refused_by_name(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path, labels=3)
    with pytest.raises(ModelUnusableError, match="tiny-cross-encoder gives 3 labels"):
        load_pair_scorer(str(folder), Runtime("torch", "fp32", 2, exports()))
    with pytest.raises(ModelUnusableError, match="gives 3 labels"):
        load_pair_scorer(str(folder), Runtime("openvino", "fp32", 2, exports()))
