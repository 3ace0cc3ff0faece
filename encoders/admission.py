"""Who may wait for the model: bounded in tokens, and by whether it can finish in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from encoders.lanes import Lane
from runtime.errors import Reason, ServiceError

# Bounds of what a refused caller is told to wait.
MIN_RETRY_AFTER_S: Final = 0.05
MAX_RETRY_AFTER_S: Final = 30.0
# The speed of a stream is averaged over about this much time in which all of them compute.
SPEED_MEMORY_S: Final = 2.0
# Of a batch that says something of the capacity: one row of 16 tokens in 256 runs at two thirds of
# a full batch's speed, and on a GPU, one in 65,536 at a hundredth.
LEAST_SUPPLY: Final = 0.25
# A call is let in when it would take this share of what is left of its time. Under overload the
# queue is always as long as this lets it be, so that an estimate which is a little short would
# make every answer late: padding (7 % of the tokens), a neighbour on the machine, the way back.
DEADLINE_SHARE: Final = 0.75


class Speed:
    """Padded tokens per second, averaged with exponential decay.

    A stream's speed is the tokens of its batches over the seconds they took, whichever
    stream it was; the capacity is `streams` times that. So it is exact while all
    compute. After a time in which few did, and had the memory bandwidth and the clock to
    themselves, it is too high by what streams take from each other, until the next
    SPEED_MEMORY_S have been measured.

    Batches count by how much waited when they were chosen, and not at all below
    LEAST_SUPPLY: a question alone tells what starting a batch costs, not how much the
    model can do. Those of a long queue do, full or not: the rest will be like them.

    tokens_per_s: of one stream, measured beforehand with all of them busy; 0 is unknown.
    """

    def __init__(self, streams: int = 1, tokens_per_s: float = 0.0) -> None:
        self._streams = streams
        self._memory_s = SPEED_MEMORY_S * streams
        # What was measured beforehand counts as a quarter of a memory: soon overtaken.
        self._seconds = self._memory_s / 4 if tokens_per_s else 0.0
        self._tokens = tokens_per_s * self._seconds

    @property
    def stream_tokens_per_s(self) -> float:
        """Of one stream; 0 until something was measured."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Of all of them together, the capacity; 0 until something was measured."""
        return self._streams * self.stream_tokens_per_s

    def observe(self, tokens: int, duration_s: float, supply: float = 1.0) -> None:
        """One batch. supply: as of a `Batch`."""
        if supply < LEAST_SUPPLY and self._seconds > 0:
            return
        keep = max(0.0, 1 - supply * duration_s / self._memory_s)
        self._tokens = self._tokens * keep + supply * tokens
        self._seconds = self._seconds * keep + supply * duration_s

    def seconds_for(self, tokens: float) -> float:
        """Of all streams; 0 until something was measured: nobody is refused by a guess."""
        return tokens / self.tokens_per_s if self.tokens_per_s > 0 else 0.0

    def stream_seconds_for(self, tokens: float) -> float:
        """Of one stream, which a row cannot leave; 0 until something was measured."""
        return self.seconds_for(tokens) * self._streams

    def tokens_in(self, seconds: float, unmeasured: int) -> int:
        """Of one stream, at least 1; `unmeasured` until something was measured."""
        per_s = self.stream_tokens_per_s
        return max(1, round(per_s * seconds)) if per_s else unmeasured


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


@dataclass(frozen=True, slots=True)
class Demand:
    """Tokens of a call, and of its longest row."""

    tokens: int
    longest: int


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


def wait_s(bounds: Bounds, load: Load, speed: Speed, lane: Lane, demand: Demand) -> float:
    """When a call admitted now would be done, by the speed of late.

    All streams work off what is before it, then its own rows, of which the longest
    stays on one stream.
    """
    ahead_s = speed.seconds_for(load.running + load.own)
    own_s = max(speed.seconds_for(demand.tokens), speed.stream_seconds_for(demand.longest))
    # The other lane takes its share meanwhile, as long as it has anything to do.
    share = bounds.bulk_share if lane == "interactive" else 1 - bounds.bulk_share
    needed_s = ahead_s + own_s
    return needed_s + min(speed.seconds_for(load.other), needed_s * share / (1 - share))


def queue_full(retry_after_s: float) -> ServiceError:
    """The refusal, with a retry-after inside its bounds."""
    bounded_s = min(max(retry_after_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)
    return ServiceError(
        Reason.QUEUE_FULL, "The model's queue is too long for this request.", bounded_s
    )


def broken(retry_after_s: float) -> ServiceError:
    """The error of what comes, or still waits, while the model does not work."""
    return ServiceError(Reason.UNAVAILABLE, "The model does not work.", retry_after_s)


def draining() -> ServiceError:
    """The error of what comes, or still waits, when the batcher closes."""
    return ServiceError(Reason.DRAINING, "The worker is stopping.", 0.0)
