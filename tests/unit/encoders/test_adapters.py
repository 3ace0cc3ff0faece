"""Adapters: what is written is what is read and merged, and whatever is wrong is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from support.adapters import Tensors, tiny_adapter, tiny_tensors
from support.models import MINILM, TEXTS, exports, tiny_encoder

from encoders import export
from encoders.adapters import DOWN, UP, WORD_WEIGHTS, merge, read_adapter, write_adapter
from encoders.blueprint import Kind
from encoders.embedding import load_embedding_model
from encoders.graphs import build
from encoders.identity import fingerprint
from encoders.location import ModelFiles, ModelUnusableError, locate, read_header
from encoders.options import BackendName, Runtime
from encoders.reading import load_passage_reader
from encoders.scoring import load_pair_scorer
from encoders.self_check import check_scoring

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("exports_made_here"),
]

QUERY = "encoder.layer.0.attention.self.query"
QUESTION = "How does Rust ensure memory safety?"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def scorer(base: Path, tmp_path: Path) -> Path:
    return tiny_adapter(tmp_path / "scorer.safetensors", base, "late_interaction")


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


def without(key: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(key)


def setting(key: str, value: object) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.__setitem__(key, np.asarray(value))


WRONG: list[tuple[Kind, Callable[[Tensors], object], str]] = [
    ("late_interaction", without(f"{QUERY}.{UP}"), f"no pair of matrices for {QUERY}"),
    ("late_interaction", without(f"{QUERY}.{DOWN}"), f"holds {QUERY}.{UP}, which is unknown"),
    ("late_interaction", setting(f"{QUERY}.{UP}", np.ones((32, 3))), "no pair of matrices"),
    ("late_interaction", setting(f"{QUERY}.{UP}", np.ones(4)), "no pair of matrices"),
    ("late_interaction", setting(f"{QUERY}.{UP}", np.full((32, 4), 1e5)), "not made of finite"),
    ("late_interaction", setting(f"{QUERY}.{UP}", np.full((32, 4), np.nan)), "not made of finite"),
    ("late_interaction", setting("head.weight", np.ones((1, 32))), "holds head.weight, which is"),
    ("late_interaction", setting(WORD_WEIGHTS, np.ones((9, 2))), "not one number above 0 for"),
    ("late_interaction", setting(WORD_WEIGHTS, np.zeros(9)), "not one number above 0 for"),
    ("late_interaction", lambda tensors: tensors.clear(), "adapts nothing"),
    ("reader", without("head.bias"), "lacks head.weight or head.bias"),
    ("reader", setting("head.weight", np.ones((3, 32))), "gives not 2 a token"),
    ("reader", setting("head.bias", np.ones(3)), "gives not 2 a token"),
    ("reader", setting("other", np.ones(3)), "holds other, which is unknown"),
    ("cross_encoder", without("head.weight"), "lacks head.weight or head.bias"),
    ("cross_encoder", setting("head.weight", np.ones((2, 32))), "gives not 1 a token"),
    ("cross_encoder", setting("head.bias", np.ones(2)), "gives not 1 a token"),
]


@pytest.mark.parametrize(("kind", "spoil", "message"), WRONG)
def test_tensors_that_are_no_adapter_are_not_written(
    base: Path, tmp_path: Path, kind: Kind, spoil: Callable[[Tensors], object], message: str
) -> None:
    tensors = tiny_tensors(kind)
    spoil(tensors)
    with pytest.raises(ValueError, match=message):
        write_adapter(tmp_path / "new.safetensors", tensors, kind=kind, base=str(base))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda tensors: tensors.__setitem__(f"{QUERY}.{DOWN}", np.ones((4, 31))),
            r"has no linear map encoder.layer.0.attention.self.query of shape \(32, 31\)",
        ),
        (
            lambda tensors: tensors.update(
                {f"pooler.gate.{DOWN}": np.ones((1, 32)), f"pooler.gate.{UP}": np.ones((32, 1))}
            ),
            "has no linear map pooler.gate",
        ),
        (lambda tensors: tensors.update({"head.weight": np.ones((2, 31))}), "not as wide"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused(
    base: Path, tmp_path: Path, spoil: Callable[[Tensors], object], message: str
) -> None:
    tensors = tiny_tensors("reader")
    spoil(tensors)
    path = tmp_path / "new.safetensors"
    write_adapter(path, tensors, kind="reader", base=str(base))
    with pytest.raises(ModelUnusableError, match=f"new: .*{message}"):
        build(locate(str(path)), "reader")


def test_weights_of_other_words_than_the_bases_are_refused(base: Path, tmp_path: Path) -> None:
    tensors = tiny_tensors("late_interaction") | {WORD_WEIGHTS: np.ones(9)}
    path = tmp_path / "new.safetensors"
    write_adapter(path, tensors, kind="late_interaction", base=str(base))
    with pytest.raises(ModelUnusableError, match="new weighs 9 words, and the base knows "):
        build(locate(str(path)), "late_interaction")


def test_an_adapter_over_another_model_is_refused(base: Path, scorer: Path, tmp_path: Path) -> None:
    other = tiny_encoder(tmp_path / "other", seed=1)
    files = locate(str(scorer))
    with pytest.raises(ModelUnusableError, match="scorer was trained over .*tiny-encoder@.*, and"):
        build(ModelFiles(files.name, other, files.adapter), "late_interaction")


@pytest.mark.parametrize("size", [0, 7, 100, 9_000])
def test_a_file_that_was_cut_is_refused(scorer: Path, size: int) -> None:
    scorer.write_bytes(scorer.read_bytes()[:size])
    with pytest.raises(ModelUnusableError, match=r"the adapter scorer.safetensors cannot be read"):
        locate(str(scorer))


def test_numbers_of_another_kind_are_refused(scorer: Path, base: Path) -> None:
    header = read_header(scorer)
    said = {"base": header.base, "base_fingerprint": header.base_fingerprint, "kind": header.kind}
    whole = {key: tensor.astype(np.int32) for key, tensor in load_file(scorer).items()}
    save_file(whole, scorer, said)
    with pytest.raises(ModelUnusableError, match="is not made of finite floats"):
        build(locate(str(scorer)), "late_interaction")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_numpy_has_not_are_refused(scorer: Path, dtype: torch.dtype) -> None:
    header = read_header(scorer)
    said = {"base": header.base, "base_fingerprint": header.base_fingerprint, "kind": header.kind}
    whole = {key: torch.from_numpy(tensor).to(dtype) for key, tensor in load_file(scorer).items()}
    safetensors.torch.save_file(whole, scorer, said)
    with pytest.raises(ModelUnusableError, match=r"the adapter scorer.safetensors cannot be read"):
        build(locate(str(scorer)), "late_interaction")


@pytest.mark.parametrize(
    "said", [None, {"base": MINILM, "kind": "reader"}, {"base": "a", "kind": "b"}]
)
def test_a_file_of_other_tensors_is_no_adapter(tmp_path: Path, said: dict[str, str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2, np.float32)}, path, said)
    with pytest.raises(ModelUnusableError, match=r"model.safetensors is no adapter: its metadata"):
        locate(str(path))


def test_an_adapter_over_an_adapter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.safetensors"
    said = {"base": str(path), "base_fingerprint": "0", "kind": "reader"}
    save_file({"a": np.ones(2, np.float32)}, path, said)
    with pytest.raises(ModelUnusableError, match="loop is an adapter over another one"):
        locate(str(path))


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
