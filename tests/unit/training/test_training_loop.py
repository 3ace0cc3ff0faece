"""Training: it learns, and a run that was broken off goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.training import paragraphs, pool_and_near, tiny_reader

from training.examples import Examples, Row
from training.loop import TOLD_EVERY, Schedule, restore, train
from training.reader import Reader

SCHEDULE = Schedule(3 * TOLD_EVERY, 3e-3)
MADE = {"seed": 1, "near": 0.5}


class BrokenOffError(Exception):
    """As a kill would."""


def few(folder: Path, most: int = 10**9) -> Callable[[int], list[Row]]:
    """Eight rows of each batch; fails at the step `most`."""
    examples = Examples(*pool_and_near(paragraphs()), seed=1)

    def batch(step: int) -> list[Row]:
        if step == most:
            raise BrokenOffError
        return examples(step)[:8]

    return batch


def weights(reader: Reader) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in reader.trained()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reader, list[float]]:
    """A run from its beginning to its end."""
    folder = tmp_path_factory.mktemp("whole")
    reader = tiny_reader(folder)
    return folder, reader, train(reader, few(folder), SCHEDULE, folder / "run", made_with=MADE)


def test_a_short_run_improves_the_loss(whole: tuple[Path, Reader, list[float]]) -> None:
    _, _, losses = whole
    assert len(losses) == 3
    # Two choices among a dozen tokens: chance is 5. These were 3.1 and 1.3.
    assert losses[2] < 0.6 * losses[0]


def test_what_the_base_knows_stays(whole: tuple[Path, Reader, list[float]]) -> None:
    folder, reader, _ = whole
    fresh = tiny_reader(folder).bert.state_dict()
    frozen = {key: value for key, value in reader.bert.state_dict().items() if key in fresh}
    learnt = {f"bert.{name}" for name, _ in reader.bert.bert.named_parameters() if "up" in name}
    assert learnt
    for key, value in frozen.items():
        if not key.endswith((".down", ".up")):
            assert torch.equal(value, fresh[key]), key


def test_a_run_broken_off_and_taken_up_again_gives_the_same_weights(
    whole: tuple[Path, Reader, list[float]],
) -> None:
    folder, uninterrupted, losses = whole
    broken = folder / "broken"
    # Not at a checkpoint: steps 101 to 119 are lost and done again.
    with pytest.raises(BrokenOffError):
        train(
            tiny_reader(folder), few(folder, 120), SCHEDULE, broken, made_with=MADE, checkpoint_s=0
        )
    # Its own first weights are no matter.
    again = tiny_reader(folder, seed=5)
    assert train(again, few(folder), SCHEDULE, broken, made_with=MADE) == losses
    wanted = weights(uninterrupted)
    assert weights(again).keys() == wanted.keys()
    for name, tensor in weights(again).items():
        assert torch.equal(tensor, wanted[name]), name


def test_the_checkpoint_holds_the_last_weights(whole: tuple[Path, Reader, list[float]]) -> None:
    folder, reader, _ = whole
    restored = tiny_reader(folder, seed=5)
    assert restore(folder / "run", dict(restored.trained())) == SCHEDULE.steps
    wanted = weights(reader)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights(restored).items())


@pytest.mark.parametrize(
    ("schedule", "made_with"), [(Schedule(200, 3e-3), MADE), (SCHEDULE, {"seed": 2, "near": 0.5})]
)
def test_a_run_with_other_settings_is_not_taken_up(
    whole: tuple[Path, Reader, list[float]], schedule: Schedule, made_with: dict[str, float]
) -> None:
    folder, _, _ = whole
    with pytest.raises(ValueError, match="another folder"):
        train(tiny_reader(folder), few(folder), schedule, folder / "run", made_with=made_with)


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(100, 1.0, warm_up=0.1)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[10] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0.01, abs=1e-3)


def test_each_cycle_is_a_schedule_of_its_own() -> None:
    one, three = Schedule(100, 1.0), Schedule(300, 1.0, cycles=3)
    assert [three.factor(step) for step in range(300)] == 3 * [
        one.factor(step) for step in range(100)
    ]
