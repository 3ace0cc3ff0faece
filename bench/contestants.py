"""Ways to run one encoder on this CPU, each made inside a process of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.ceiling import Precision
from bench.processes import rss_mib
from encoders.export_cache import open_export
from encoders.identity import fingerprint
from encoders.location import locate
from encoders.machine import available_cpus, limit_threads
from encoders.openvino_import import import_openvino
from encoders.options import Runtime

MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
# Token ids of words, so that no row looks like padding.
_WORDS: Final = (1000, 20_000)
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}

# A batch: ids and mask, int64 [rows, tokens].
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Rows and tokens of a batch without padding."""

    rows: int
    tokens: int

    @property
    def name(self) -> str:
        """Such as "8x112"."""
        return f"{self.rows}x{self.tokens}"

    def batch(self) -> Batch:
        """Random words."""
        ids = np.random.default_rng(0).integers(*_WORDS, (self.rows, self.tokens))
        return ids, np.ones_like(ids)


@dataclass(frozen=True, slots=True)
class Work:
    """What a contestant is asked: batches of one shape, one after another, for some seconds."""

    shape: BatchShape
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """prepare_s: what the first batch of the shape took, compiling included; 0 afterwards.

    rss_mib: of the contestant's process after the work.
    """

    tokens_per_s: float
    prepare_s: float
    rss_mib: float


Contestant = Callable[[Work], Done]
# Given a shape: the functions, one a stream, that each run a batch of it.
Prepare = Callable[[BatchShape], list[Callable[[], object]]]


def openvino(precision: Precision, streams: int, static: bool) -> Contestant:
    """A graph of dynamic shapes, or one compiled for each shape.

    streams: batches at once, the CPUs of the quota shared out among them.
    """
    library: Any = import_openvino()
    core = library.Core()
    weights = exported()

    def compiled(shape: BatchShape | None) -> Any:
        model = core.read_model(weights)
        if shape is not None:
            sizes = library.PartialShape([shape.rows, shape.tokens])
            model.reshape(dict.fromkeys(model.inputs, sizes))
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": available_cpus(),
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        return core.compile_model(model, "CPU", options)

    dynamic = None if static else compiled(None)

    def prepare(shape: BatchShape) -> list[Callable[[], object]]:
        model = compiled(shape) if dynamic is None else dynamic
        arrays = list(shape.batch())
        requests = [model.create_infer_request() for _ in range(streams)]
        # Inputs are shared in every run: a request that shared once and copies later reads
        # memory that was freed.
        return [
            partial(request.infer, arrays, share_inputs=True, share_outputs=True)
            for request in requests
        ]

    return measured(prepare)


def torch_eager(precision: Precision) -> Contestant:
    """The module as it is."""
    import torch

    graph = torch_graph(precision)

    def prepare(shape: BatchShape) -> list[Callable[[], object]]:
        inputs = [torch.from_numpy(each) for each in shape.batch()]
        without_gradients: Any = torch.inference_mode()
        return [without_gradients(lambda: graph(*inputs))]

    return measured(prepare)


def torch_compiled(precision: Precision) -> Contestant:
    """`torch.compile` with its weights frozen in, for each shape. Needs a C++ compiler."""
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    # Every start pays: what an earlier run left on the disk is not used.
    torch._inductor.config.force_disable_caches = True
    graph = torch_graph(precision)

    def prepare(shape: BatchShape) -> list[Callable[[], object]]:
        compiled: Any = torch.compile(graph, dynamic=False)
        inputs = [torch.from_numpy(each) for each in shape.batch()]
        # Weights are frozen where no gradients are asked for, and not in inference mode.
        without_gradients: Any = torch.no_grad()
        return [without_gradients(lambda: compiled(*inputs))]

    return measured(prepare)


def measured(prepare: Prepare) -> Contestant:
    """The contestant that prepares each shape once and then runs it, a thread a stream."""
    prepared: dict[BatchShape, list[Callable[[], object]]] = {}

    def work(work: Work) -> Done:
        started_s = time.perf_counter()
        new = work.shape not in prepared
        if new:
            prepared[work.shape] = prepare(work.shape)
            for run in prepared[work.shape]:
                run()
        prepare_s = time.perf_counter() - started_s if new else 0.0
        batches_per_s = rate(prepared[work.shape], work.seconds)
        tokens_per_s = batches_per_s * work.shape.rows * work.shape.tokens
        return Done(tokens_per_s, prepare_s, rss_mib(os.getpid()))

    return work


def rate(streams: list[Callable[[], object]], seconds: float) -> float:
    """Batches per second of all streams together; each finishes the one it has begun."""
    counts = [0] * len(streams)
    started_s = time.perf_counter()

    def repeat(stream: int) -> None:
        while time.perf_counter() - started_s < seconds:
            streams[stream]()
            counts[stream] += 1

    threads = [threading.Thread(target=repeat, args=(each,)) for each in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started_s)


def exported() -> Path:
    """The graph that workers read, from their cache; made if need be."""
    files = locate(MODEL)
    own = fingerprint(files, kind="embedding")
    return open_export(files, "embedding", own, Runtime(), lambda folder: folder / "model.xml")


def torch_graph(precision: Precision) -> Any:
    """The torch module, with the threads of the quota."""
    import torch

    from encoders.graphs import build

    limit_threads(available_cpus())
    torch.set_num_threads(available_cpus())
    graph = build(locate(MODEL), "embedding")[1]
    return graph.cast(torch.bfloat16 if precision == "bf16" else torch.float32)


def contestants(precision: Precision) -> Mapping[str, Callable[[], Contestant]]:
    """By name, the reference first. precision: the fastest of this CPU, for all but torch fp32."""
    streams = available_cpus()
    return {
        "torch fp32": partial(torch_eager, "fp32"),
        f"torch {precision}": partial(torch_eager, precision),
        f"torch.compile {precision}, a shape each": partial(torch_compiled, precision),
        f"OpenVINO {precision}, 1 stream": partial(openvino, precision, 1, False),
        f"OpenVINO {precision}, {streams} streams": partial(openvino, precision, streams, False),
        f"OpenVINO {precision}, {streams} streams, a shape each": partial(
            openvino, precision, streams, True
        ),
    }
