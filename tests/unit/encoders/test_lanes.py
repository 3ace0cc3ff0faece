"""How a batch is cut from a lane."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from encoders.lanes import (
    FREE_PADDING_TOKENS,
    MAX_PADDING_SHARE,
    Item,
    Job,
    LaneQueue,
    choose_batch,
)

Row = Item[int, int]


def rows(lengths: list[int]) -> list[Row]:
    loop = asyncio.new_event_loop()
    answers = [loop.create_future() for _ in lengths]
    loop.close()
    jobs: list[Job[int, int]] = [
        Job("bulk", float(index), None, answer, [], 1) for index, answer in enumerate(answers)
    ]
    return [Item(job, 0, job_index, lengths[job_index]) for job_index, job in enumerate(jobs)]


def padded(tokens: int) -> int:
    return -(-tokens // 8) * 8


lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(lengths, st.integers(1, 2000), st.integers(1, 64))
def test_a_batch_holds_the_oldest_and_keeps_its_bounds(
    sizes: list[int], budget: int, most: int
) -> None:
    window = rows(sizes)
    batch = choose_batch(window, budget_tokens=budget, most_items=most, padded=padded)
    assert window[0] in batch
    assert len(batch) <= most
    assert len({id(item) for item in batch}) == len(batch)
    cost = len(batch) * padded(max(item.tokens for item in batch))
    assert cost <= budget or batch == [window[0]]
    waste = cost - sum(padded(item.tokens) for item in batch)
    if len(batch) > 1:
        assert waste <= max(FREE_PADDING_TOKENS, cost * MAX_PADDING_SHARE)


@given(lengths)
def test_equal_lengths_go_in_order_of_arrival(sizes: list[int]) -> None:
    window = rows([sizes[0]] * len(sizes))
    batch = choose_batch(window, budget_tokens=10**9, most_items=5, padded=padded)
    assert batch == window[:5]


def test_a_short_text_does_not_ride_with_long_ones() -> None:
    window = rows([8, 250, 250, 9, 10])
    batch = choose_batch(window, budget_tokens=10_000, most_items=64, padded=padded)
    assert sorted(item.tokens for item in batch) == [8, 9, 10]


@given(lengths, st.randoms(use_true_random=False))
def test_a_queue_counts_what_it_holds_whoever_leaves(sizes: list[int], random: object) -> None:
    queue: LaneQueue[int, int] = LaneQueue()
    waiting = rows(sizes)
    for item in waiting:
        queue.add(item)
    leaving = list(waiting)
    random.shuffle(leaving)  # type: ignore[attr-defined]
    for item in leaving:
        assert queue.tokens == sum(other.tokens for other in waiting)
        assert queue.oldest_s == waiting[0].job.arrived_s
        assert queue.window(3) == waiting[:3]
        queue.remove(item)
        waiting.remove(item)
    assert (queue.tokens, queue.oldest_s, len(queue)) == (0, None, 0)
