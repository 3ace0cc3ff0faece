"""Who may wait for the model: bounded in tokens, and by whether it can finish in time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Protocol

from encoders.batch_metrics import Shed
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
# At three times the capacity .75 let in 3 % of the calls to answer them late, .6 none.
DEADLINE_SHARE: Final = 0.6
# A call that would take so many times what is left of its time is refused by an idle model too.
# Less would trust the estimate too far: a speed measured in a bad moment would refuse calls that
# could be answered, and with nothing computed it would never be measured again.
HOPELESS_TIMES: Final = 4.0


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


def alone_s(speed: Speed, demand: Demand) -> float:
    """What a call takes with nothing before it, by the speed of late."""
    return max(speed.seconds_for(demand.tokens), speed.stream_seconds_for(demand.longest))


def wait_s(bounds: Bounds, load: Load, speed: Speed, lane: Lane, demand: Demand) -> float:
    """When a call admitted now would be done, by the speed of late.

    All streams work off what is before it, then its own rows, of which the longest
    stays on one stream.
    """
    ahead_s = speed.seconds_for(load.running + load.own)
    # The other lane takes its share meanwhile, as long as it has anything to do.
    share = bounds.bulk_share if lane == "interactive" else 1 - bounds.bulk_share
    needed_s = ahead_s + alone_s(speed, demand)
    return needed_s + min(speed.seconds_for(load.other), needed_s * share / (1 - share))


def refusal(
    bounds: Bounds,
    load: Load,
    speed: Speed,
    demand: Demand,
    *,
    lane: Lane,
    remaining_s: float | None,
) -> tuple[Shed, ServiceError] | None:
    """Why a call may not wait, by its cause and as its caller is told; None when it may.

    An idle model takes whatever is not hopeless: what it cannot do in time, only trying
    will tell, and measures its speed anew.
    """
    if remaining_s is not None:
        least_s = alone_s(speed, demand)
        if least_s > remaining_s * HOPELESS_TIMES:
            return "too_late", hopeless(least_s, remaining_s)
    if load.idle:
        return None
    excess = excess_tokens(bounds, load, lane, demand.tokens)
    if excess:
        retry_s = retry_after_s(load, speed, speed.seconds_for(excess))
        return "queue_full", queue_full(bounds, load, retry_s)
    if remaining_s is None:
        return None
    needed_s = wait_s(bounds, load, speed, lane, demand)
    late_s = needed_s - remaining_s * DEADLINE_SHARE
    if late_s <= 0:
        return None
    return "too_late", too_late(needed_s, remaining_s, retry_after_s(load, speed, late_s))


def retry_after_s(load: Load, speed: Speed, least_s: float) -> float:
    """What a refused caller is told to wait: half of what waits before it, `least_s` at least.

    By then there is room, and work is left for the model, so that it never idles for callers
    who do as they are told. Spread by a quarter, for those who were refused together. (Told
    only how long it takes until their own tokens fit in, 80 callers of 32 texts made 1,999
    attempts within 26 s.)
    """
    hint_s = max(least_s, speed.seconds_for(load.running + load.own) / 2)
    spread_s = hint_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
    return min(max(spread_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)


def queue_full(bounds: Bounds, load: Load, retry_s: float) -> ServiceError:
    """The refusal of what does not fit into the queue."""
    waiting = load.own + load.other
    return ServiceError(
        Reason.QUEUE_FULL,
        f"The model's queue is full: {waiting} of {bounds.queue_tokens} tokens wait.",
        retry_s,
    )


def too_late(needed_s: float, remaining_s: float, retry_s: float) -> ServiceError:
    """The refusal of what would wait longer than its caller can."""
    return ServiceError(
        Reason.QUEUE_FULL,
        f"The model's queue is too long: it would take {needed_s:.2g} s, "
        f"and {remaining_s:.2g} s are left.",
        retry_s,
    )


def hopeless(alone_s: float, remaining_s: float) -> ServiceError:
    """The refusal of what takes far longer than its caller can wait, with nothing before it."""
    return ServiceError(
        Reason.DEADLINE_EXCEEDED,
        f"The model needs about {alone_s:.2g} s for this request, and {remaining_s:.2g} s are "
        "left: send less at once, or wait longer.",
    )


def broken(retry_after_s: float) -> ServiceError:
    """The error of what comes, or still waits, while the model does not work."""
    return ServiceError(Reason.UNAVAILABLE, "The model does not work.", retry_after_s)


def draining() -> ServiceError:
    """The error of what comes, or still waits, when the batcher closes."""
    return ServiceError(Reason.DRAINING, "The worker is stopping.", 0.0)
