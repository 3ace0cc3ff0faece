"""The training loop: seeded, bounded, and taken up again where it was broken off."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

_CLIP_NORM: Final = 1.0
# Losses are told and averaged over so many steps.
TOLD_EVERY: Final = 50
_CHECKPOINT: Final = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Schedule:
    """learning_rate: at its highest, after `warm_up` (a share of a cycle's steps); then it falls
    along a cosine to a hundredth.
    cycles: how often it does so within all steps, in equal parts (Loshchilov and Hutter 2017,
    "SGDR": warm restarts). At the end of each the weights are good to use.
    """

    steps: int
    learning_rate: float
    warm_up: float = 0.05
    weight_decay: float = 0.01
    cycles: int = 1

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by in this step, 0..1."""
        cycle = math.ceil(self.steps / self.cycles)
        within = step % cycle
        first = max(1, round(cycle * self.warm_up))
        if within < first:
            return (within + 1) / first
        done = (within - first) / max(1, cycle - first)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


class Task(Protocol):
    """What is trained."""

    def trained(self) -> Sequence[tuple[str, nn.Parameter]]:
        """What learns, by the names it has in an adapter's file."""

    def loss(self, batch: Any) -> Tensor:
        """Of one batch, in nats."""


@dataclass(slots=True)
class _Progress:
    """steps that are done, and the mean losses of each TOLD_EVERY of them."""

    step: int
    told: list[float]


def train(
    task: Task,
    batch: Callable[[int], Any],
    schedule: Schedule,
    folder: Path,
    *,
    made_with: Mapping[str, float],
    checkpoint_s: float = 300.0,
) -> list[float]:
    """Runs `schedule.steps` steps, or what is left of them; returns the mean losses, one for each
    50 steps.

    task: on the device on which it is trained.
    batch: the step's number to its batch, the same always, so that a run that was broken off
        goes on with what it has not seen.
    folder: is made, and keeps a checkpoint, written every `checkpoint_s` seconds and at the end.
    made_with: the seed, and all else that decides the batches, the first weights and the loss;
        kept with the schedule, so that a card never says what a checkpoint was not made with.
    Raises ValueError when the checkpoint is of another schedule, or made with something else.
    """
    parameters = dict(task.trained())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    settings = {**asdict(schedule), **made_with}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _CHECKPOINT
    done = _resume(path, settings, parameters, optimizer)
    first, sums, saved_s, began_s = done.step, 0.0, time.monotonic(), time.monotonic()
    while done.step < schedule.steps:
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * schedule.factor(done.step)
        sums += _step(task, batch(done.step), parameters, optimizer)
        done.step += 1
        whole = done.step % TOLD_EVERY == 0
        if whole:
            done.told.append(sums / TOLD_EVERY)
            sums = 0.0
            step_s = (time.monotonic() - began_s) / (done.step - first)
            log.info(_line(done, schedule.steps, step_s))
        # At a round number of steps: the mean in progress is not kept.
        if done.step == schedule.steps or (whole and time.monotonic() - saved_s > checkpoint_s):
            _save(path, done, settings, parameters, optimizer)
            saved_s = time.monotonic()
    return done.told


def restore(folder: Path, parameters: Mapping[str, nn.Parameter]) -> int:
    """Copies the weights of the folder's checkpoint into the parameters; returns the steps that
    they were trained.

    Raises FileNotFoundError when there is no checkpoint.
    """
    kept = torch.load(folder / _CHECKPOINT, map_location="cpu", weights_only=True)
    _copy(kept["weights"], parameters)
    return int(kept["step"])


def _step(
    task: Task,
    batch: Any,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> float:
    loss = task.loss(batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters.values(), _CLIP_NORM)
    optimizer.step()
    return float(loss.detach())


def _line(done: _Progress, steps: int, step_s: float) -> str:
    left_s = (steps - done.step) * step_s
    return (
        f"step {done.step} of {steps}: loss {done.told[-1]:.4f}, {step_s:.2f} s a step, "
        f"{left_s / 60:.0f} min left"
    )


def _save(
    path: Path,
    done: _Progress,
    settings: Mapping[str, float],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    whole = path.with_suffix(".new")
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    kept = {
        "step": done.step,
        "told": done.told,
        "settings": dict(settings),
        "weights": weights,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(kept, whole)
    whole.rename(path)


def _resume(
    path: Path,
    settings: Mapping[str, float],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> _Progress:
    if not path.is_file():
        return _Progress(0, [])
    # A run may go on on another device: both copy to where the parameters are.
    kept = torch.load(path, map_location="cpu", weights_only=True)
    if kept["settings"] != settings:
        raise ValueError(
            f"{path} is of a run with {kept['settings']}, not {dict(settings)}: "
            "take another folder, or delete it"
        )
    _copy(kept["weights"], parameters)
    optimizer.load_state_dict(kept["optimizer"])
    log.info("goes on at step %d", kept["step"])
    return _Progress(int(kept["step"]), list(kept["told"]))


def _copy(weights: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
