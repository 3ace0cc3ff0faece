"""Several calls at once, and never more than a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_flight(
    send: Callable[[Item], Awaitable[Result]], items: Sequence[Item], most: int
) -> list[Result]:
    """The results of all items, in order, `most` at a time. What `send` raises comes in an
    ExceptionGroup."""
    numbered = iter(enumerate(items))
    results: dict[int, Result] = {}

    async def sender(mine: Iterator[tuple[int, Item]]) -> None:
        for number, item in mine:
            results[number] = await send(item)

    async with asyncio.TaskGroup() as senders:
        for _ in range(most):
            senders.create_task(sender(numbered))
    return [results[number] for number in range(len(items))]
