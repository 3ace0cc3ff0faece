"""Whose turn it is: interactive work goes first, and bulk keeps a minimum share."""

from __future__ import annotations

from dataclasses import dataclass

from encoders.lanes import Lane


@dataclass(slots=True)
class Turns:
    """Accounts of the model's time, in seconds of one stream.

    bulk_share: of the time while both lanes wait.
    quantum_s: a bulk batch's time; once so much is owed to bulk, it is bulk's turn.
    """

    bulk_share: float
    quantum_s: float
    _owed_s: float = 0.0

    def next(self, *, interactive: bool, bulk: bool) -> Lane | None:
        """The lane whose turn it is, of those where something waits."""
        if bulk and (not interactive or self._owed_s >= self.quantum_s):
            return "bulk"
        return "interactive" if interactive else None

    def bulk_starts(self, expected_s: float, *, interactive: bool) -> float:
        """Takes what a batch will probably need off what is owed; what was taken.

        At its start: several streams would all serve the same debt otherwise. Time that
        nobody else wants is free.
        """
        if not interactive:
            self._owed_s = 0.0
            return 0.0
        self._owed_s = max(self._owed_s - expected_s, -expected_s)
        return expected_s

    def bulk_ended(self, taken_s: float, duration_s: float) -> None:
        """Puts right what `bulk_starts` took, if it took anything."""
        if taken_s:
            self._owed_s += taken_s - duration_s

    def interactive_ended(self, duration_s: float, *, bulk: bool) -> None:
        """Bulk that waits earns its share of it."""
        earned_s = duration_s * self.bulk_share / (1 - self.bulk_share)
        self._owed_s = self._owed_s + earned_s if bulk else 0.0
