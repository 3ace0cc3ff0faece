"""int8 as it is simulated."""

from __future__ import annotations

import pytest
import torch

from bench.precisions import round_layers, rounded


def test_int8_has_255_levels_a_row() -> None:
    values = torch.tensor([[127.0, 0.4, -3.6], [0.0, 0.0, 0.0]])
    assert rounded(values).tolist() == [[127.0, 0.0, -4.0], [0.0, 0.0, 0.0]]
    assert len(rounded(torch.linspace(-1, 1, 10_000)[None]).unique()) == 255


def test_layers_are_rounded_by_name() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    inputs = torch.randn(4, 64)
    first, exact = module[0](inputs), module(inputs)
    round_layers(module, "1")
    torch.testing.assert_close(module[0](inputs), first)
    error = (module(inputs) - exact).abs().max()
    assert 0 < error < 0.05
    with pytest.raises(ValueError, match="no linear layer"):
        round_layers(module, "2")
