"""What torch is told to do, by what the machine is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from support.models import MINILM

from encoders.graphs import Graph, build
from encoders.location import locate
from encoders.tokenizing import IntArray
from encoders.torch_trials import (
    choose_precision,
    fitting_batch_tokens,
    full_batch,
    least_cosine,
    trial_batch,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

GPU = torch.device("cuda")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return build(locate(MINILM), "embedding")[1]


def test_what_is_set_is_done(graph: Graph) -> None:
    assert choose_precision(graph, "fp32", GPU) == ("fp32", "as set")
    assert choose_precision(graph, "bf16", CPU) == ("bf16", "as set")


@pytest.mark.parametrize(
    ("supported", "expected"),
    [(True, ("bf16", "the GPU has bfloat16")), (False, ("fp32", "the GPU has no bfloat16"))],
)
def test_a_gpu_that_emulates_bf16_computes_in_fp32(
    graph: Graph,
    supported: bool,
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or supported,
    )
    assert choose_precision(graph, "auto", GPU) == expected


def test_a_cpu_without_bf16_computes_in_fp32(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.torch_trials.multiplies_bf16", lambda: None)
    assert choose_precision(graph, "auto", CPU) == (
        "fp32",
        "the CPU has no bfloat16 instructions",
    )


@pytest.mark.parametrize(("bf16_s", "chosen"), [(0.5, "bf16"), (0.95, "fp32")])
def test_a_cpu_with_bf16_uses_it_where_it_is_faster(
    graph: Graph, bf16_s: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_s = iter([1.0, bf16_s])
    monkeypatch.setattr("encoders.torch_trials.multiplies_bf16", lambda: "amx_bf16")
    monkeypatch.setattr("encoders.torch_trials._trial_s", lambda _: next(taken_s))
    precision, reason = choose_precision(graph, "auto", CPU)
    assert precision == chosen
    assert reason.startswith("the CPU has amx_bf16; measured bf16 ")


@pytest.mark.parametrize(("memory_tokens", "fitting"), [(10**9, 65_536), (70_000, 32_768)])
def test_batches_are_halved_until_they_fit(graph: Graph, memory_tokens: int, fitting: int) -> None:
    assert fitting_batch_tokens(memory_of(memory_tokens), graph, 65_536, 2) == fitting


def test_a_gpu_that_holds_no_batch_is_an_error(graph: Graph) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        fitting_batch_tokens(memory_of(600), graph, 65_536, 2)


def memory_of(tokens: int) -> Callable[[Mapping[str, IntArray]], None]:
    def run(arrays: Mapping[str, IntArray]) -> None:
        if arrays["input_ids"].size > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return run


def test_trial_batches_are_of_the_models_own_sizes(graph: Graph) -> None:
    trial = trial_batch(graph)
    assert set(graph.inputs) <= trial.keys()
    assert trial["attention_mask"].sum(axis=1).tolist() == [3, 200, 17, 1, 128, 64]
    assert trial["input_ids"].max() < graph.vocabulary == 30522
    np.testing.assert_array_equal(trial["input_ids"], trial_batch(graph)["input_ids"])
    assert full_batch(graph, 1024)["input_ids"].shape == (4, 256)
    assert full_batch(graph, 10)["input_ids"].shape == (1, 256)


def test_the_cosine_of_states_leaves_padding_out() -> None:
    ours, reference = torch.ones(1, 2, 3), torch.ones(1, 2, 3)
    ours[0, 1] = -1
    assert least_cosine(ours, reference, np.array([[1, 0]])) == pytest.approx(1)
    assert least_cosine(ours, reference, np.array([[1, 1]])) == pytest.approx(-1)
    with pytest.raises(ValueError, match="the shape is"):
        least_cosine(ours, reference[:, :1], np.array([[1]]))
