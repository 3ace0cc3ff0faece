"""When calls are sent: one after another, at random, or evenly spread."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

# An even schedule draws each call's moment inside the middle of its own slot: never in step
# with anything, and never less than two fifths of a slot after the call before it.
SLOT_EDGE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Closed:
    """So many calls in flight, each followed by the next when it is answered."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Poisson:
    """An open loop: independent arrivals, as many users make them, whatever was answered."""

    rate_per_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Even:
    """An open loop of one call in each slot of 1/rate: they do not queue behind each other."""

    rate_per_s: float
    seed: int


Schedule = Closed | Poisson | Even


def arrivals_s(schedule: Poisson | Even, duration_s: float) -> list[float]:
    """Seconds after the start at which each call is due, ascending, all before `duration_s`."""
    rng = random.Random(schedule.seed)
    if isinstance(schedule, Even):
        slots = int(duration_s * schedule.rate_per_s)
        return [
            (slot + rng.uniform(SLOT_EDGE, 1 - SLOT_EDGE)) / schedule.rate_per_s
            for slot in range(slots)
        ]
    dues_s = []
    due_s = rng.expovariate(schedule.rate_per_s)
    while due_s < duration_s:
        dues_s.append(due_s)
        due_s += rng.expovariate(schedule.rate_per_s)
    return dues_s
