"""Who may wait for the model: bounded in tokens, and by whether it can finish in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from encoders.lanes import Lane
from runtime.errors import Reason, ServiceError

# Bounds of what a refused caller is told to wait.
MIN_RETRY_AFTER_S: Final = 0.05
MAX_RETRY_AFTER_S: Final = 30.0
# The speed of the model is averaged over about this much of its own time.
SPEED_MEMORY_S: Final = 2.0


class Speed:
    """Padded tokens per second of the model's own time, averaged with exponential decay."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    @property
    def tokens_per_s(self) -> float:
        """0 until something was measured."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def observe(self, tokens: int, duration_s: float) -> None:
        """One batch."""
        keep = max(0.0, 1 - duration_s / SPEED_MEMORY_S)
        self._tokens = self._tokens * keep + tokens
        self._seconds = self._seconds * keep + duration_s

    def seconds_for(self, tokens: float) -> float:
        """0 until something was measured: nobody is refused by a guess."""
        return tokens / self.tokens_per_s if self.tokens_per_s > 0 else 0.0

    def tokens_in(self, seconds: float, unmeasured: int) -> int:
        """At least 1; `unmeasured` until something was measured."""
        return max(1, round(self.tokens_per_s * seconds)) if self.tokens_per_s else unmeasured


class Bounds(Protocol):
    """The part of a batcher's limits that decides who may wait."""

    @property
    def queue_tokens(self) -> int: ...
    @property
    def bulk_queue_share(self) -> float: ...
    @property
    def bulk_share(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens before a newcomer: waiting in its own lane, in the other one, and running."""

    own: int
    other: int
    running: int

    @property
    def idle(self) -> bool:
        """Nothing at all."""
        return not (self.own or self.other or self.running)


def excess_tokens(bounds: Bounds, load: Load, lane: Lane, tokens: int) -> int:
    """By how many tokens a call is too large for the queue; 0 when it fits.

    Bulk may take its share of the queue only, so that it never locks interactive
    callers out. A call that is larger than the queue waits only alone.
    """
    excess = load.own + load.other + tokens - bounds.queue_tokens if load.own + load.other else 0
    if lane == "bulk" and load.own:
        excess = max(
            excess, load.own + tokens - round(bounds.queue_tokens * bounds.bulk_queue_share)
        )
    return max(0, excess)


def wait_s(bounds: Bounds, load: Load, speed: Speed, lane: Lane, tokens: int) -> float:
    """When a call admitted now would be done, by the speed of late."""
    needed_s = speed.seconds_for(load.running + load.own + tokens)
    # The other lane takes its share meanwhile, as long as it has anything to do.
    share = bounds.bulk_share if lane == "interactive" else 1 - bounds.bulk_share
    return needed_s + min(speed.seconds_for(load.other), needed_s * share / (1 - share))


def queue_full(retry_after_s: float) -> ServiceError:
    """The refusal, with a retry-after inside its bounds."""
    bounded_s = min(max(retry_after_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)
    return ServiceError(
        Reason.QUEUE_FULL, "The model's queue is too long for this request.", bounded_s
    )


def draining() -> ServiceError:
    """The error of what comes, or still waits, when the batcher closes."""
    return ServiceError(Reason.DRAINING, "The worker is stopping.", 0.0)
