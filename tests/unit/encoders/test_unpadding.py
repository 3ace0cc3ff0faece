"""Batches without padding, on the CPU: of FlashAttention alone the kernel is another one here."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.adapters import tiny_adapter, tiny_tensors
from support.models import MINILM, tiny_cross_encoder, tiny_encoder, tiny_transformer
from torch.nn.functional import scaled_dot_product_attention

from encoders.adapters import WORD_WEIGHTS, write_adapter
from encoders.blueprint import Kind
from encoders.graphs import Graph, build
from encoders.location import locate
from encoders.options import PrecisionName
from encoders.torch_backend import TorchBackend
from encoders.torch_trials import LEAST_COSINE, least_cosine, trial_batch
from encoders.unpadding import Packing

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

KERNEL = "encoders.unpadding.varlen_attn"


def row_by_row(*arguments: Any, scale: float, window_size: tuple[int, int]) -> torch.Tensor:
    """What `varlen_attn` is documented to give, by torch's attention on one row at a time."""
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k = arguments
    bounds = cu_seq_q.tolist()
    assert cu_seq_q.dtype == torch.int32, "the kernel takes no other"
    assert cu_seq_k is cu_seq_q
    assert max_q == max_k == max(np.diff(bounds))
    assert bounds[-1] == len(query)
    rows = []
    for start, end in itertools.pairwise(bounds):
        places = torch.arange(end - start)
        apart = (places[:, None] - places[None]).abs()
        seen = apart <= (window_size[0] if window_size[0] >= 0 else end - start)
        states = (each[start:end].transpose(0, 1)[None] for each in (query, key, value))
        row = scaled_dot_product_attention(*states, attn_mask=seen, scale=scale)
        rows.append(row[0].transpose(0, 1))
    return torch.cat(rows)


def all_as_one_row(*arguments: Any, **options: Any) -> torch.Tensor:
    """A kernel that forgets where rows end."""
    query, key, value, bounds = arguments[:4]
    bounds = bounds[[0, -1]]
    return row_by_row(query, key, value, bounds, bounds, len(query), len(query), **options)


def graph_of(model: str | Path, kind: Kind = "embedding") -> Graph:
    return build(locate(str(model)), kind)[1]


def backend(graph: Graph, precision: PrecisionName = "fp32", unpad: bool = True) -> TorchBackend:
    return TorchBackend(graph, precision=precision, threads=1, unpad=unpad)


def test_the_places_of_tokens_are_found_by_row() -> None:
    packing = Packing.of(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.int64))
    assert packing.places.tolist() == [0, 1, 3, 6, 7, 8]
    assert packing.bounds.tolist() == [0, 2, 3, 6]
    assert packing.longest == 3


@pytest.mark.parametrize("kind", ["embedding", "late_interaction"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_padding_comes_out_what_comes_with_it(
    kind: Kind, precision: PrecisionName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KERNEL, row_by_row)
    padded = backend(graph_of(MINILM, kind), unpad=False)
    unpadded = backend(graph_of(MINILM, kind), precision)
    assert unpadded.description == f"torch {precision}, 1 threads, unpadded"
    assert "unpadded: cosine to padded float32 " in unpadded.reason
    batch = trial_batch(graph_of(MINILM, kind))
    ours, reference = unpadded.run(batch), padded.run(batch)
    assert ours.dtype == np.float32
    cosine = least_cosine(
        torch.from_numpy(ours), torch.from_numpy(reference), batch["attention_mask"]
    )
    assert cosine >= (0.99999 if precision == "fp32" else LEAST_COSINE)


def test_a_reader_tells_question_from_passage_without_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KERNEL, row_by_row)
    adapter = tiny_adapter(tmp_path / "r.safetensors", tiny_encoder(tmp_path), "reader")
    padded = backend(graph_of(adapter, "reader"), unpad=False)
    unpadded = backend(graph_of(adapter, "reader"))
    assert unpadded.description == "torch fp32, 1 threads, unpadded"
    batch = trial_batch(graph_of(adapter, "reader"))
    tokens = batch["attention_mask"] == 1
    of_one_text = unpadded.run(batch)[tokens]
    batch["token_type_ids"][:, 2:] = batch["attention_mask"][:, 2:]
    found = unpadded.run(batch)[tokens]
    np.testing.assert_allclose(found, padded.run(batch)[tokens], atol=1e-4)
    assert np.abs(found - of_one_text).max() > 0.01


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_positions_windows_and_prefixes_of_other_models(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KERNEL, row_by_row)
    # The pooling of the first leaves prefixes out.
    made = tiny_encoder(tmp_path) if family == "bert" else tiny_transformer(tmp_path, family)
    padded, unpadded = backend(graph_of(made), unpad=False), backend(graph_of(made))
    assert unpadded.description.endswith("unpadded"), unpadded.reason
    batch = trial_batch(graph_of(made))
    batch["pooling_mask"][1, :4] = 0
    np.testing.assert_allclose(unpadded.run(batch), padded.run(batch), atol=1e-5)


def test_a_kernel_that_confuses_rows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNEL, all_as_one_row)
    graph = graph_of(MINILM)
    fallen_back = backend(graph, "bf16")
    assert fallen_back.description == "torch bf16, 1 threads"
    assert "padded: unpadded, cosine to float32 is 0." in fallen_back.reason
    batch = trial_batch(graph)
    reference = backend(graph_of(MINILM), unpad=False).run(batch)
    cosine = least_cosine(
        torch.from_numpy(fallen_back.run(batch)),
        torch.from_numpy(reference),
        batch["attention_mask"],
    )
    assert cosine >= LEAST_COSINE


