"""Reranking at full speed on a CPU: our worker over gRPC, and sentence-transformers' CrossEncoder.

No package carries a cross-encoder, so one is made of the packaged encoder's weights and a head
that is freshly drawn: its speed is that of any cross-encoder of this size, its scores mean
nothing. A second worker runs the default, late interaction.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from bench import worker
from bench.apart import apart
from bench.contestants import MODEL
from bench.datasets import rust_quiz
from bench.flood import scoring_flood
from bench.options import Options
from bench.passages import passages
from bench.reference import QueryPassages, Setting, cross_encoder, save_cross_encoder
from bench.report import Report, Table, number
from bench.throughput import SETTINGS
from bench.turns import Course, Subject, in_slices, speed_targets, take_turns
from encoders.location import locate

# As RERANK_CANDIDATES; and questions in flight, so that one is always waiting.
PASSAGES: Final = 30
IN_FLIGHT: Final = 4
QUESTIONS: Final = 50
QUICK_QUESTIONS: Final = 8
SLICES: Final = 5


def run(options: Options) -> Report:
    """Scores chunks of the Rust book against the questions of its quiz."""
    questions = _questions(options.data, QUICK_QUESTIONS if options.quick else QUESTIONS)
    folder = locate(MODEL).folder
    with contextlib.ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        with apart(partial(save_cross_encoder, folder)) as save:
            save(made / "cross-encoder")
        subjects = [_reference(stack, made / "cross-encoder", setting) for setting in SETTINGS]
        # Its export belongs to a model that is gone after this run.
        exports = made / "exports"
        subjects += [
            _ours(stack, reranker_model=made / "cross-encoder", model_cache_dir=exports),
            _ours(stack),
        ]
        for subject in subjects:
            subject.compute(questions[:2])
        courses = take_turns(subjects, in_slices(questions, options.rounds(SLICES)))
    return _report(courses, questions)


def _questions(data: Path, count: int) -> list[QueryPassages]:
    """Questions of the quiz, again from the first when there are too few, each with passages."""
    queries = itertools.cycle(question.text for question in rust_quiz(data).questions)
    texts = passages(data, count * PASSAGES)
    return [
        QueryPassages(next(queries), tuple(texts[start : start + PASSAGES]))
        for start in range(0, len(texts), PASSAGES)
    ]


def _reference(
    stack: contextlib.ExitStack, folder: Path, setting: Setting
) -> Subject[QueryPassages]:
    predict = stack.enter_context(apart(partial(cross_encoder, folder, setting, "cpu", 1)))
    return Subject(f"CrossEncoder.predict, {setting.name}", predict, (predict.pid,))


def _ours(stack: contextlib.ExitStack, **settings: object) -> Subject[QueryPassages]:
    ours = stack.enter_context(worker.running("reranker_worker", **settings))
    client = stack.enter_context(apart(partial(scoring_flood, ours.target, IN_FLIGHT)))
    description = ours.description.partition(", ")[2]
    return Subject(f"reranker over gRPC: {description}", client, (ours.pid,))


def _report(courses: list[Course], questions: Sequence[QueryPassages]) -> Report:
    pairs = sum(len(question.passages) for question in questions)
    base, *_, ours, default = courses
    differences = {
        course.name: float(np.abs(course.values - base.values).max())
        for course in courses
        if course is not default  # late interaction has a scale of its own
    }
    table = Table(
        f"{len(questions):,} questions with {PASSAGES} passages each, {len(base.turns)} turn(s)",
        ("", "pairs/s", "questions/s", "× the first", "largest difference of a score", "CPU s"),
        [
            (
                course.name,
                number(pairs / course.seconds),
                number(len(questions) / course.seconds),
                number(course.times_as_fast_as(base)),
                f"{differences[course.name]:.4f}" if course.name in differences else "",
                number(course.cpu_s),
            )
            for course in courses
        ],
    )
    targets = speed_targets("pairs/s of the reranker over CrossEncoder's in fp32", ours, base)
    figures = {
        "questions": len(questions),
        "pairs": pairs,
        "seconds": {c.name: [turn.computed.seconds for turn in c.turns] for c in courses},
        "cpu_s": {c.name: [turn.cpu_s for turn in c.turns] for c in courses},
        "cpus_of_those_that_wait": {c.name: c.waiting_share for c in courses},
        "times_as_fast": {c.name: c.times_as_fast_as(base) for c in courses},
        "times_as_fast_in_total": {c.name: base.seconds / c.seconds for c in courses},
        "largest_difference_of_a_score": differences,
    }
    return Report(figures, [table], targets)
