"""What a run is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """data: the evaluation data's folder; quick: one short round, to try things out;
        its results are kept apart and never published.

    chunking: `chunk_size` and `overlap` for retrieval; empty leaves the system's defaults.
    minutes: how long memory is watched; None: as long as the measurement itself says.
    rerankers: models that `reranked` tries, hub names or folders; empty: its own choice.
    """

    data: Path
    quick: bool = False
    chunking: dict[str, int] = field(default_factory=dict)
    minutes: float | None = None
    rerankers: tuple[str, ...] = ()

    def rounds(self, full: int) -> int:
        """Interleaved rounds; medians need several."""
        return 1 if self.quick else full

    def seconds(self, full: float) -> float:
        """Length of one piece of load."""
        return full / 4 if self.quick else full
