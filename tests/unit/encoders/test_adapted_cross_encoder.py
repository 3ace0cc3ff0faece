"""Cross-encoders that are adapters: scores, what they are told apart by, and other uses refused."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.adapters import tiny_adapter, tiny_tensors
from support.deployables import ROOT
from support.models import MINILM, TEXTS, exports, tiny_encoder

from encoders.adapters import DOWN, HEAD_BIAS, HEAD_WEIGHT, UP, write_adapter
from encoders.cross_encoder import CrossEncoderScorer
from encoders.embedding import load_embedding_model
from encoders.encoder import Encoder
from encoders.export import Export, cache_key, make_export
from encoders.identity import fingerprint
from encoders.location import ModelUnusableError, locate
from encoders.options import BackendName, Precision, Runtime
from encoders.reading import load_passage_reader
from encoders.scoring import PairScorer, engine_of, load_pair_scorer
from encoders.self_check import LONGER, SENTENCE, SelfCheckFailedError, check_scoring
from encoders.self_check import QUESTION as SELF_CHECK_QUESTION

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("exports_made_here"),
]

QUESTION = "How does Rust ensure memory safety?"
LONG_QUESTION = "Which of these words is it? " * 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross-encoder")
    return tiny_adapter(folder / "tiny.safetensors", base, "cross_encoder")


def load(
    name: str | Path, backend: BackendName = "torch", precision: Precision = "fp32"
) -> PairScorer:
    return load_pair_scorer(str(name), Runtime(backend, precision, 2, exports()))


def scores(scorer: PairScorer, query: str, passages: Sequence[str]) -> list[float]:
    return scorer.score(scorer.prepare(query, passages).pairs)


def expected_scores(base: Path, query: str) -> NDArray[np.float32]:
    """By torch, one pair at a time: W + B A, and the head over [CLS]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tensors = {key: torch.from_numpy(value) for key, value in tiny_tensors("cross_encoder").items()}
    bert = AutoModel.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = []
    with torch.inference_mode():
        for key in [key for key in tensors if key.endswith(f".{DOWN}")]:
            name = key.removesuffix(f".{DOWN}")
            bert.get_parameter(f"{name}.weight").add_(tensors[f"{name}.{UP}"] @ tensors[key])
        for text in TEXTS:
            row = tokenizer(query, text, truncation=True, max_length=48, return_tensors="pt")
            first = bert(**row).last_hidden_state[0, 0]
            logit = tensors[HEAD_WEIGHT][0] @ first + tensors[HEAD_BIAS][0]
            found.append(1 / (1 + np.exp(-logit.item())))
    return np.array(found, np.float32)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("query", "truncated"), [(QUESTION, [4, 5]), (LONG_QUESTION, list(range(6)))]
)
def test_scores_are_the_heads_over_the_first_adapted_state(
    base: Path, adapter: Path, backend: BackendName, query: str, truncated: list[int]
) -> None:
    expected = expected_scores(base, query)
    assert np.ptp(expected) > 0.05, "scores that differ are needed to compare"
    scorer = load(adapter, backend)
    assert isinstance(scorer, CrossEncoderScorer)
    assert (scorer.engine, scorer.identity.name) == ("cross_encoder", "tiny")
    assert scorer.description.endswith("fp32, 2 threads, cross-encoder")
    assert (scorer.identity.dimension, scorer.identity.max_tokens) == (0, 48)
    check_scoring(scorer)
    prepared = scorer.prepare(query, TEXTS)
    assert (prepared.truncated, prepared.query_truncated) == (truncated, False)
    np.testing.assert_allclose(scorer.score(prepared.pairs), expected, atol=1e-5)
    scorer.close()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_bf16_scores_about_the_same(base: Path, adapter: Path, backend: BackendName) -> None:
    coarse = load(adapter, backend, "bf16")
    check_scoring(coarse)
    found = scores(coarse, QUESTION, TEXTS)
    np.testing.assert_allclose(found, expected_scores(base, QUESTION), atol=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_head_is_computed_in_float32(base: Path, tmp_path: Path, precision: Precision) -> None:
    # In bfloat16 this logit, or the score, would be off in the third place.
    head = {HEAD_WEIGHT: np.zeros((1, 32)), HEAD_BIAS: np.array([np.log(0.7001 / 0.2999)])}
    path = tmp_path / "constant.safetensors"
    tensors = tiny_tensors("cross_encoder") | head
    write_adapter(path, tensors, kind="cross_encoder", base=str(base))
    found = scores(load(path, "torch", precision), QUESTION, TEXTS)
    np.testing.assert_allclose(found, 0.7001, atol=1e-6)


def test_rows_of_several_queries_share_a_batch(adapter: Path) -> None:
    scorer = load(adapter)
    mine, theirs = (scorer.prepare(asked, TEXTS).pairs for asked in (QUESTION, "What is a crab?"))
    together = scorer.score([row for pair in zip(mine, theirs, strict=True) for row in pair])
    np.testing.assert_allclose(together[::2], scorer.score(mine), atol=1e-5)
    np.testing.assert_allclose(together[1::2], scorer.score(theirs), atol=1e-5)


def test_a_score_that_is_no_number_is_an_error(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "run", lambda _, batch: np.full(len(batch), np.nan, np.float32))
    with pytest.raises(FloatingPointError):
        scores(load(adapter), QUESTION, TEXTS)


def test_the_engine_is_what_the_adapter_says(base: Path, adapter: Path, tmp_path: Path) -> None:
    late = tiny_adapter(tmp_path / "late.safetensors", base, "late_interaction")
    assert engine_of(locate(str(adapter))) == "cross_encoder"
    assert engine_of(locate(str(late))) == "late_interaction"
    # The models under them are embedding models all the same.
    assert engine_of(locate(str(base))) == engine_of(locate(MINILM)) == "late_interaction"


def test_it_is_told_apart_by_its_use_and_its_numbers(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    other = tiny_adapter(tmp_path / "other.safetensors", base, "cross_encoder", seed=1)
    again = tiny_adapter(tmp_path / "again.safetensors", base, "cross_encoder")
    named = [fingerprint(locate(str(path)), kind="cross_encoder") for path in (adapter, other)]
    assert len({*named, fingerprint(locate(str(base)), kind="cross_encoder")}) == 3
    assert fingerprint(locate(str(again)), kind="cross_encoder") == named[0]
    assert load(adapter).identity.fingerprint == named[0]


def test_its_export_says_all_that_a_worker_needs(adapter: Path, tmp_path: Path) -> None:
    files = locate(str(adapter))
    folder = make_export(files, "cross_encoder", tmp_path)
    assert folder.name == cache_key(fingerprint(files, kind="cross_encoder"))
    blueprint = Export(folder).blueprint
    assert (blueprint.kind, blueprint.dimension, blueprint.max_tokens) == ("cross_encoder", 0, 48)
    assert blueprint.inputs == ("input_ids", "attention_mask", "token_type_ids")
    # The base's own prefix is for questions by themselves.
    assert {name: prompt.text for name, prompt in blueprint.prompts.items()} == {"query": ""}


def test_it_is_for_no_other_setting(base: Path, adapter: Path, tmp_path: Path) -> None:
    runtime = Runtime("openvino", "fp32", 2, exports())
    said = r"^tiny scores passages as a cross-encoder: it is for RERANKER_MODEL alone$"
    with pytest.raises(ModelUnusableError, match=said):
        load_embedding_model(str(adapter), runtime)
    with pytest.raises(ModelUnusableError, match=said):
        load_passage_reader(str(adapter), runtime)
    with pytest.raises(ModelUnusableError, match=said):
        make_export(locate(str(adapter)), "late_interaction", tmp_path)
    late = tiny_adapter(tmp_path / "late.safetensors", base, "late_interaction")
    with pytest.raises(ModelUnusableError, match="late scores passages by late interaction: it is"):
        make_export(locate(str(late)), "cross_encoder", tmp_path)


def test_what_a_shipped_one_gives_is_stored_and_checked(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, golden = tmp_path / "trained", tmp_path / "golden"
    monkeypatch.setattr("encoders.location.TRAINED", trained)
    monkeypatch.setattr("encoders.self_check.GOLDEN", golden)
    for folder in (trained, golden):
        folder.mkdir()
    tiny_adapter(trained / "reranker.safetensors", base, "cross_encoder")
    runpy.run_path(str(ROOT / "scripts" / "golden.py"), run_name="__main__")
    scorer = load("production-rag/reranker", "openvino")
    assert scorer.identity.name == "production-rag/reranker"
    stored = golden / f"{scorer.identity.fingerprint}.npy"
    assert list(golden.iterdir()) == [stored]
    found = scores(scorer, SELF_CHECK_QUESTION, [SENTENCE, LONGER])
    np.testing.assert_allclose(np.load(stored), found, atol=1e-5)
    check_scoring(scorer)
    np.save(stored, np.load(stored) + np.float32(0.01))
    with pytest.raises(SelfCheckFailedError, match=r"a score is 0.0100 off the stored one"):
        check_scoring(scorer)
