"""Loads of gRPC calls, and what became of each: what a client process is told, and tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.schedule import Schedule

OK = "OK"
REFUSED = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class Load:
    """Calls of one method for `duration_s`.

    method: full path, "/package.Service/Method".
    requests: serialised messages, sent in turn, again and again.
    timeout_s: of each call, from the moment it is due.
    """

    method: str
    requests: tuple[bytes, ...]
    schedule: Schedule
    duration_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one call.

    due_s: when it was to be sent, from the start of the load.
    late_s: how much later the client got round to it.
    took_s: from then to the answer, whichever it was.
    code: the status; reason: `ErrorInfo.reason` of an error, or empty.
    model_ms, queue_ms: what the worker says of its time, where it says it.
    retry_after_s: what a refusal says.
    """

    due_s: float
    late_s: float
    took_s: float
    code: str
    reason: str = ""
    model_ms: float | None = None
    queue_ms: float | None = None
    retry_after_s: float | None = None

    @property
    def latency_s(self) -> float:
        """From the moment it was due: a client that is late hides nothing."""
        return self.late_s + self.took_s

    @property
    def done_s(self) -> float:
        """When it was answered, from the start of the load."""
        return self.due_s + self.latency_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one load gave. cpu_s: of the client's process, while it ran; nice: its priority."""

    calls: tuple[Call, ...]
    duration_s: float
    cpu_s: float
    nice: int


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a load that counts: the queue has filled, and arrivals go on to its end."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """Seconds."""
        return self.end_s - self.start_s

    def rate_done(self, calls: Sequence[Call], wanted: Callable[[Call], bool]) -> float:
        """Calls per second that were answered inside the window, of those `wanted`."""
        done = sum(self.start_s <= call.done_s < self.end_s and wanted(call) for call in calls)
        return done / self.length_s

    def due(self, calls: Sequence[Call]) -> list[Call]:
        """The calls that were due inside the window."""
        return [call for call in calls if self.start_s <= call.due_s < self.end_s]


def good(call: Call, deadline_s: float) -> bool:
    """Answered, inside its deadline."""
    return call.code == OK and call.latency_s <= deadline_s
