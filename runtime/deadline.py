"""One time budget per request: what is left of it bounds every call made for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from runtime.errors import Reason, ServiceError

# Left over for telling the caller how it ended, after a call that used its whole share.
REPORT_MARGIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at_s - time.monotonic()

    def share_s(self, most_s: float = float("inf"), *, reserve_s: float = REPORT_MARGIN_S) -> float:
        """Seconds one call may take: what is left less `reserve_s`, at most `most_s`.

        Raises ServiceError DEADLINE_EXCEEDED when nothing is left to give.
        """
        share_s = min(self.remaining_s() - reserve_s, most_s)
        if share_s <= 0:
            raise expired()
        return share_s

    def sooner(self, most_s: float, *, reserve_s: float = 0.0) -> Deadline:
        """The earlier of `most_s` from now and this deadline less `reserve_s`."""
        return Deadline(min(self.at_s - reserve_s, time.monotonic() + most_s))


def expired() -> ServiceError:
    """The error of a budget that ran out."""
    return ServiceError(Reason.DEADLINE_EXCEEDED, "The time budget of the request ran out.")
