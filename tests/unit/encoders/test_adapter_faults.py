"""Adapters that are none, or over another base: what is wrong is said in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file
from support.adapters import Tensors, tiny_tensors
from support.models import MINILM, tiny_encoder

from encoders.adapters import DOWN, UP, WORD_WEIGHTS, write_adapter
from encoders.blueprint import Kind
from encoders.graphs import build
from encoders.location import ModelFiles, ModelUnusableError, locate, read_header

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

QUERY = "encoder.layer.0.attention.self.query"


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
