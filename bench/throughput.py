"""Embedding at full speed on a CPU: our worker over gRPC, sentence-transformers, and the limit.

Every slice of the texts goes to each in turn: `SentenceTransformer.encode` in processes of
their own, then the worker, asked by a client in another process; after each slice the machine
multiplies matrices of the model's shapes and nothing else. Those that wait sleep: the CPU
time they take meanwhile is among the figures.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench import worker
from bench.apart import Apart, apart
from bench.ceiling import (
    GIGA,
    PRECISIONS,
    Library,
    Precision,
    Shape,
    products,
    token_length,
)
from bench.contestants import MODEL
from bench.embedding import TIMEOUT_S, embed_all
from bench.options import Options
from bench.passages import passages
from bench.prepared import EMBEDDER
from bench.reference import Computed, Setting, sentence_transformer
from bench.report import Report, Table, Target, number
from bench.turns import Course, Subject, in_slices, speed_targets, take_turns
from bench.vectors import LEAST_COSINE, largest_cosine_loss
from encoders.location import locate
from encoders.tokenizing import Tokenizer
from runtime.channel import open_channel
from runtime.telemetry import Tracing

TEXTS: Final = 2000
QUICK_TEXTS: Final = 200
SLICES: Final = 5
PRODUCTS_S: Final = 0.5
# The first is what the others are compared with.
SETTINGS: Final = (Setting("fp32", 32), Setting("bf16", 32))
CEILING_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Ceiling:
    """GFLOP/s of the model's products by library and precision, a number for each slice."""

    probes: dict[Library, Apart[tuple[Precision, float], float]]
    seconds: float
    gflops: dict[tuple[Library, Precision], list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        """Each once more."""
        for library, probe in self.probes.items():
            for precision in PRECISIONS:
                gflops = probe((precision, self.seconds))
                self.gflops.setdefault((library, precision), []).append(gflops)

    def medians(self) -> dict[tuple[Library, Precision], float]:
        """Of what was measured."""
        return {name: statistics.median(values) for name, values in self.gflops.items()}

    def bests(self) -> list[float]:
        """GFLOP/s of the library and precision that were fastest, of each slice."""
        return [max(measured) for measured in zip(*self.gflops.values(), strict=True)]


def run(options: Options) -> Report:
    """Embeds chunks of the Rust book."""
    folder = locate(MODEL).folder
    texts = passages(options.data, QUICK_TEXTS if options.quick else TEXTS)
    slices = in_slices(texts, options.rounds(SLICES))
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(worker.running("embedder_worker", embedding_model=MODEL))
        subjects = [_reference(stack, folder, setting) for setting in SETTINGS] + [
            _ours(stack, ours)
        ]
        ceiling = _ceiling(stack, Shape.read(folder), options.seconds(PRODUCTS_S))
        for subject in subjects:  # each has its buffers and threads before the first slice
            subject.compute(texts[:64])
        courses = take_turns(subjects, slices, ceiling.measure)
        lengths = token_lengths(texts, folder, ours.target)
    return _report(courses, lengths, ceiling, Shape.read(folder))


def _reference(stack: contextlib.ExitStack, folder: Path, setting: Setting) -> Subject[str]:
    encode = stack.enter_context(apart(partial(sentence_transformer, folder, setting, "cpu")))
    return Subject(f"SentenceTransformer.encode, {setting.name}", encode, (encode.pid,))


def _ours(stack: contextlib.ExitStack, ours: worker.Worker) -> Subject[str]:
    client = stack.enter_context(apart(partial(embedder_client, ours.target)))
    description = ours.description.partition(", ")[2]
    return Subject(f"embedder over gRPC: {description}", client, (ours.pid,))


def embedder_client(target: str) -> Callable[[Sequence[str]], Computed]:
    """A client of our embedder, made where it runs."""

    def embed(texts: Sequence[str]) -> Computed:
        embedded = uvloop.run(embed_all(target, texts))
        return Computed(embedded.vectors, embedded.seconds)

    return embed


def _ceiling(stack: contextlib.ExitStack, shape: Shape, seconds: float) -> Ceiling:
    libraries: tuple[Library, ...] = ("torch", "openvino")
    return Ceiling(
        {
            library: stack.enter_context(apart(partial(products, library, "cpu", shape)))
            for library in libraries
        },
        seconds,
    )


def token_lengths(texts: Sequence[str], folder: Path, target: str) -> list[int]:
    """Tokens of each text as the model in `folder`, which the worker at `target` runs, reads it."""
    serialised = (folder / "tokenizer.json").read_text()
    tokenizer = Tokenizer(serialised, max_tokens=uvloop.run(_max_tokens(target)), pad_id=0)
    return [len(tokens) for tokens in tokenizer.encode(texts)]


async def _max_tokens(target: str) -> int:
    async with open_channel(target, EMBEDDER, Tracing(None)) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        model = await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
    return int(model.max_tokens)


def share_of_limit(
    course: Course, lengths: Sequence[int], limits: Sequence[float], shape: Shape
) -> float:
    """Median over the slices of operations a second by the limit, both measured in that slice.

    lengths: tokens of each text; limits: GFLOP/s of each slice.
    """
    slices = in_slices(lengths, len(course.turns))
    return statistics.median(
        sum(own) * shape.token_flops(token_length(own)) / turn.computed.seconds / GIGA / limit
        for own, turn, limit in zip(slices, course.turns, limits, strict=True)
    )


def padding(lengths: Sequence[int], batch: int) -> float:
    """Share of padding in what is computed of texts that are sorted by length, `batch` at once."""
    ordered = sorted(lengths)
    batches = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    return 1 - sum(ordered) / sum(len(each) * each[-1] for each in batches)


def _report(courses: list[Course], lengths: list[int], ceiling: Ceiling, shape: Shape) -> Report:
    base, ours = courses[0], courses[-1]
    tokens, flops = sum(lengths), shape.token_flops(token_length(lengths))
    limits_gflops = ceiling.bests()
    share = {
        course.name: share_of_limit(course, lengths, limits_gflops, shape) for course in courses
    }
    losses = {course.name: largest_cosine_loss(course.values, base.values) for course in courses}
    speed = Table(
        f"{len(lengths):,} chunks of the Rust book, {tokens:,} tokens, {len(base.turns)} turn(s)",
        ("", "texts/s", "tokens/s", "× the first", "share of the limit", "1 - cosine", "CPU s"),
        [
            (
                course.name,
                number(len(lengths) / course.seconds),
                number(tokens / course.seconds),
                number(course.times_as_fast_as(base)),
                f"{share[course.name]:.0%}",
                f"{losses[course.name]:.6f}",
                number(course.cpu_s),
            )
            for course in courses
        ],
    )
    limits = Table(
        f"The limit: the model's matrix products alone ({flops / 1e6:.1f} MFLOP a token)",
        ("", "GFLOP/s", "as tokens/s", f"× {base.name}"),
        [
            (
                f"{library} {precision}",
                number(gflops),
                number(gflops * GIGA / flops),
                number(gflops * GIGA / flops / (tokens / base.seconds)),
            )
            for (library, precision), gflops in ceiling.medians().items()
        ],
    )
    one_turn = in_slices(lengths, len(base.turns))[0]
    sorting = Table(
        f"Padding that sorting by length leaves in batches of {SETTINGS[0].batch}",
        ("sorted together", "share of what is computed"),
        [
            (f"the {len(some):,} texts of {whose}", f"{padding(some, SETTINGS[0].batch):.1%}")
            for whose, some in (("the first turn", one_turn), ("all turns", lengths))
        ],
    )
    targets = [
        *speed_targets("tokens/s of the embedder over SentenceTransformer's in fp32", ours, base),
        Target(
            "the embedder's share of what the machine multiplies at most",
            share[ours.name],
            CEILING_SHARE,
            at_most=False,
        ),
        Target(
            "largest 1 - cosine of a vector to fp32's",
            losses[ours.name],
            1 - LEAST_COSINE,
            at_most=True,
        ),
    ]
    figures = {
        "texts": len(lengths),
        "tokens": tokens,
        "flops_per_token": flops,
        "seconds": {c.name: [turn.computed.seconds for turn in c.turns] for c in courses},
        "cpu_s": {c.name: [turn.cpu_s for turn in c.turns] for c in courses},
        "cpus_of_those_that_wait": {c.name: c.waiting_share for c in courses},
        "times_as_fast": {c.name: c.times_as_fast_as(base) for c in courses},
        "times_as_fast_in_total": {c.name: base.seconds / c.seconds for c in courses},
        "largest_cosine_loss": losses,
        "share_of_limit": share,
        "gflops": {" ".join(name): values for name, values in ceiling.gflops.items()},
    }
    return Report(figures, [speed, limits, sorting], targets)
