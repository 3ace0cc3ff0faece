"""One loaded model: tokenizer, backend and identity, whatever it is used for."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.blueprint import Blueprint, Kind
from encoders.identity import ModelIdentity, fingerprint
from encoders.location import ModelFiles, locate
from encoders.machine import available_cpus, has_nvidia_gpu, limit_threads
from encoders.options import BackendName, Precision, Runtime
from encoders.tokenizing import LENGTH_STEP, IntArray, Tokenizer, Tokens, pad, padded_length

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]


class Backend(Protocol):
    """What computes. One thread at a time."""

    precision: Precision
    # Why this precision.
    reason: str
    # Padded tokens of a batch beyond which it gets no faster.
    batch_tokens: int

    @property
    def description(self) -> str:
        """Such as "torch bf16, 2 threads"."""

    def run(self, arrays: Mapping[str, IntArray]) -> Floats:
        """The graph's output for one padded batch."""

    def close(self) -> None:
        """Releases what it holds."""


class Encoder:
    """A model that is loaded. `tokenizer` may be used by several threads, `run` by one."""

    def __init__(self, identity: ModelIdentity, blueprint: Blueprint, backend: Backend) -> None:
        self.identity = identity
        self.blueprint = blueprint
        self.tokenizer = Tokenizer(
            blueprint.tokenizer, max_tokens=blueprint.max_tokens, pad_id=blueprint.pad_id
        )
        self._backend = backend

    @property
    def description(self) -> str:
        """Such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads"."""
        return f"{self.identity}, {self._backend.description}"

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self._backend.precision

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch beyond which it gets no faster here."""
        return self._backend.batch_tokens

    def padded(self, tokens: int) -> int:
        """Length of the row that a text of so many tokens takes."""
        return padded_length(tokens, self.identity.max_tokens)

    def run(self, batch: Sequence[Tokens]) -> Floats:
        """The graph's output, a row per text: [n, dimension], [n, length, dimension] or [n]."""
        arrays = pad(batch, max_tokens=self.identity.max_tokens, pad_id=self.tokenizer.pad_id)
        return self._backend.run(arrays)

    def warm_up(self) -> None:
        """Runs every padded length, then a full batch of the longest.

        No caller waits for a first time, and memory is near what it will stay at
        (MiniLM: 265 MiB then, 315 after mixed batches).
        """
        longest = self.identity.max_tokens
        for length in {*range(LENGTH_STEP, longest, LENGTH_STEP), longest}:
            self.run([self._blank(length)])
        self.run([self._blank(longest)] * max(1, self.batch_tokens // longest))

    def _blank(self, length: int) -> Tokens:
        ids = np.full(length, self.tokenizer.pad_id, np.int64)
        return Tokens(ids, np.zeros_like(ids), np.ones(length, np.bool_), 0, False)

    def close(self) -> None:
        """Releases the backend."""
        self._backend.close()


class EncoderModel:
    """A loaded encoder put to one use: what all uses of it share."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def identity(self) -> ModelIdentity:
        """Name, fingerprint, dimension (0 for scores) and longest input."""
        return self._encoder.identity

    @property
    def description(self) -> str:
        """Such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads"."""
        return self._encoder.description

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self._encoder.precision

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch beyond which it gets no faster here."""
        return self._encoder.batch_tokens

    def padded(self, tokens: int) -> int:
        """Length of the row that an input of so many tokens takes in a batch."""
        return self._encoder.padded(tokens)

    def warm_up(self) -> None:
        """Runs every padded length once."""
        self._encoder.warm_up()

    def close(self) -> None:
        """Releases the model."""
        self._encoder.close()


def open_encoder(name: str, kind: Kind, runtime: Runtime) -> Encoder:
    """Finds and loads a model. Takes 0.5 s with an export at hand, else up to 10 s.

    Raises ModelUnusableError when it is nowhere to be had, or of a kind this
    program cannot run.
    """
    files = locate(name)
    digest = fingerprint(files, kind=kind)
    backend_name, reason = _choose_backend(runtime.backend)
    threads = runtime.threads or available_cpus()
    limit_threads(threads)
    if backend_name == "openvino":
        blueprint, backend = _open_openvino(files, kind, digest, runtime, threads)
    else:
        blueprint, backend = _open_torch(files, kind, runtime, threads)
    identity = ModelIdentity(files.name, digest, blueprint.dimension, blueprint.max_tokens)
    encoder = Encoder(identity, blueprint, backend)
    log.info(
        "model loaded",
        extra={
            "model": encoder.description,
            "backend_reason": reason,
            "precision_reason": backend.reason,
        },
    )
    return encoder


def _choose_backend(wanted: BackendName) -> tuple[Literal["openvino", "torch"], str]:
    if wanted == "openvino":
        return wanted, "as set"
    if has_nvidia_gpu():
        import torch

        if torch.cuda.is_available():
            return "torch", "torch sees a GPU"
        # Hours are lost to this otherwise: everything works, ten times slower.
        log.warning(
            "there is a GPU that torch cannot use: computing on the CPU",
            extra={
                "cause": f"torch {torch.__version__} is built without CUDA"
                if torch.version.cuda is None
                else "CUDA does not start: the driver is older than "
                f"CUDA {torch.version.cuda}, or the device is not for this process"
            },
        )
    if wanted == "torch":
        return wanted, "as set"
    if importlib.util.find_spec("openvino") is None:
        return "torch", "OpenVINO is not installed"
    return "openvino", "no GPU; fastest on CPUs"


def _open_openvino(
    files: ModelFiles, kind: Kind, digest: str, runtime: Runtime, threads: int
) -> tuple[Blueprint, Backend]:
    from encoders.export import Export
    from encoders.export_cache import open_export
    from encoders.openvino_backend import OpenVinoBackend

    def read(folder: Path) -> tuple[Blueprint, Backend]:
        export = Export(folder)
        inputs = export.blueprint.inputs
        return export.blueprint, OpenVinoBackend(
            export.weights, inputs=inputs, precision=runtime.precision, threads=threads
        )

    return open_export(files, kind, digest, runtime, read)


def _open_torch(
    files: ModelFiles, kind: Kind, runtime: Runtime, threads: int
) -> tuple[Blueprint, Backend]:
    from encoders.graphs import build
    from encoders.torch_backend import TorchBackend

    blueprint, graph = build(files, kind)
    return blueprint, TorchBackend(graph, precision=runtime.precision, threads=threads)
