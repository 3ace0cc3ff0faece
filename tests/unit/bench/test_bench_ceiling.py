"""What a token costs, and what the machine's limit is measured with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.ceiling import PRECISIONS, Shape, products, token_length

TINY = Shape(hidden=8, intermediate=16, layers=2)


def test_the_shape_is_read_from_the_models_own_config(tmp_path: Path) -> None:
    config = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Shape.read(tmp_path) == Shape(384, 1536, 6)


def test_a_token_of_minilm_costs_21_million_operations_and_its_attention() -> None:
    minilm = Shape(384, 1536, 6)
    assert minilm.product_flops() == 6 * 2 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert minilm.token_flops(100) - minilm.product_flops() == 6 * 4 * 100 * 384


def test_products_are_those_of_every_layer() -> None:
    assert TINY.products() == [*[(8, 8)] * 4, (8, 16), (16, 8)] * 2


def test_the_average_token_stands_in_a_longer_text_than_the_average_text() -> None:
    assert token_length([10, 10]) == 10
    assert token_length([1, 3]) == pytest.approx(2.5)  # one token of 1, three of 3


@pytest.mark.parametrize("library", ["torch", "openvino"])
def test_both_libraries_multiply(library: str) -> None:
    gflops = products(library, "cpu", TINY)  # type: ignore[arg-type]
    assert all(gflops((precision, 0.01)) > 0 for precision in PRECISIONS)
