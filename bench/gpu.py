"""Embedding and reranking on a GPU, beside sentence-transformers' best there and the GPU's limit.

Needs the checkout, Python and the packages, no evaluation data: without it the texts are this
repository's documents. Every slice goes to each in turn, as in `bench.throughput`; what a GPU
wants is larger calls and more of them in flight.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from bench import worker
from bench.apart import FailedApart, apart
from bench.ceiling import GIGA, Device, Precision, Shape, products, token_length
from bench.contestants import MODEL
from bench.datasets import ROOT
from bench.flood import embedding_flood, scoring_flood
from bench.gpu_reference import SETTINGS, ours_alone
from bench.options import Options
from bench.reference import (
    Computed,
    QueryPassages,
    cross_encoder,
    save_cross_encoder,
    sentence_transformer,
)
from bench.report import Report, Table, number
from bench.turns import Course, Subject, in_slices, take_turns
from bench.vectors import largest_cosine_loss
from encoders.location import locate
from encoders.tokenizing import Tokenizer

Item = TypeVar("Item")

# 3 million tokens, so that a large GPU is busy for seconds and its clock has risen.
TEXTS: Final = 30_000
QUESTIONS: Final = 200
QUICK_SHARE: Final = 10
PASSAGES: Final = 30
SLICES: Final = 5
PRODUCTS_S: Final = 1.0
CHUNK_SIZE: Final = 512
THEIRS: Final = "sentence-transformers"
QUERY_WORDS: Final = 8
QUESTIONS_IN_FLIGHT: Final = 64
# What the flood keeps in flight, with room: the worker's default is meant for a CPU.
QUEUE_TOKENS: Final = 8_000_000


@dataclass(slots=True)
class Part(Generic[Item]):
    """What is compared on one kind of work.

    faults: why those that are not among the courses could not run.
    """

    subjects: list[Subject[Item]] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    courses: list[Course] = field(default_factory=list)

    def add(
        self,
        stack: contextlib.ExitStack,
        name: str,
        make: Callable[[], Callable[[Sequence[Item]], Computed]],
        few: Sequence[Item],
        pid: int | None = None,
    ) -> None:
        """Starts it, and lets it compute a few. pid: of the process that computes, if another."""
        try:
            compute = stack.enter_context(apart(make))
            compute(few)
        except FailedApart as failed:
            self.faults[name] = str(failed).strip().splitlines()[-1]
        else:
            self.subjects.append(Subject(name, compute, (pid or compute.pid,)))

    def best_reference(self) -> Course:
        """The fastest of sentence-transformers."""
        return max(
            (course for course in self.courses if course.name.startswith(THEIRS)),
            key=lambda course: course.times_as_fast_as(self.courses[0]),
        )


def run(options: Options) -> Report:
    """Measures on a GPU; without one it says so and ends the program."""
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device: not run")
        sys.exit()
    properties = torch.cuda.get_device_properties(0)
    share = QUICK_SHARE if options.quick else 1
    return measure(
        options,
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
        "cuda",
        texts(options.data, TEXTS // share),
        QUESTIONS // share,
    )


def texts(data: Path, count: int) -> list[str]:
    """Chunks of the Rust book; where it is not at hand, of this repository's documents."""
    if (data / "rust-book").is_dir():
        from bench.passages import passages  # by the gateway's chunker, which needs its package

        return passages(data, count)
    documents = (path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    pieces = [piece for document in documents for piece in textwrap.wrap(document, CHUNK_SIZE)]
    return list(itertools.islice(itertools.cycle(pieces), count))


def questions(passages: Sequence[str], count: int) -> list[QueryPassages]:
    """Each of the first words of a text, and PASSAGES texts to score."""
    endless = itertools.cycle(passages)
    return [
        QueryPassages(
            " ".join(passages[number % len(passages)].split()[:QUERY_WORDS]),
            tuple(itertools.islice(endless, PASSAGES)),
        )
        for number in range(count)
    ]


def measure(
    options: Options, where: str, device: Device, passages: Sequence[str], question_count: int
) -> Report:
    """All parts, one after the other; only one kind of work has its models in memory."""
    folder = locate(MODEL).folder
    slices = options.rounds(SLICES)
    with contextlib.ExitStack() as stack:
        probe = stack.enter_context(apart(partial(products, "torch", device, Shape.read(folder))))
        gflops: dict[Precision, list[float]] = {"fp32": [], "bf16": []}

        def probe_once() -> None:
            for precision, measured in gflops.items():
                measured.append(probe((precision, options.seconds(PRODUCTS_S))))

        embedding = _embedding(stack, folder, device, passages[:256])
        embedding.courses = take_turns(embedding.subjects, in_slices(passages, slices), probe_once)
    asked = questions(passages, question_count)
    with contextlib.ExitStack() as stack:
        reranking = _reranking(stack, folder, device, asked[:2])
        reranking.courses = take_turns(reranking.subjects, in_slices(asked, slices))
    limits = {name: statistics.median(values) for name, values in gflops.items()}
    lengths = token_lengths(passages)
    flops = Shape.read(folder).token_flops(token_length(lengths))
    return Report(
        {
            "where": where,
            "tokens": sum(lengths),
            "flops_per_token": flops,
            "gflops": gflops,
            "not_run": embedding.faults | reranking.faults,
            "seconds": {
                course.name: [turn.computed.seconds for turn in course.turns]
                for course in (*embedding.courses, *reranking.courses)
            },
        },
        [
            embedding_table(embedding, where, sum(lengths), flops, limits),
            reranking_table(reranking, where, question_count * PASSAGES),
        ],
    )


def _embedding(
    stack: contextlib.ExitStack, folder: Path, device: Device, few: Sequence[str]
) -> Part[str]:
    part: Part[str] = Part()
    for setting in SETTINGS:
        make = partial(sentence_transformer, folder, setting, device)
        part.add(stack, f"{THEIRS} encode, {setting.name}", make, few)
    part.add(stack, "our encoder alone", ours_alone, few)
    ours = stack.enter_context(
        worker.running(
            "embedder_worker",
            embedding_model=MODEL,
            embedding_backend="torch",
            queue_tokens=QUEUE_TOKENS,
        )
    )
    name = f"embedder over gRPC: {ours.description.partition(', ')[2]}"
    part.add(stack, name, partial(embedding_flood, ours.target), few, ours.pid)
    return part


def _reranking(
    stack: contextlib.ExitStack, folder: Path, device: Device, few: Sequence[QueryPassages]
) -> Part[QueryPassages]:
    """A cross-encoder is made of the encoder and a head that is drawn, as in bench.reranking."""
    made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    with apart(partial(save_cross_encoder, folder)) as save:
        save(made / "cross-encoder")
    part: Part[QueryPassages] = Part()
    for setting in SETTINGS:
        make = partial(cross_encoder, made / "cross-encoder", setting, device, QUESTIONS)
        part.add(stack, f"{THEIRS} predict, {setting.name}", make, few)
    for model in (made / "cross-encoder", MODEL):
        ours = stack.enter_context(
            worker.running(
                "reranker_worker",
                reranker_model=model,
                reranker_backend="torch",
                queue_tokens=QUEUE_TOKENS,
            )
        )
        name = f"reranker over gRPC: {ours.description.partition(', ')[2]}"
        part.add(
            stack, name, partial(scoring_flood, ours.target, QUESTIONS_IN_FLIGHT), few, ours.pid
        )
    return part


def token_lengths(passages: Sequence[str]) -> list[int]:
    """Tokens of each text as the model reads it."""
    files = locate(MODEL)
    limit = json.loads((files.folder / "sentence_bert_config.json").read_bytes())
    tokenizer = Tokenizer(
        (files.folder / "tokenizer.json").read_text(),
        max_tokens=limit["max_seq_length"],
        pad_id=0,
    )
    return [len(tokens) for tokens in tokenizer.encode(passages)]


def embedding_table(
    part: Part[str], where: str, tokens: int, flops: float, gflops: Mapping[Precision, float]
) -> Table:
    """Ratios first; the share is of the GPU's matrix products in bf16, cosines are to the first."""
    rows = []
    for course in part.courses:
        tokens_per_s = tokens / course.seconds
        loss = largest_cosine_loss(course.values, part.courses[0].values)
        rows.append(
            (
                course.name,
                number(course.times_as_fast_as(part.courses[0])),
                number(course.times_as_fast_as(part.best_reference())),
                number(tokens_per_s),
                f"{tokens_per_s * flops / GIGA / gflops['bf16']:.1%}",
                f"{loss:.6f}",
            )
        )
    limit = number(gflops["bf16"] / 1000)
    columns = (
        "", "times the first", "times their best", "tokens/s", f"of {limit} TFLOP/s",
        "largest 1 - cosine",
    )  # fmt: skip
    return Table(f"Embedding on {where}", columns, rows + _not_run(part, len(columns)))


def reranking_table(part: Part[QueryPassages], where: str, pairs: int) -> Table:
    """Ratios first."""
    rows: list[tuple[str, ...]] = [
        (
            course.name,
            number(course.times_as_fast_as(part.courses[0])),
            number(course.times_as_fast_as(part.best_reference())),
            number(pairs / course.seconds),
        )
        for course in part.courses
    ]
    columns = ("", "times the first", "times their best", "pairs/s")
    return Table(f"Reranking on {where}", columns, rows + _not_run(part, len(columns)))


def _not_run(part: Part[Any], columns: int) -> list[tuple[str, ...]]:
    return [(f"{name}: not run here", *("-",) * (columns - 1)) for name in part.faults]
