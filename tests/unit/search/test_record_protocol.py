"""Writes that are stopped, killed and overtaken at every call they make to the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from support.gateways import Gateway, at_steps, documents, kill, only_what_counts, steps
from support.store import COLLECTION, soon

Operation = Callable[[Gateway], Awaitable[object]]

OPERATIONS: dict[str, Operation] = {
    "add": lambda gateway: gateway.put("new", "mine"),
    "replace": lambda gateway: gateway.put("a", "mine"),
    "delete": lambda gateway: gateway.delete("a"),
    "settle": lambda gateway: gateway.settle("a"),
}
BEFORE = {"a": "one", "b": "two", "c": "three"}
AFTER = {
    "add": {**BEFORE, "new": "mine"},
    "replace": {**BEFORE, "a": "mine"},
    "delete": {"b": "two", "c": "three"},
    "settle": BEFORE,
}


async def nothing(_: Gateway) -> None:
    """No rebuild."""


async def copy(gateway: Gateway) -> None:
    await gateway.copy()


async def switch(gateway: Gateway) -> None:
    await gateway.switch()


async def switch_and_retire(gateway: Gateway) -> None:
    await gateway.switch()
    await gateway.retire()


async def abandon(gateway: Gateway) -> None:
    await gateway.abandon()


async def rebuild(gateway: Gateway) -> None:
    await gateway.rebuild()


async def rebuild_and_retire(gateway: Gateway) -> None:
    await gateway.rebuild()
    await gateway.retire()


async def rebuild_twice(gateway: Gateway) -> None:
    await gateway.rebuild("one")
    await gateway.rebuild("two")


async def abandon_and_copy_again(gateway: Gateway) -> None:
    await gateway.abandon()
    await gateway.copy()


async def a_store(first: Operation) -> Gateway:
    """A writer who knows the stamp, on a store in which another has begun a rebuild, or not."""
    writer = Gateway()
    await writer.start()
    for document_id, text in BEFORE.items():
        await writer.put(document_id, text)
    await first(Gateway(writer))
    await writer.search._stamps.fresh(COLLECTION, soon())
    return writer


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("first", [nothing, copy])
async def test_killed_at_any_call_it_leaves_the_old_or_the_new(name: str, first: Operation) -> None:
    for number in steps():
        writer = await a_store(first)
        killed = await at_steps(writer, [(number, kill)], OPERATIONS[name](writer))
        other = Gateway(writer)
        assert await documents(other) in (BEFORE, AFTER[name])
        # Whoever comes after finishes what was begun, and nothing is torn by it.
        await other.rebuild()
        left = await documents(other)
        assert left in (BEFORE, AFTER[name])
        await only_what_counts(other)
        if not killed:
            assert left == AFTER[name]
            return


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    ("first", "meanwhile", "last"),
    [
        (nothing, copy, switch),
        (nothing, copy, abandon),
        (nothing, rebuild, nothing),
        (nothing, rebuild_and_retire, nothing),
        (nothing, rebuild_twice, nothing),
        (copy, switch, nothing),
        (copy, switch_and_retire, nothing),
        (copy, abandon, nothing),
        (copy, abandon_and_copy_again, switch),
        (copy, nothing, switch),
    ],
)
async def test_acknowledged_it_stays_whatever_a_rebuild_does_meanwhile(
    name: str, first: Operation, meanwhile: Operation, last: Operation
) -> None:
    for number in steps():
        writer = await a_store(first)
        other = Gateway(writer)
        acts = [(number, partial(meanwhile, other))]
        if not await at_steps(writer, acts, OPERATIONS[name](writer)):
            return
        await last(Gateway(writer))
        assert await documents(writer) == AFTER[name]
        await only_what_counts(writer)


@pytest.mark.parametrize("name", ["replace", "delete", "settle"])
async def test_a_rebuild_is_copied_at_one_call_and_switched_to_at_any_later_one(name: str) -> None:
    for early in steps():
        for late in steps():
            writer = await a_store(nothing)
            other = Gateway(writer)
            acts = [(early, other.copy), (early + late, other.switch)]
            if not await at_steps(writer, acts, OPERATIONS[name](writer)):
                break
            assert await documents(writer) == AFTER[name]
            await only_what_counts(writer)
        if late == 0:
            return


@pytest.mark.parametrize("first", [nothing, copy])
@pytest.mark.parametrize(
    ("mine", "theirs"), [("replace", "put"), ("replace", "delete"), ("delete", "put")]
)
async def test_of_two_writers_one_comes_last(mine: str, theirs: str, first: Operation) -> None:
    for number in steps():
        writer = await a_store(first)
        other = Gateway(writer)

        async def act(other: Gateway = other) -> None:
            await (other.put("a", "theirs") if theirs == "put" else other.delete("a"))

        reached = await at_steps(writer, [(number, act)], OPERATIONS[mine](writer))
        both = [AFTER[mine], {**BEFORE, "a": "theirs"} if theirs == "put" else AFTER["delete"]]
        live = await documents(writer)
        assert live in both
        if first is copy:
            # Nothing is copied any more: the writers have brought both generations up.
            await Gateway(writer).switch()
        assert await documents(writer) == live
        await only_what_counts(writer)
        if not reached:
            return


@pytest.mark.parametrize("then", ["put", "settle", "delete"])
async def test_what_a_dead_writer_left_is_carried_through_by_the_next(then: str) -> None:
    """The client tries again: what reads as done already must be where the rebuild switches to."""
    name = "delete" if then == "delete" else "replace"
    for number in steps():
        writer = await a_store(copy)
        killed = await at_steps(writer, [(number, kill)], OPERATIONS[name](writer))
        again = Gateway(writer)
        text = (await documents(again)).get("a")
        if then == "settle" and text == "mine":
            assert await again.settle("a")
        elif then == "delete":
            await again.delete("a")
        else:
            await again.put("a", "mine")
        await again.switch()
        assert await documents(again) == AFTER[name]
        await only_what_counts(again)
        if not killed:
            return
