"""Which backend, and why: the ways to run the default model on this CPU, taking turns.

Each has a process of its own: they would share each other's threads and memory otherwise.
Batches have no padding, and no gRPC, tokenizer or batcher takes part. Rounds run every shape
by every contestant once; figures are medians of the rounds.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final

import numpy as np

from bench import precisions
from bench.apart import Apart, FailedApart, apart
from bench.ceiling import Precision
from bench.contestants import BatchShape, Done, Work, contestants
from bench.options import Options
from bench.passages import passages
from bench.prepared import questions
from bench.report import Report, Table, Target, number
from bench.vectors import LEAST_COSINE, Cosines, cosines
from encoders.machine import multiplies_bf16

# One question, one passage, a call's worth of passages, a large batch. 112 tokens are what a
# passage of 512 characters has on average.
SHAPES: Final = (BatchShape(1, 16), BatchShape(1, 112), BatchShape(8, 112), BatchShape(32, 112))
QUICK_SHAPES: Final = (BatchShape(1, 16), BatchShape(8, 112))
ROUNDS: Final = 3
SECONDS: Final = 0.8
# Passages, and as many questions.
TEXTS: Final = 200
QUICK_TEXTS: Final = 20
REFERENCE: Final = "torch fp32"


@dataclass(slots=True)
class Trial:
    """What one contestant gave; empty when it cannot run here, `fault` then says why."""

    done: dict[str, list[Done]] = field(default_factory=dict)
    fault: str = ""

    def tokens_per_s(self, shape: BatchShape) -> float:
        """Median of the rounds."""
        return statistics.median(done.tokens_per_s for done in self.done[shape.name])

    @property
    def prepare_s(self) -> float:
        """Until the first batch of a shape had run: median of the shapes."""
        firsts = (max(done.prepare_s for done in rounds) for rounds in self.done.values())
        return statistics.median(firsts)

    @property
    def rss_mib(self) -> float:
        """After all work."""
        return max(done.rss_mib for rounds in self.done.values() for done in rounds)


def run(options: Options) -> Report:
    """Measures; with torch.compile's compilations about 3 minutes on 2 cores."""
    precision: Precision = "bf16" if multiplies_bf16() else "fp32"
    shapes = QUICK_SHAPES if options.quick else SHAPES
    courses = _race(precision, shapes, options)
    count = QUICK_TEXTS if options.quick else TEXTS
    texts = [*passages(options.data, count), *questions(options.data, count)]
    distances = _cosines(precision, texts)
    default = default_name(precision, courses)
    return Report(
        {
            "contestants": {name: asdict(course) for name, course in courses.items()},
            "cosines": {name: each.tolist() for name, each in distances.items()},
        },
        [speed_table(courses, shapes), cost_table(courses), cosine_table(distances)],
        [
            Target(
                f"least cosine to float32 of OpenVINO {precision}",
                float(distances[f"OpenVINO {precision}"].min()),
                LEAST_COSINE,
                at_most=False,
            ),
            Target(
                f"{default} over torch {precision}, {shapes[-1].name}",
                courses[default].tokens_per_s(shapes[-1])
                / courses[f"torch {precision}"].tokens_per_s(shapes[-1]),
                1.0,
                at_most=False,
            ),
        ],
    )


def default_name(precision: Precision, courses: Mapping[str, Trial]) -> str:
    """The contestant that workers run: OpenVINO, dynamic shapes, as many streams as CPUs."""
    started = [name for name in courses if name.startswith(f"OpenVINO {precision}, ")]
    return [name for name in started if not name.endswith("a shape each")][-1]


def _race(
    precision: Precision, shapes: tuple[BatchShape, ...], options: Options
) -> dict[str, Trial]:
    courses: dict[str, Trial] = {}
    with contextlib.ExitStack() as running:
        ready: dict[str, Apart[Work, Done]] = {}
        for name, make in contestants(precision).items():
            courses[name] = Trial()
            ready[name] = running.enter_context(apart(make))
        for _ in range(options.rounds(ROUNDS)):
            for shape in shapes:
                for name, contestant in ready.items():
                    _take_turn(courses[name], contestant, Work(shape, options.seconds(SECONDS)))
    return courses


def _take_turn(course: Trial, contestant: Apart[Work, Done], work: Work) -> None:
    """One that fails (torch.compile without a C++ compiler) is out, and the others go on."""
    if course.fault:
        return
    try:
        course.done.setdefault(work.shape.name, []).append(contestant(work))
    except FailedApart as failed:
        course.done = {}
        course.fault = str(failed).strip().splitlines()[-1]


def _cosines(precision: Precision, texts: Sequence[str]) -> dict[str, Cosines]:
    """Of each candidate to float32 in torch: a cosine a text."""
    with apart(partial(precisions.encoder_of, texts)) as vectors:
        reference = vectors(precisions.REFERENCE)
        return {
            each.name: cosines(vectors(each), reference)
            for each in precisions.candidates(precision)
        }


def speed_table(courses: Mapping[str, Trial], shapes: Sequence[BatchShape]) -> Table:
    """Multiples of the reference, tokens/s in brackets; a dash for what does not run here."""
    rows = [
        (name, *(_speed(course, courses[REFERENCE], shape) for shape in shapes))
        for name, course in courses.items()
    ]
    columns = (f"times {REFERENCE} (tokens/s)", *(shape.name for shape in shapes))
    return Table("Speed by rows x tokens of a batch", columns, rows)


def _speed(course: Trial, reference: Trial, shape: BatchShape) -> str:
    if course.fault:
        return "-"
    tokens_per_s = course.tokens_per_s(shape)
    return f"{number(tokens_per_s / reference.tokens_per_s(shape))} ({number(tokens_per_s)})"


def cost_table(courses: Mapping[str, Trial]) -> Table:
    """What being ready costs."""
    rows: list[tuple[str, ...]] = [
        (name, "-", "-")
        if course.fault
        else (name, number(course.prepare_s), number(course.rss_mib))
        for name, course in courses.items()
    ]
    columns = ("", "seconds until the first batch of a shape", "RSS with all shapes, MiB")
    return Table("Cost", columns, rows)


def cosine_table(found: Mapping[str, Cosines]) -> Table:
    """The least is what counts: a text whose vector is off is a text that is not found."""
    rows: list[tuple[str, ...]] = [
        (name, f"{each.min():.5f}", f"{np.median(each):.5f}", _verdict(each))
        for name, each in found.items()
    ]
    columns = ("", "least", "median", f"all at least {LEAST_COSINE}")
    (count,) = {len(each) for each in found.values()}
    return Table(f"Cosine to float32, {count} passages and questions", columns, rows)


def _verdict(found: Cosines) -> str:
    return "yes" if found.min() >= LEAST_COSINE else "no"
