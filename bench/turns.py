"""Several that do the same work take turns, so that the machine's mood is the same for all."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np

from bench.processes import cpu_s
from bench.reference import Computed
from bench.report import Target
from bench.vectors import Floats

Item = TypeVar("Item")

# Times as fast as sentence-transformers in fp32: what is asked of us, and what we hope for.
FLOOR: Final = 4.0
AIM: Final = 6.0


@dataclass(frozen=True, slots=True)
class Subject(Generic[Item]):
    """One that is measured.

    pids: its processes; that of the client is not among them.
    """

    name: str
    compute: Callable[[Sequence[Item]], Computed]
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One slice by one subject: what it gave, CPU seconds of it, and of those that waited."""

    computed: Computed
    cpu_s: float
    waiting_cpu_s: float


@dataclass(frozen=True, slots=True)
class Course:
    """All turns of one subject, a slice each."""

    name: str
    turns: list[Turn] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """For all slices."""
        return sum(turn.computed.seconds for turn in self.turns)

    @property
    def cpu_s(self) -> float:
        """For all slices."""
        return sum(turn.cpu_s for turn in self.turns)

    @property
    def waiting_share(self) -> float:
        """CPUs that the others kept busy, while waiting, during its turns: near 0."""
        return sum(turn.waiting_cpu_s for turn in self.turns) / self.seconds

    @property
    def values(self) -> Floats:
        """Of all slices, in order."""
        return np.concatenate([turn.computed.values for turn in self.turns])

    def times_as_fast_as(self, other: Course) -> float:
        """Median over the slices of the other's seconds by its own."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(
            theirs.computed.seconds / own.computed.seconds for own, theirs in pairs
        )


def speed_targets(figure: str, ours: Course, base: Course) -> list[Target]:
    """`figure`, ours over that of `base`, against FLOOR and AIM."""
    return [
        Target(f"{figure} ({name})", ours.times_as_fast_as(base), limit, at_most=False)
        for name, limit in (("floor", FLOOR), ("aim", AIM))
    ]


def take_turns(
    subjects: Sequence[Subject[Item]],
    slices: Sequence[Sequence[Item]],
    after_each: Callable[[], None] = lambda: None,
) -> list[Course]:
    """Every slice by every subject, one after the other, then `after_each()`."""
    courses = [Course(subject.name) for subject in subjects]
    for one in slices:
        for subject, course in zip(subjects, courses, strict=True):
            before = _cpu_s(subjects)
            computed = subject.compute(one)
            spent = {name: now_s - before[name] for name, now_s in _cpu_s(subjects).items()}
            own_s = spent.pop(subject.name)
            course.turns.append(Turn(computed, own_s, sum(spent.values())))
        after_each()
    return courses


def in_slices(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """`count` runs of neighbours, equally long or one longer. Raises ValueError for fewer items."""
    if not 0 < count <= len(items):
        raise ValueError(f"{len(items)} items are not enough for {count} slices")
    bounds = [len(items) * index // count for index in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(bounds)]


def _cpu_s(subjects: Sequence[Subject[Item]]) -> dict[str, float]:
    return {subject.name: sum(map(cpu_s, subject.pids)) for subject in subjects}
