"""A function in a process of its own: its results, its faults, its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from bench.apart import FailedApart, apart


def adder(amount: int) -> Callable[[int], tuple[int, int]]:
    """Made in the other process: the result says which."""
    return lambda value: (value + amount, os.getpid())


def refusing() -> Callable[[int], int]:
    raise ValueError("cannot be made")


def hostile() -> Callable[[str], float]:
    def call(order: str) -> float:
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return float(order)

    return call


def test_it_runs_elsewhere_and_ends_with_the_block() -> None:
    with apart(partial(adder, 2)) as add:
        assert [add(value) for value in (1, 5)] == [(3, add.pid), (7, add.pid)]
        assert add.pid != os.getpid()
    assert not psutil.pid_exists(add.pid)


def test_a_fault_is_the_callers_and_the_next_call_works() -> None:
    with apart(hostile) as call:
        with pytest.raises(FailedApart, match="could not convert string to float: 'x'"):
            call("x")
        assert call("1.5") == 1.5
        with pytest.raises(FailedApart, match="is gone"):
            call("die")


def test_what_cannot_be_made_says_why() -> None:
    with pytest.raises(FailedApart, match="cannot be made"), apart(refusing):
        pass
