"""What a training run is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.squad import SQUAD

# Where adapters lie in the package, each with its card.
TRAINED: Final = Path(__file__).resolve().parents[1] / "encoders" / "trained"


@dataclass(frozen=True, slots=True)
class Options:
    """data: the folder that holds the evaluation data.

    own_data: a file in SQuAD's format to train on in SQuAD's place; None: SQuAD.
    folder: the work folder. output: where the adapter and its card are written.
    steps: None: as many as the adapter that ships was given.
    device: as torch names it. figures: files with tables in Markdown that the card shows.
    """

    data: Path
    own_data: Path | None
    folder: Path
    output: Path
    steps: int | None
    seed: int
    device: str
    figures: tuple[Path, ...]

    @property
    def squad_file(self) -> Path:
        """What is trained on."""
        return self.own_data or self.data / SQUAD
