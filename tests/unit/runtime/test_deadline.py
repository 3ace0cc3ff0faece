"""The time budget."""

import pytest

from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


def test_a_share_is_what_is_left_less_the_reserve() -> None:
    deadline = Deadline.after(10)
    assert deadline.share_s(reserve_s=1) == pytest.approx(9, abs=0.5)
    assert deadline.share_s(2) == 2


@pytest.mark.parametrize("left_s", [-1.0, 0.0, 0.04])
def test_nothing_left_to_give_is_an_error(left_s: float) -> None:
    with pytest.raises(ServiceError) as caught:
        Deadline.after(left_s).share_s()
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


def test_sooner_is_never_later() -> None:
    deadline = Deadline.after(10)
    assert deadline.sooner(2).remaining_s() == pytest.approx(2, abs=0.5)
    assert deadline.sooner(60).at_s == deadline.at_s
    assert deadline.sooner(60, reserve_s=1).at_s == deadline.at_s - 1
