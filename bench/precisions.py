"""How far vectors are from those in float32, by number format.

int8 is simulated in torch, as dynamic quantisation computes it: the weights of a linear layer
have one scale per output channel, its inputs one per token, both symmetric and rounded to
nearest. Only the rounding is simulated: the sums stay float32 (int32 would be exact).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.ceiling import Precision
from bench.contestants import MODEL
from bench.vectors import Floats
from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.encoder import Encoder
from encoders.identity import ModelIdentity
from encoders.location import locate
from encoders.machine import available_cpus
from encoders.options import BackendName, Runtime

_LARGEST: Final = 127


@dataclass(frozen=True, slots=True)
class Candidate:
    """int8_layers: simulates int8 in the linear layers whose name it finds; empty for none."""

    name: str
    backend: BackendName
    precision: Precision
    int8_layers: str = ""


REFERENCE: Final = Candidate("torch fp32", "torch", "fp32")


def candidates(precision: Precision) -> list[Candidate]:
    """precision: the fastest of this CPU. int8 by the names that a BERT's layers have."""
    return [
        Candidate(f"OpenVINO {precision}", "openvino", precision),
        Candidate(f"torch {precision}", "torch", precision),
        Candidate("int8 (simulated), all layers", "torch", "fp32", r"layer\.\d+\."),
        Candidate(
            "int8 (simulated), feed-forward alone",
            "torch",
            "fp32",
            r"layer\.\d+\.(intermediate|output)\.",
        ),
        Candidate("int8 (simulated), attention alone", "torch", "fp32", r"layer\.\d+\.attention\."),
    ]


def encoder_of(texts: Sequence[str]) -> Callable[[Candidate], Floats]:
    """Given a candidate: its vectors of the texts, float32 [len(texts), dimension]."""
    return lambda candidate: _model(candidate).encode(texts)


def _model(candidate: Candidate) -> EmbeddingModel:
    if not candidate.int8_layers:
        return load_embedding_model(MODEL, Runtime(candidate.backend, candidate.precision))
    from encoders.graphs import build
    from encoders.torch_backend import TorchBackend

    files = locate(MODEL)
    blueprint, graph = build(files, "embedding")
    round_layers(graph, candidate.int8_layers)
    backend = TorchBackend(graph, precision=candidate.precision, threads=available_cpus())
    identity = ModelIdentity(files.name, "", blueprint.dimension, blueprint.max_tokens)
    return EmbeddingModel(Encoder(identity, blueprint, backend))


def round_layers(module: Any, pattern: str) -> None:
    """Rounds weights now and inputs at each call. Raises ValueError when no layer matches."""
    from torch.nn import Linear

    found = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, Linear) and re.search(pattern, name)
    ]
    if not found:
        raise ValueError(f"no linear layer has {pattern} in its name")
    for layer in found:
        layer.weight.data = rounded(layer.weight.data)
        layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))


def rounded(values: Any) -> Any:
    """The nearest multiples of 1/127 of the largest of the last dimension, float32 tensors."""
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-9) / _LARGEST
    return (values / scale).round() * scale
