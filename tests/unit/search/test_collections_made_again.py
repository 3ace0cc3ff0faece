"""Writes to a collection that is deleted meanwhile, and comes back empty or is made again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from support.gateways import NEW, Act, Gateway, at_steps, documents, made, steps
from support.store import COLLECTION, soon

from gateway.search.types import Target
from gateway.search.versions import NewVersion, Prepare
from runtime.errors import Reason, ServiceError

WRITES: dict[str, Callable[[Gateway], Awaitable[object]]] = {
    "add": lambda gateway: gateway.put("new", "mine"),
    "replace": lambda gateway: gateway.put("a", "mine"),
}


async def a_store() -> Gateway:
    """A writer who knows the stamp."""
    writer = Gateway()
    await writer.start()
    await writer.put("a", "one")
    return writer


async def empty(gateway: Gateway) -> None:
    """Deletes the default collection, which comes back empty and of no model."""
    await gateway.search.delete_collection(COLLECTION, soon())


async def all_done_or_not_found(
    writer: Gateway, acts: Sequence[tuple[int, Act]], run: Awaitable[object]
) -> bool:
    """`at_steps` of what may find the collection gone, and may find nothing else."""
    try:
        return await at_steps(writer, acts, run)
    except ServiceError as error:
        if (error.reason, error.metadata["collection"]) != (
            Reason.COLLECTION_NOT_FOUND,
            COLLECTION,
        ):
            raise
        return True


@pytest.mark.parametrize("name", ["add", "replace"])
async def test_a_write_to_a_collection_that_is_emptied_meanwhile_is_told_so(name: str) -> None:
    for number in steps():
        writer = await a_store()
        acts = [(number, partial(empty, Gateway(writer)))]
        if not await all_done_or_not_found(writer, acts, WRITES[name](writer)):
            return
        fresh = Gateway(writer)
        stamp = await fresh.search._stamps.fresh(COLLECTION, soon())
        assert stamp.model is None
        page = await fresh.search.list_documents(
            COLLECTION, limit=10, cursor=None, filter=None, deadline=soon()
        )
        assert page.documents == ()


@pytest.mark.parametrize("rebuilt", [False, True])
async def test_a_delete_in_a_collection_that_is_emptied_meanwhile_is_done(rebuilt: bool) -> None:
    for number in steps():
        writer = await a_store()
        if rebuilt:
            await Gateway(writer).copy()
        acts = [(number, partial(empty, Gateway(writer)))]
        if not await at_steps(writer, acts, writer.delete("a")):
            return
        assert await writer.search.record(COLLECTION, "a", soon()) is None


async def make_again(gateway: Gateway) -> None:
    """Deletes a collection that is not the default one; somebody makes it for the new model."""
    await gateway.points.drop(COLLECTION, soon())
    await gateway.start(NEW)


@pytest.mark.parametrize("name", ["add", "replace"])
async def test_a_collection_made_again_holds_nothing_of_the_model_before(
    name: str,
) -> None:
    """Its first generation has the number that the old one had."""
    for number in steps():
        writer = await a_store()
        acts = [(number, partial(make_again, Gateway(writer)))]
        if not await all_done_or_not_found(writer, acts, WRITES[name](writer)):
            return
        # Every chunk says which model it was made for.
        assert set((await documents(writer)).values()) <= {"mine"}


async def test_what_was_written_as_the_collection_was_made_again_is_not_what_is_reused() -> None:
    """At the swap itself, which nothing can keep: then it is taken back before it is redone."""
    writer = await a_store()
    other = Gateway(writer)
    real = writer.points.swap
    reused: list[bool] = []

    async def swap(*arguments: Any) -> None:
        writer.points.swap = real  # type: ignore[method-assign]
        await make_again(other)
        await real(*arguments)

    async def prepare(target: Target) -> NewVersion:
        reused.append(await writer.search.record(target.at, "new", soon()) is not None)
        return made("new", "mine", target, chunks=3)

    writer.points.swap = swap  # type: ignore[method-assign]
    await writer.search.put_document(COLLECTION, "new", prepare, soon())
    assert reused == [False, False]
    assert await documents(writer) == {"new": "mine"}


async def test_points_written_as_the_collection_was_made_again_get_no_record() -> None:
    """A writer that dies then has left nothing that counts."""
    writer = await a_store()
    other = Gateway(writer)
    real = writer.points.upsert

    async def upsert(*arguments: Any) -> None:
        writer.points.upsert = real  # type: ignore[method-assign]
        await make_again(other)
        await real(*arguments)
        writer.points.swap = killed  # type: ignore[method-assign]

    async def killed(*_: Any) -> None:
        raise AssertionError("its record was about to be swapped")

    writer.points.upsert = upsert  # type: ignore[method-assign]
    with pytest.raises(Again):
        await writer.search.put_document(COLLECTION, "new", once(), soon())
    assert await documents(writer) == {}


class Again(Exception):
    """A document is prepared a second time."""


def once() -> Prepare:
    """Prepares the document once, and then gives up."""
    asked: list[Target] = []

    async def prepare(target: Target) -> NewVersion:
        asked.append(target)
        if len(asked) > 1:
            raise Again
        return made("new", "mine", target, chunks=3)

    return prepare
