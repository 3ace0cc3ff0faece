"""One loaded model: tokenizer, backend and identity, whatever it is used for."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.blueprint import Blueprint, Kind
from encoders.identity import ModelIdentity, fingerprint
from encoders.location import ModelFiles, ModelUnusableError, locate
from encoders.machine import available_cpus, has_nvidia_gpu, limit_threads
from encoders.options import BackendName, Precision, Runtime
from encoders.tokenizing import (
    LENGTH_STEP,
    IntArray,
    Tokenizer,
    Tokens,
    guessed_tokens,
    pad,
    padded_length,
)

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

# Up to here all padded lengths are run before there are callers: 17,000 tokens, 2 s on a slow
# stream.
_EVERY_LENGTH: Final = 512
# Batches that the speed is measured by before there are any callers: 0.1 s on a slow stream.
_TIMED_RUNS: Final = 3


class Backend(Protocol):
    """What computes, `streams` threads at a time."""

    precision: Precision
    # Why this precision, and what else was chosen.
    reason: str
    # Padded tokens of a batch beyond which it gets no faster.
    batch_tokens: int
    # How many batches it computes at once, each in a thread of its own.
    streams: int

    @property
    def description(self) -> str:
        """Such as "torch bf16, 2 threads"."""

    def run(self, arrays: Mapping[str, IntArray]) -> Floats:
        """The graph's output for one padded batch."""

    def close(self) -> None:
        """Releases what it holds."""


class Encoder:
    """A model that is loaded. `tokenizer` may be used by any threads, `run` by `streams`."""

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

    @property
    def streams(self) -> int:
        """How many threads may `run` at once."""
        return self._backend.streams

    def padded(self, tokens: int) -> int:
        """Length of the row that a text of so many tokens takes."""
        return padded_length(tokens, self.identity.max_tokens)

    def run(self, batch: Sequence[Tokens]) -> Floats:
        """The graph's output, a row per text: [n, dimension], [n, length, dimension] or [n]; with
        weights of words, which stand behind each token, one number more."""
        # Here and not ahead of time: 8x120 take 0.02 ms, the model 120.
        arrays = pad(batch, max_tokens=self.identity.max_tokens, pad_id=self.tokenizer.pad_id)
        return self._backend.run(arrays)

    def warm_up(self) -> float:
        """Runs padded lengths, then full batches of the longest, in the calling thread.

        To be called in each thread that will `run`, in all of them at once. No caller waits
        for a first time, and memory is what it stays at. Returns padded tokens per second
        of this stream, by full batches while the others are busy too.
        """
        longest = self.identity.max_tokens
        for length in warm_up_lengths(longest):
            self.run([self._blank(length)])
        self.run([self._blank(longest)] * max(1, self.batch_tokens // longest))
        middle = self.padded(longest // 2)
        batch = [self._blank(middle)] * max(1, self.batch_tokens // middle)
        self.run(batch)
        started_s = time.perf_counter()
        for _ in range(_TIMED_RUNS):
            self.run(batch)
        return _TIMED_RUNS * len(batch) * middle / (time.perf_counter() - started_s)

    def _blank(self, length: int) -> Tokens:
        ids = np.full(length, self.tokenizer.pad_id, np.int64)
        return Tokens(ids, np.zeros_like(ids), np.ones(length, np.bool_), 0, False)

    def close(self) -> None:
        """Releases the backend."""
        self._backend.close()


def warm_up_lengths(longest: int) -> list[int]:
    """Every padded length up to 512, then each twice the one before, and the longest.

    All of them, for a model of 8,192 tokens, would be 4 million tokens a stream: an hour.
    """
    short = range(LENGTH_STEP, min(longest, _EVERY_LENGTH + 1), LENGTH_STEP)
    doubled = (_EVERY_LENGTH << n for n in range(1, longest.bit_length()))
    return [*short, *(length for length in doubled if length < longest), longest]


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

    def guessed_tokens(self, texts: Sequence[str]) -> list[int]:
        """Of each text, a guess: at once, before tokenising."""
        return [guessed_tokens(text, self.identity.max_tokens) for text in texts]

    def padded(self, tokens: int) -> int:
        """Length of the row that an input of so many tokens takes in a batch."""
        return self._encoder.padded(tokens)

    @property
    def streams(self) -> int:
        """How many threads may compute at once."""
        return self._encoder.streams

    def warm_up(self) -> float:
        """Once in each thread that will compute: padded tokens per second of one of them."""
        return self._encoder.warm_up()

    def close(self) -> None:
        """Releases the model."""
        self._encoder.close()


def open_encoder(name: str, kind: Kind, runtime: Runtime) -> Encoder:
    """Finds and loads a model. Takes 0.5 s with an export at hand, else up to 10 s.

    Raises ModelUnusableError when it is nowhere to be had, or of a kind this
    program cannot run.
    """
    files = locate(name)
    files.require(kind)
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
            "streams": backend.streams,
        },
    )
    return encoder


def _choose_backend(wanted: BackendName) -> tuple[Literal["openvino", "torch"], str]:
    if wanted == "openvino":
        return wanted, "as set"
    cpu_reason = "no GPU; fastest on CPUs"
    if has_nvidia_gpu():
        import torch

        if torch.cuda.is_available():
            return "torch", "as set" if wanted == "torch" else "torch sees a GPU"
        cpu_reason = "torch sees no GPU; fastest on CPUs"
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
    return "openvino", cpu_reason


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
            export.weights,
            inputs=inputs,
            precision=runtime.precision,
            threads=threads,
            streams=runtime.streams,
        )

    return open_export(files, kind, digest, runtime, read)


def _open_torch(
    files: ModelFiles, kind: Kind, runtime: Runtime, threads: int
) -> tuple[Blueprint, Backend]:
    import torch

    from encoders.graphs import build
    from encoders.torch_backend import TorchBackend

    blueprint, graph = build(files, kind)
    try:
        backend = TorchBackend(graph, precision=runtime.precision, threads=threads)
    except torch.OutOfMemoryError as error:
        raise ModelUnusableError(
            f"{files.name} does not fit into the GPU's memory; something else may be in it"
        ) from error
    return blueprint, backend
