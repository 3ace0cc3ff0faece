"""Adapters: what is written is what is read and merged, and used for what it was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from support.adapters import Tensors, tiny_adapter, tiny_tensors
from support.models import TEXTS, exports

from encoders import export
from encoders.adapters import DOWN, UP, WORD_WEIGHTS, merge, read_adapter, write_adapter
from encoders.embedding import load_embedding_model
from encoders.identity import fingerprint
from encoders.location import ModelUnusableError, locate, read_header
from encoders.options import BackendName, Runtime
from encoders.reading import load_passage_reader
from encoders.scoring import load_pair_scorer
from encoders.self_check import check_scoring

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("exports_made_here"),
]

QUESTION = "How does Rust ensure memory safety?"


class Beside(torch.nn.Module):
    """W x + b + B A x: the adapter where it was trained, beside the map."""

    def __init__(self, linear: torch.nn.Linear, tensors: Tensors, name: str) -> None:
        super().__init__()
        self.linear = linear
        self.down = torch.from_numpy(tensors[f"{name}.{DOWN}"])
        self.up = torch.from_numpy(tensors[f"{name}.{UP}"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.linear(x) + x @ self.down.T @ self.up.T
        return added


def test_merged_gives_what_the_adapter_gives_beside_the_base(base: Path, scorer: Path) -> None:
    from transformers import AutoModel

    tensors = tiny_tensors("late_interaction")
    apart = AutoModel.from_pretrained(base).eval()
    merged = AutoModel.from_pretrained(base).eval()
    adapter = merge(locate(str(scorer)), merged)
    assert adapter is not None
    assert adapter.head is adapter.word_weights is None
    ids = torch.arange(1000, 1024).reshape(2, 12)
    with torch.inference_mode():
        plain = apart(input_ids=ids).last_hidden_state
        for name in {key.rpartition(".")[0] for key in tensors}:
            parent, _, leaf = name.rpartition(".")
            beside = Beside(apart.get_submodule(name), tensors, name)
            setattr(apart.get_submodule(parent), leaf, beside)
        expected = apart(input_ids=ids).last_hidden_state
        found = merged(input_ids=ids).last_hidden_state
    assert (expected - plain).abs().max() > 0.1, "an adapter that shows is needed to compare"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def scores(name: Path, backend: BackendName) -> list[float]:
    model = load_pair_scorer(str(name), Runtime(backend, "fp32", 2, exports()))
    assert (model.engine, model.identity.name) == ("late_interaction", name.stem)
    assert model.identity.max_tokens == 48
    check_scoring(model)
    return model.score(model.prepare(QUESTION, TEXTS).pairs)


def test_an_adapted_scorer_gives_the_same_whatever_computes(base: Path, scorer: Path) -> None:
    found = scores(scorer, "openvino")
    np.testing.assert_allclose(found, scores(scorer, "torch"), atol=1e-5)
    assert np.abs(np.subtract(found, scores(base, "torch"))).max() > 0.01


def unit(states: NDArray[np.float32]) -> NDArray[np.float32]:
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def test_tokens_of_a_query_count_as_much_as_the_adapter_says(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    table = np.random.default_rng(1).uniform(0.1, 9, len(tokenizer))
    path = tmp_path / "weighed.safetensors"
    tensors = tiny_tensors("late_interaction") | {WORD_WEIGHTS: table}
    write_adapter(path, tensors, kind="late_interaction", base=str(base))
    bert = AutoModel.from_pretrained(base).eval()
    merge(locate(str(path)), bert)

    def states(text: str) -> NDArray[np.float32]:
        row = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")
        with torch.inference_mode():  # [CLS] and [SEP] are the first and the last token
            found: NDArray[np.float32] = bert(**row).last_hidden_state[0, 1:-1].numpy()
        return found

    asked = states(QUESTION)
    weights = table[tokenizer(QUESTION)["input_ids"][1:-1]]
    expected = [
        (1 + np.average((unit(asked) @ unit(states(text)).T).max(axis=1), weights=weights)) / 2
        for text in TEXTS
    ]
    assert weights.max() > 2 * weights.min()
    np.testing.assert_allclose(scores(path, "torch"), expected, atol=1e-5)
    np.testing.assert_allclose(scores(path, "openvino"), expected, atol=1e-5)


def test_the_adapter_is_part_of_what_tells_models_apart(
    base: Path, scorer: Path, tmp_path: Path
) -> None:
    other = tiny_adapter(tmp_path / "other.safetensors", base, "late_interaction", seed=1)
    again = tiny_adapter(tmp_path / "again.safetensors", base, "late_interaction")
    prints = [
        fingerprint(locate(str(path)), kind="late_interaction")
        for path in (base, scorer, other, again)
    ]
    assert len(set(prints)) == 3
    assert prints[1] == prints[3]
    assert scorer.read_bytes() == again.read_bytes()


def test_a_file_says_what_it_is_for(base: Path, scorer: Path) -> None:
    header = read_header(scorer)
    assert header.base == str(base)
    assert header.kind == "late_interaction"
    assert header.base_fingerprint == fingerprint(locate(str(base)), kind="embedding")
    kept = load_file(scorer)
    assert {tensor.dtype for tensor in kept.values()} == {np.dtype(np.float16)}
    for key, tensor in tiny_tensors("late_interaction").items():
        np.testing.assert_array_equal(kept[key], tensor)


def test_a_head_is_kept_as_it_is(base: Path, tmp_path: Path) -> None:
    tensors = tiny_tensors("reader") | {"head.bias": np.array([1 / 3, 1e-9], np.float32)}
    write_adapter(tmp_path / "r.safetensors", tensors, kind="reader", base=str(base))
    head = read_adapter(read_header(tmp_path / "r.safetensors")).head
    assert head is not None
    np.testing.assert_array_equal(head.bias, tensors["head.bias"])


def test_adapters_of_this_project_are_found_beside_the_code(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.location.TRAINED", tmp_path)
    with pytest.raises(ModelUnusableError, match="'production-rag/reader'; .* with no adapter"):
        locate("production-rag/reader")
    tiny_adapter(tmp_path / "reader.safetensors", base, "reader")
    files = locate("production-rag/reader")
    assert (files.name, files.folder) == ("production-rag/reader", base)
    for name in ("production-rag/writer", "production-rag/../reader", "production-rag/"):
        with pytest.raises(ModelUnusableError, match="comes with production-rag/reader"):
            locate(name)


def test_a_name_of_ours_is_asked_of_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelUnusableError, match="'production-rag/nothing'"):
        locate("production-rag/nothing")


def test_what_an_adapter_is_for_is_told_to_who_asks_for_another_use(
    base: Path, scorer: Path, tmp_path: Path
) -> None:
    reader = str(tiny_adapter(tmp_path / "reader.safetensors", base, "reader"))
    for_spans = "reader marks answers in passages: it is for READER_MODEL alone"
    runtime = Runtime("openvino", "fp32", 2, exports())
    with pytest.raises(ModelUnusableError, match=for_spans):
        load_embedding_model(reader, runtime)
    with pytest.raises(ModelUnusableError, match=for_spans):
        load_pair_scorer(reader, runtime)
    for_passages = "scorer scores passages by late interaction: it is for RERANKER_MODEL alone"
    with pytest.raises(ModelUnusableError, match=for_passages):
        load_passage_reader(str(scorer), runtime)
    with pytest.raises(ModelUnusableError, match="tiny-encoder is no reader, as production-rag/re"):
        load_passage_reader(str(base), runtime)


def test_exports_of_all_adapters_are_made_beforehand(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.location.TRAINED", tmp_path / "trained")
    (tmp_path / "trained").mkdir()
    tiny_adapter(tmp_path / "trained" / "reader.safetensors", base, "reader")
    made = tmp_path / "made"
    monkeypatch.setattr("sys.argv", ["export", "--trained", "--cache-dir", str(made)])
    export.main()
    assert [folder.name for folder in made.iterdir()] == ["reader"]

    def refuse(*_: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr("encoders.export_cache._export_in_child", refuse)
    runtime = Runtime("openvino", "fp32", 2, None, exports_dir=made / "reader")
    reader = load_passage_reader("production-rag/reader", runtime)
    assert reader.identity.name == "production-rag/reader"


def test_what_cannot_be_exported_is_one_line(
    scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["export", "--kind", "reader", "--model", str(scorer), "--cache-dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", given)
    with pytest.raises(
        SystemExit, match="scorer scores passages by late interaction: it is for RE"
    ):
        export.main()
