"""The generations of a Qdrant server: a collection of the server for each, an alias for the live.

`documents` is an alias of `documents@3`: the switch moves it, and nothing else.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from qdrant_client import AsyncQdrantClient, models

from gateway.search import ids, wire
from gateway.search.points import (
    FIRST_GENERATION,
    Generations,
    at,
    no_collection,
    split,
    unavailable,
)
from gateway.search.qdrant import call
from gateway.search.qdrant_filters import filter_of, index_changes
from gateway.search.qdrant_tuning import hnsw_config, quantization_config
from gateway.search.tuning import USUAL, Tuning
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# Between two looks whether the server has done with optimising.
OPTIMIZE_PAUSE_S: Final = 0.5
# What the server calls a generation of ours.
_GENERATION: Final = re.compile(r"(.+)@([1-9][0-9]*)")
# All points but the stamp: without any, nothing is lost with the generation.
_WRITTEN: Final = wire.Selection(without=(ids.STAMP_ID,))


class ServerGenerations:
    """What `Points` says of generations, on a Qdrant server."""

    def __init__(self, client: AsyncQdrantClient, tuning: Tuning = USUAL) -> None:
        self._client = client
        self._tuning = tuning

    async def collections(self, deadline: Deadline) -> list[str]:
        """The collections that have a live generation, sorted."""
        aliases = await self._aliases(deadline)
        return sorted(name for name, target in aliases.items() if _number(name, target))

    async def generations(self, collection: str, deadline: Deadline) -> Generations:
        """The generations that are there."""
        live = await self._live(collection, deadline)
        numbers = await self._numbers(collection, deadline)
        return Generations(live, tuple(sorted(numbers - {live})))

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        """Makes the first generation; in a collection that exists, every one gets these indexes.

        Raises ServiceError VECTOR_DB_UNAVAILABLE when the name means something else there.
        """
        target = (await self._aliases(deadline)).get(collection)
        if target is not None and not _number(collection, target):
            raise unavailable(
                f"The Qdrant server has an alias '{collection}' of a collection that is not "
                "this program's; use another collection."
            )
        numbers = await self._numbers(collection, deadline)
        if target is None:
            await self._begin(collection, numbers, config, deadline)
            return
        for number in numbers:
            await self._index(at(collection, number), config, deadline)

    async def _begin(
        self, collection: str, leftovers: set[int], config: wire.Config, deadline: Deadline
    ) -> None:
        """The first generation; one that was begun and never written to is finished."""
        for number in sorted(leftovers):
            left = at(collection, number)
            async with call(left, deadline) as timeout_s:
                count = await self._client.count(
                    left, count_filter=filter_of(_WRITTEN), exact=True, timeout=timeout_s
                )
                made = (await self._client.get_collection(left)).config.params.vectors
            if count.count:
                raise unavailable(
                    f"The Qdrant server has '{left}', but no alias '{collection}' that says which "
                    "generation is live. Set that alias, or delete the generation."
                )
            if number != FIRST_GENERATION or not _has_dimension(made, config.dimension):
                await self._delete(left, deadline)
        generation = at(collection, FIRST_GENERATION)
        async with call(generation, deadline):
            exists = await self._client.collection_exists(generation)
        if not exists:
            await self._make(generation, config, deadline)
        await self._index(generation, config, deadline)
        await self._alias(generation, [_creating(collection, generation)], deadline)

    async def create_generation(
        self, collection: str, generation: int, config: wire.Config, deadline: Deadline
    ) -> None:
        """Makes an empty generation that is not live; one of that number is removed first."""
        await self.drop_generation(collection, generation, deadline)
        await self._live(collection, deadline)
        made = at(collection, generation)
        await self._make(made, config, deadline)
        try:
            await self._index(made, config, deadline)
            await self._live(collection, deadline)
        except ServiceError as error:
            if error.reason is Reason.COLLECTION_NOT_FOUND:
                # Dropped meanwhile, by one who may have listed the generations before this one.
                await self._delete(made, deadline)
            raise

    async def switch(self, collection: str, generation: int, deadline: Deadline) -> None:
        """Makes this generation the live one."""
        if await self._live(collection, deadline) == generation:
            return
        target = at(collection, generation)
        async with call(target, deadline):
            exists = await self._client.collection_exists(target)
        if not exists:  # the old alias would be gone by the time in which the server noticed
            raise no_collection(target)
        removing = models.DeleteAliasOperation(
            delete_alias=models.DeleteAlias(alias_name=collection)
        )
        # In one call, so that there is no moment without it.
        await self._alias(target, [removing, _creating(collection, target)], deadline)

    async def drop_generation(self, collection: str, generation: int, deadline: Deadline) -> None:
        """Removes a generation that is not live, if it is there."""
        if (await self._aliases(deadline)).get(collection) == at(collection, generation):
            raise ValueError(f"generation {generation} is the live one")
        await self._delete(at(collection, generation), deadline)

    async def drop(self, collection: str, deadline: Deadline) -> None:
        """Removes the collection. The live generation goes last, and the alias with it."""
        found = await self.generations(collection, deadline)
        for generation in (*found.others, found.live):
            await self._delete(at(collection, generation), deadline)
        # One made meanwhile, by another gateway; whoever makes one from here on sees that the
        # alias is gone. Not those of a collection that has come back.
        for generation in await self._numbers(collection, deadline):
            if generation > found.live and collection not in await self._aliases(deadline):
                await self._delete(at(collection, generation), deadline)

    async def optimize(self, address: str, deadline: Deadline) -> None:
        """Returns once the server has indexed what was written."""
        while True:
            async with call(address, deadline):
                status = (await self._client.get_collection(address)).status
                if status is not models.CollectionStatus.YELLOW:
                    return
                await asyncio.sleep(OPTIMIZE_PAUSE_S)

    async def _make(self, generation: str, config: wire.Config, deadline: Deadline) -> None:
        async with call(generation, deadline) as timeout_s:
            await self._client.create_collection(
                generation,
                vectors_config={
                    wire.DENSE: models.VectorParams(
                        size=config.dimension, distance=models.Distance.COSINE
                    )
                },
                sparse_vectors_config={
                    wire.SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)
                },
                hnsw_config=hnsw_config(self._tuning),
                quantization_config=quantization_config(self._tuning),
                timeout=timeout_s,
            )

    async def _index(self, generation: str, config: wire.Config, deadline: Deadline) -> None:
        """The payload indexes, before the first write: later they would be slow to make."""
        async with call(generation, deadline) as timeout_s:
            present = (await self._client.get_collection(generation)).payload_schema
            obsolete, missing = index_changes(present, config.indexes)
            for field in obsolete:
                await self._client.delete_payload_index(
                    generation, field, wait=True, timeout=timeout_s
                )
            for field, schema in missing.items():
                await self._client.create_payload_index(
                    generation, field, schema, wait=True, timeout=timeout_s
                )

    async def _alias(
        self, generation: str, changes: list[models.AliasOperations], deadline: Deadline
    ) -> None:
        async with call(generation, deadline) as timeout_s:
            await self._client.update_collection_aliases(changes, timeout=timeout_s)

    async def _delete(self, generation: str, deadline: Deadline) -> None:
        async with call(generation, deadline) as timeout_s:
            await self._client.delete_collection(generation, timeout=timeout_s)

    async def _live(self, collection: str, deadline: Deadline) -> int:
        target = (await self._aliases(deadline)).get(collection, "")
        number = _number(collection, target)
        if number is None:
            raise no_collection(collection)
        return number

    async def _physical(self, address: str, deadline: Deadline) -> str:
        """The generation that the address means at this moment."""
        collection, generation = split(address)
        if generation is None:
            generation = await self._live(collection, deadline)
        return at(collection, generation)

    async def _aliases(self, deadline: Deadline) -> dict[str, str]:
        """All aliases of the server, and what they stand for."""
        async with call("", deadline):
            answer = await self._client.get_aliases()
        return {alias.alias_name: alias.collection_name for alias in answer.aliases}

    async def _numbers(self, collection: str, deadline: Deadline) -> set[int]:
        """The generations of a collection, live or not."""
        async with call(collection, deadline):
            answer = await self._client.get_collections()
        found = (_number(collection, description.name) for description in answer.collections)
        return {number for number in found if number is not None}


def _creating(collection: str, generation: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=generation, alias_name=collection)
    )


def _number(collection: str, name: str) -> int | None:
    """The number of a generation of the collection; None for what is none."""
    match = _GENERATION.fullmatch(name)
    return int(match[2]) if match and match[1] == collection else None


def _has_dimension(vectors: object, dimension: int) -> bool:
    dense = vectors.get(wire.DENSE) if isinstance(vectors, dict) else None
    return isinstance(dense, models.VectorParams) and dense.size == dimension
