"""Writes that are stopped, killed and overtaken at every call they make to the store."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace

import pytest
from support.gateways import (
    Gateway,
    at_steps,
    documents,
    kill,
    only_what_counts,
    steps,
)
from support.store import COLLECTION, soon

from gateway.search.sweep import sweep

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
        left = await documents(other)
        assert left in (BEFORE, AFTER[name])
        # Whoever comes after finishes what was begun, and nothing is torn by it.
        await other.rebuild()
        assert await documents(other) == left
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


async def test_found_as_it_should_be_and_changed_since_it_is_not_called_written() -> None:
    writer = await a_store(copy)
    other = Gateway(writer)
    acts = [(2, partial(other.put, "a", "theirs"))]  # once it was read
    changed: list[bool] = []

    async def settle() -> None:
        changed.append(not await writer.settle("a"))

    assert await at_steps(writer, acts, settle())
    assert changed == [True]


async def test_a_writer_who_missed_the_switch_comes_after_who_wrote_before_it_whatever_their_clocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = await a_store(copy)
    other = Gateway(writer)
    await other.switch()
    later_ns = time.time_ns() + 10**12
    clock = SimpleNamespace(time_ns=lambda: later_ns, time=time.time)
    with monkeypatch.context() as patch:
        patch.setattr("gateway.search.versions.time", clock)
        await other.put("a", "theirs")
    # It believes that the old generation is live, and this one the next.
    await writer.put("a", "mine")
    assert (await documents(writer))["a"] == "mine"


async def test_a_document_comes_back_after_its_tombstone_was_swept_here_and_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = await a_store(copy)
    await writer.delete("a")
    monkeypatch.setattr("gateway.search.sweep.TOMBSTONE_AGE_S", -1)
    assert await sweep(writer.points, COLLECTION) == 1
    await writer.put("a", "mine")
    await writer.switch()
    assert await documents(writer) == AFTER["replace"]
