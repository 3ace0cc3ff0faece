"""A Qdrant server or cluster, over gRPC (or REST) by its own asynchronous client.

A collection is an alias, `documents`, of its live generation, `documents@1`: the switch to
another generation moves the alias, atomically.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any, Final

from qdrant_client import AsyncQdrantClient, models

from gateway.search import ids, wire
from gateway.search.bm25 import Encoder
from gateway.search.points import no_collection
from gateway.search.qdrant import (
    Stages,
    call,
    requests_for,
    score_of,
    stored,
    structs,
)
from gateway.search.qdrant_filters import filter_of, index_changes
from runtime.deadline import Deadline

FIRST_GENERATION: Final = 1
# Points of one call: 64 chunks of 8,192 four-byte characters stay far below 32 MiB.
CALL_POINTS: Final = 64

# A record read back must be the record just written, whichever replica answers, and of two
# swaps from one `seq` one must fail.
_STRONG: Final = models.WriteOrdering.STRONG
_MAJORITY: Final = models.ReadConsistencyType.MAJORITY


def connect(url: str, *, api_key: str | None, grpc_port: int) -> AsyncQdrantClient:
    """A client of the server at `url`; grpc_port 0 speaks REST. Connects at the first call."""
    with warnings.catch_warnings():
        # A key over plain HTTP: the operator's choice, inside a cluster for one.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=url,
            api_key=api_key,
            prefer_grpc=grpc_port != 0,
            grpc_port=grpc_port or 6334,
            check_compatibility=False,
        )


class ServerPoints:
    """`Points` on a Qdrant server. Other gateways may write there, too."""

    exclusive = False
    broken = False

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._encoders: dict[str, Encoder] = {}

    async def start(self) -> None:
        """Nothing: the client connects at the first call."""

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ping(self, deadline: Deadline) -> None:
        """Returns when the server answers."""
        await self._aliases(deadline)

    async def create(self, collection: str, config: wire.Config, deadline: Deadline) -> None:
        """Makes the first generation with its indexes; one that exists gets missing indexes."""
        aliases = await self._aliases(deadline)
        generation = aliases.get(collection, f"{collection}@{FIRST_GENERATION}")
        async with call(generation, deadline) as timeout_s:
            if not await self._client.collection_exists(generation):
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
                    timeout=timeout_s,
                )
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
            if collection not in aliases:
                alias = models.CreateAlias(collection_name=generation, alias_name=collection)
                await self._client.update_collection_aliases(
                    [models.CreateAliasOperation(create_alias=alias)], timeout=timeout_s
                )

    async def upsert(
        self, collection: str, points: Sequence[wire.Point], deadline: Deadline
    ) -> None:
        """Writes points in batches."""
        encoder = await self._encoder(collection, deadline)
        for start in range(0, len(points), CALL_POINTS):
            batch = points[start : start + CALL_POINTS]
            made = await asyncio.to_thread(structs, batch, encoder)
            async with call(collection, deadline) as timeout_s:
                await self._client.upsert(collection, made, wait=True, timeout=timeout_s)

    async def swap(
        self, collection: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        """Writes `point` if the stored one has this `seq`, or (None) if there is none."""
        struct = models.PointStruct(id=point.id, vector={}, payload=point.payload)
        condition = None
        mode = models.UpdateMode.INSERT_ONLY
        if seq is not None:
            condition = filter_of(wire.Selection((wire.Match("seq", seq),)))
            mode = models.UpdateMode.UPDATE_ONLY
        async with call(collection, deadline) as timeout_s:
            await self._client.upsert(
                collection,
                [struct],
                wait=True,
                ordering=_STRONG,
                update_filter=condition,
                update_mode=mode,
                timeout=timeout_s,
            )

    async def set_payload(
        self, collection: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        """Overwrites some payload fields of one point that exists."""
        async with call(collection, deadline) as timeout_s:
            await self._client.set_payload(
                collection,
                payload,
                [point_id],
                wait=True,
                ordering=_STRONG,
                timeout=timeout_s,
            )

    async def delete(self, collection: str, selection: wire.Selection, deadline: Deadline) -> None:
        """Removes the points selected."""
        selector: models.PointsSelector
        if selection.ids is not None and not selection.must and not selection.without:
            selector = models.PointIdsList(points=list(selection.ids))
        else:
            selector = models.FilterSelector(filter=filter_of(selection) or models.Filter())
        async with call(collection, deadline) as timeout_s:
            await self._client.delete(
                collection, selector, wait=True, ordering=_STRONG, timeout=timeout_s
            )

    async def query(self, collection: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        """The nearest chunks in one call, the versions their records name in another."""
        stages = await self._stages(collection, query, deadline)
        if not stages:
            return wire.Found([], [])
        async with call(collection, deadline) as timeout_s:
            answers = await self._client.query_batch_points(
                collection, requests_for(query, stages), timeout=timeout_s
            )
        ranked, *raw = (answer.points for answer in answers)
        if not raw:
            raw = [ranked]
        scores = {
            using: {str(point.id): point.score for point in points}
            for using, points in zip(stages, raw, strict=True)
        }
        return await self._current(collection, query, ranked, scores, deadline)

    async def _stages(self, collection: str, query: wire.Query, deadline: Deadline) -> Stages:
        stages: Stages = {}
        if query.vector is not None:
            stages[wire.DENSE] = wire.unpack(query.vector)
        if query.text is not None:
            indices, values = (await self._encoder(collection, deadline)).question(query.text)
            if indices:
                stages[wire.SPARSE] = models.SparseVector(indices=indices, values=values)
        return stages

    async def _current(
        self,
        collection: str,
        query: wire.Query,
        ranked: Sequence[models.ScoredPoint],
        scores: dict[str, dict[str, float]],
        deadline: Deadline,
    ) -> wire.Found:
        """The passages whose version is their record's; the others' ids."""
        payloads = {str(point.id): point.payload or {} for point in ranked}
        documents = {payload["document_id"] for payload in payloads.values()}
        records = await self.retrieve(
            collection,
            [ids.record_id(document_id) for document_id in documents],
            deadline,
            fields=["document_id", "version"],
        )
        current = {record.payload["document_id"]: record.payload["version"] for record in records}
        dense, sparse = scores.get(wire.DENSE, {}), scores.get(wire.SPARSE, {})
        passages: list[wire.Passage] = []
        stale: list[str] = []
        for point in ranked:
            point_id = str(point.id)
            payload = payloads[point_id]
            if current.get(payload["document_id"]) != payload["version"]:
                stale.append(point_id)
                continue
            passages.append(
                wire.Passage(
                    payload["document_id"],
                    payload["ordinal"],
                    payload["text"],
                    payload["metadata"],
                    score_of(point.score, scores, query.fusion_k),
                    dense.get(point_id),
                    sparse.get(point_id),
                )
            )
        return wire.Found(passages, stale)

    async def retrieve(
        self,
        collection: str,
        ids: Sequence[str],
        deadline: Deadline,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> list[wire.Point]:
        """The points that exist of those asked for, in any order."""
        points: list[wire.Point] = []
        for start in range(0, len(ids), CALL_POINTS):
            async with call(collection, deadline) as timeout_s:
                found = await self._client.retrieve(
                    collection,
                    list(ids[start : start + CALL_POINTS]),
                    with_payload=True if fields is None else list(fields),
                    with_vectors=[wire.DENSE] if vectors else False,
                    consistency=_MAJORITY,
                    timeout=timeout_s,
                )
            points += [stored(record) for record in found]
        return points

    async def scroll(
        self,
        collection: str,
        selection: wire.Selection,
        limit: int,
        deadline: Deadline,
        *,
        start_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> wire.Slice:
        """Points in the order of their ids, from `start_id` on."""
        async with call(collection, deadline) as timeout_s:
            found, next_id = await self._client.scroll(
                collection,
                scroll_filter=filter_of(selection),
                limit=limit,
                offset=start_id,
                with_payload=True if fields is None else list(fields),
                with_vectors=False,
                timeout=timeout_s,
            )
        return wire.Slice(
            [stored(record) for record in found], None if next_id is None else str(next_id)
        )

    async def _aliases(self, deadline: Deadline) -> dict[str, str]:
        """Collection → its live generation."""
        async with call("", deadline):
            answer = await self._client.get_aliases()
        return {alias.alias_name: alias.collection_name for alias in answer.aliases}

    async def _encoder(self, collection: str, deadline: Deadline) -> Encoder:
        """The encoder with the parameters of the collection's stamp, which never change."""
        encoder = self._encoders.get(collection)
        if encoder is None:
            found = await self.retrieve(collection, [ids.STAMP_ID], deadline, fields=["bm25"])
            if not found:
                raise no_collection(collection)
            encoder = self._encoders[collection] = Encoder(**found[0].payload["bm25"])
        return encoder
