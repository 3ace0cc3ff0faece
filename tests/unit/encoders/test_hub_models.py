"""Models in the formats of the hub's families: what they compute, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import hub_models
from support.hub_models import MAX_TOKENS, change_json
from support.models import TEXTS, exports

from encoders.blueprint import Kind
from encoders.embedding import load_embedding_model
from encoders.export import make_export
from encoders.identity import fingerprint
from encoders.location import ModelUnusableError, locate
from encoders.options import BackendName, Runtime
from encoders.scoring import load_pair_scorer
from encoders.self_check import check_embedding, check_scoring

# Libraries of others warn of their own deprecations while they load.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)

QUESTION = "How does Rust ensure memory safety?"
# Both texts of a pair are too long: each is cut.
LONG_QUESTION = "Why does a borrow checker check what is borrowed? " * 12
BACKENDS: tuple[BackendName, ...] = ("torch", "openvino")


def ready(folder: Path, kind: Kind, backend: BackendName) -> Runtime:
    """An export is made here and not in a child, which would load torch once more."""
    if backend == "openvino":
        make_export(locate(str(folder)), kind, exports())
    return Runtime(backend, "fp32", 2, exports())


@pytest.mark.parametrize(
    "family",
    [
        hub_models.ms_marco,
        hub_models.old_bert,
        hub_models.bge_reranker,
        hub_models.gte_reranker,
        hub_models.mxbai_reranker,
    ],
    ids=lambda family: family.__name__,
)
def test_a_familys_scores_are_the_sigmoid_of_its_librarys(
    family: Callable[[Path], Path], tmp_path: Path
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    folder = family(tmp_path / "reranker")
    theirs = CrossEncoder(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}
    )
    asked = [(question, text) for question in (QUESTION, LONG_QUESTION) for text in TEXTS]
    expected = theirs.predict(asked, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
    assert expected.max() - expected.min() > 0.05, "scores that differ are needed to compare"
    for backend in BACKENDS:
        scorer = load_pair_scorer(str(folder), ready(folder, "cross_encoder", backend))
        assert (scorer.engine, scorer.identity.max_tokens) == ("cross_encoder", MAX_TOKENS)
        check_scoring(scorer)
        prepared = [scorer.prepare(question, TEXTS) for question in (QUESTION, LONG_QUESTION)]
        assert prepared[0].truncated[-2:] == [4, 5]
        assert prepared[1].truncated == [0, 1, 2, 3, 4, 5]
        pairs = [pair for one in prepared for pair in one.pairs]
        np.testing.assert_allclose(scorer.score(pairs), expected, atol=1e-5)
        # What else is in the batch, and how much padding with it, changes nothing.
        alone = [scorer.score([pair])[0] for pair in pairs]
        np.testing.assert_allclose(alone, expected, atol=1e-5)
        scorer.close()


@pytest.mark.parametrize(
    ("pooling", "prompts"),
    [("cls", None), ("mean_tokens", {"query": "query: ", "document": "passage: "})],
)
def test_an_embedding_model_of_older_files_is_as_its_library_says(
    pooling: str, prompts: dict[str, str] | None, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = hub_models.bge(tmp_path / "bge", pooling=pooling, prompts=prompts)
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    queries, passages = theirs.encode_query(TEXTS), theirs.encode_document(TEXTS)
    assert (np.abs(queries - passages).max() > 0.01) == bool(prompts)
    for backend in BACKENDS:
        ours = load_embedding_model(str(folder), ready(folder, "embedding", backend))
        assert ours.normalised
        check_embedding(ours)
        np.testing.assert_allclose(ours.encode(TEXTS, "query"), queries, atol=1e-5)
        np.testing.assert_allclose(ours.encode(TEXTS, "passage"), passages, atol=1e-5)
        ours.close()


def test_prefixes_that_are_added_make_another_model(tmp_path: Path) -> None:
    folder = hub_models.bge(tmp_path / "e5", pooling="mean_tokens")
    before = fingerprint(locate(str(folder)), kind="embedding")
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert fingerprint(locate(str(folder)), kind="embedding") != before


def test_a_tokenizer_without_a_limit_is_cut_where_positions_end(tmp_path: Path) -> None:
    folder = hub_models.bge_reranker(tmp_path / "reranker", limit=int(1e30))
    scorer = load_pair_scorer(str(folder), Runtime("torch", "fp32", 2))
    # The table has two more, which stand for padding.
    assert scorer.identity.max_tokens == MAX_TOKENS
    scores = scorer.score(scorer.prepare(QUESTION, TEXTS).pairs)
    assert len(set(scores)) == len(TEXTS)


def two_labels(folder: Path) -> None:
    """As models for natural language inference have more than one."""
    change_json(
        folder / "config.json",
        {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}},
    )
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = torch.cat([tensors[name]] * 2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def one_layer_more(folder: Path) -> None:
    change_json(folder / "config.json", {"num_hidden_layers": 3})


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def no_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def code_of_its_own(folder: Path) -> None:
    """As nomic-embed, jina-reranker-v2 and gte-multilingual have it."""
    names = {"AutoConfig": "theirs.Config", "AutoModelForSequenceClassification": "theirs.Model"}
    change_json(folder / "config.json", {"model_type": "theirs", "auto_map": names})
    (folder / "theirs.py").write_text("raise SystemExit('code from the hub was run')")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (two_labels, "reranker gives 2 labels a pair; one is needed"),
        (
            one_layer_more,
            r"the weights of reranker are not those .*no bert.encoder.layer.2.*\.\.\.",
        ),
        (cut, "reranker cannot be loaded: SafetensorError: "),
        (no_vocabulary, "reranker has no vocabulary; its tokenizer.json belongs"),
        (code_of_its_own, "reranker needs Python code from its own repository, which is never"),
    ],
)
def test_a_model_that_would_give_noise_is_refused(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = hub_models.ms_marco(tmp_path / "reranker")
    spoil(folder)
    with pytest.raises(ModelUnusableError, match=said):
        load_pair_scorer(str(folder), Runtime("torch", "fp32", 2))


def test_a_language_model_is_no_reranker(tmp_path: Path) -> None:
    folder = hub_models.language_model(tmp_path / "llm")
    with pytest.raises(ModelUnusableError, match="llm is a language model that does not say"):
        load_pair_scorer(str(folder), Runtime("torch", "fp32", 2))


def test_a_reranker_is_no_embedding_model(tmp_path: Path) -> None:
    folder = hub_models.ms_marco(tmp_path / "reranker")
    with pytest.raises(ModelUnusableError, match="reranker scores pairs.*for RERANKER_MODEL"):
        load_embedding_model(str(folder), Runtime("torch", "fp32", 2))


def test_a_model_that_openvino_cannot_take_says_why_in_a_line(tmp_path: Path) -> None:
    """The export runs in a child; what it said last is what one reads."""
    folder = hub_models.ms_marco(tmp_path / "reranker")
    one_layer_more(folder)
    with pytest.raises(ModelUnusableError, match="exported for OpenVINO: the weights of reranker"):
        load_pair_scorer(str(folder), Runtime("openvino", "fp32", 2, tmp_path / "cache"))
