"""From the data to an adapter's file and card: trains, examines, writes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.adapters import write_adapter
from encoders.blueprint import Kind
from encoders.location import OWN
from training.card import Card, write_card
from training.loop import TOLD_EVERY, Schedule, Task, restore, train
from training.nearest import BASE, Indices, Pool, pool_in
from training.options import Options
from training.source import source_of
from training.squad import Parts, read_paragraphs, split

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Task)


class Recipe(ABC, Generic[T]):
    """What is particular to an adapter; `T` is what is trained.

    name: of its file, and by which the command names it. steps: unless the command says otherwise.
    learning_rate, cycles: of the schedule. made_with: what else than the seed decides the result.
    about, failures: for the card.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    steps: ClassVar[int]
    learning_rate: ClassVar[float]
    cycles: ClassVar[int] = 1
    made_with: ClassVar[Mapping[str, float]]
    about: ClassVar[str]
    failures: ClassVar[Sequence[str]]

    @abstractmethod
    def new(self, device: str) -> T:
        """What is trained, before its first step."""

    @abstractmethod
    def batches(self, pool: Pool, near: Indices, seed: int) -> Callable[[int], Any]:
        """The step's number to its batch, the same always."""

    @abstractmethod
    def examine(self, task: T, parts: Parts, folder: Path) -> str:
        """Figures on articles that it was not trained on: tables in Markdown."""

    @abstractmethod
    def settings(self, parts: Parts, steps: int) -> Mapping[str, str]:
        """Of the training, for the card."""

    def finish(self, task: T) -> None:
        """Makes of what the last step left what is examined and written."""

    def tensors(self, task: T) -> dict[str, NDArray[np.floating[Any]]]:
        """Of the adapter's file."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in task.trained()}

    def train(
        self, parts: Parts, folder: Path, *, steps: int, seed: int, device: str
    ) -> tuple[T, list[float]]:
        """Trains on `parts.training`; returns what was trained, not finished yet, and its mean
        losses, one for each 50 steps.

        folder: the work folder; a run that was broken off there is taken up again.
        Raises ValueError when the folder holds a run with other settings or on other data.
        """
        pool, near = pool_in(folder, parts.training)
        # Here: what loading the base's embedder may draw depends on the caches of this machine.
        torch.manual_seed(seed)
        task = self.new(device)
        schedule = Schedule(steps, self.learning_rate, cycles=self.cycles)
        batches = self.batches(pool, near, seed)
        made_with = {"seed": seed, **self.made_with}
        return task, train(task, batches, schedule, folder / self.name, made_with=made_with)

    def load(self, folder: Path, device: str) -> tuple[T, int]:
        """What the checkpoint in the work folder holds, finished, and the steps it was trained.

        Raises FileNotFoundError when there is no checkpoint.
        """
        task = self.new(device)
        steps = restore(folder / self.name, dict(task.trained()))
        self.finish(task)
        return task, steps

    def make(self, options: Options) -> Path:
        """Trains (or goes on), examines, and writes file and card; returns the adapter's path.

        Raises ValueError as `train` does.
        """
        parts = split(read_paragraphs(options.squad_file))
        steps = options.steps or self.steps
        log.info("%d steps of the %s", steps, self.name)
        task, losses = self.train(
            parts, options.folder, steps=steps, seed=options.seed, device=options.device
        )
        self.finish(task)
        figures = self.examine(task, parts, options.folder)
        given = [file.read_text().strip() for file in options.figures]
        # Last: file and card change together, or neither does.
        path = self.write(task, options.output)
        write_card(path, self._card(options, parts, steps, losses, [figures, *given]))
        return path

    def examined(self, options: Options) -> str:
        """Figures of the checkpoint in the work folder, in Markdown; nothing is written.

        Raises FileNotFoundError when there is none.
        """
        parts = split(read_paragraphs(options.squad_file))
        task, steps = self.load(options.folder, options.device)
        log.info("examines the %s after %d steps", self.name, steps)
        return self.examine(task, parts, options.folder)

    def write(self, task: T, folder: Path) -> Path:
        """Writes the adapter's file into the folder, which is made; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.safetensors"
        write_adapter(path, self.tensors(task), kind=self.kind, base=BASE)
        return path

    def _card(
        self, options: Options, parts: Parts, steps: int, losses: list[float], figures: list[str]
    ) -> Card:
        source = source_of(options)
        command = (
            f"python -m training {self.name} --steps {steps} --seed {options.seed}{source.argument}"
        )
        return Card(
            name=f"{OWN}{self.name}",
            about=self.about,
            licence=source.licence,
            data=[source.data],
            settings={
                **self.settings(parts, steps),
                "precision": "base in bfloat16, adapters in float32",
                "seed": str(options.seed),
                **source.settings,
            },
            losses=losses,
            loss_steps=TOLD_EVERY,
            figures=figures,
            failures=self.failures,
            command=command,
        )