def test_weights_of_words_hide_no_kernel_that_confuses_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_encoder(tmp_path)
    # Beside a weight of 100 any two directions have a cosine of .9998.
    heavy = {WORD_WEIGHTS: np.full(graph_of(base).vocabulary, 100.0)}
    path = tmp_path / "weighed.safetensors"
    tensors = tiny_tensors("late_interaction") | heavy
    write_adapter(path, tensors, kind="late_interaction", base=str(base))
    padded = backend(graph_of(path, "late_interaction"), unpad=False)
    batch = trial_batch(graph_of(path, "late_interaction"))
    tokens = batch["attention_mask"] == 1
    monkeypatch.setattr(KERNEL, row_by_row)
    unpadded = backend(graph_of(path, "late_interaction"))
    assert unpadded.description.endswith("unpadded"), unpadded.reason
    np.testing.assert_allclose(unpadded.run(batch)[tokens], padded.run(batch)[tokens], atol=1e-4)
    monkeypatch.setattr(KERNEL, all_as_one_row)
    confused = backend(graph_of(path, "late_interaction"))
    assert "padded: unpadded, cosine to float32 is " in confused.reason


def test_numbers_that_are_not_finite_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNEL, lambda query, *_, **__: torch.full_like(query, torch.nan))
    assert "padded: unpadded, cosine to float32 is nan" in backend(graph_of(MINILM)).reason


def test_where_the_kernel_does_not_run_batches_stay_padded() -> None:
    """The real kernel, on a CPU."""
    graph = graph_of(MINILM)
    fallen_back = backend(graph)
    assert fallen_back.description == "torch fp32, 1 threads"
    assert "padded: unpadded, NotImplementedError: " in fallen_back.reason
    assert fallen_back.run(trial_batch(graph)).shape == (6, 384)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_cross_encoder_stays_padded(
    adapted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KERNEL, row_by_row)
    if adapted:
        made = tiny_adapter(tmp_path / "c.safetensors", tiny_encoder(tmp_path), "cross_encoder")
    else:
        made = tiny_cross_encoder(tmp_path)
    graph = graph_of(made, "cross_encoder")
    kept = backend(graph)
    assert kept.reason == "as set; padded: its head reads the first token of each row"
    assert kept.run(trial_batch(graph)).shape == (6,)


def test_on_a_cpu_nothing_is_tried() -> None:
    reference = TorchBackend(graph_of(MINILM), precision="fp32", threads=1)
    assert reference.description == "torch fp32, 1 threads"
    assert reference.reason == "as set"
    assert reference.streams == 1


def test_two_threads_may_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where one prepares while the other's batch is computed."""
    monkeypatch.setattr(KERNEL, row_by_row)
    graph = graph_of(MINILM)
    shared = backend(graph)
    batch = trial_batch(graph)
    expected = shared.run(batch)
    barrier = threading.Barrier(2)
    results: list[np.ndarray] = []

    def run() -> None:
        barrier.wait(30)
        results.extend(shared.run(batch) for _ in range(3))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 6
    for result in results:
        np.testing.assert_array_equal(result, expected)
