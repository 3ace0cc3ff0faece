"""A Qdrant server or cluster, over gRPC (or REST) by its own asynchronous client."""

from __future__ import annotations

import asyncio
import time
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
    stored,
    structs,
)
from gateway.search.qdrant_filters import filter_of
from gateway.search.ranking import FIELDS, passages, ranked
from gateway.search.server_generations import ServerGenerations
from gateway.search.tuning import USUAL, Tuning
from runtime.deadline import Deadline

# The parameters of a generation's stamp never change; but a generation may be removed, and
# another gateway make one of the same number with other parameters.
ENCODER_AGE_S: Final = 10.0
ENCODERS: Final = 256
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


class ServerPoints(ServerGenerations):
    """`Points` on a Qdrant server. Other gateways may write there, too."""

    exclusive = False
    broken = False

    def __init__(self, client: AsyncQdrantClient, tuning: Tuning = USUAL) -> None:
        super().__init__(client, tuning)
        # Generation → its encoder, and when it was asked for.
        self._encoders: dict[str, tuple[Encoder, float]] = {}

    async def start(self) -> None:
        """Nothing: the client connects at the first call."""

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ping(self, deadline: Deadline) -> None:
        """Returns when the server answers."""
        await self._aliases(deadline)

    async def upsert(self, address: str, points: Sequence[wire.Point], deadline: Deadline) -> None:
        """Writes points in batches."""
        generation = await self._physical(address, deadline)
        encoder = await self._encoder(generation, deadline)
        for start in range(0, len(points), CALL_POINTS):
            batch = points[start : start + CALL_POINTS]
            made = await asyncio.to_thread(structs, batch, encoder)
            async with call(generation, deadline) as timeout_s:
                await self._client.upsert(generation, made, wait=True, timeout=timeout_s)

    async def swap(
        self, address: str, point: wire.Point, seq: int | None, deadline: Deadline
    ) -> None:
        """Writes `point` if the stored one has this `seq`, or (None) if there is none."""
        struct = models.PointStruct(id=point.id, vector={}, payload=point.payload)
        condition = None
        mode = models.UpdateMode.INSERT_ONLY
        if seq is not None:
            condition = filter_of(wire.Selection((wire.Match("seq", seq),)))
            mode = models.UpdateMode.UPDATE_ONLY
        async with call(address, deadline) as timeout_s:
            await self._client.upsert(
                address,
                [struct],
                wait=True,
                ordering=_STRONG,
                update_filter=condition,
                update_mode=mode,
                timeout=timeout_s,
            )

    async def advance(self, address: str, point: wire.Point, seq: int, deadline: Deadline) -> None:
        """Writes `point` if there is none, or one with a lower `seq`."""
        struct = models.PointStruct(id=point.id, vector={}, payload=point.payload)
        lower = filter_of(wire.Selection((wire.Between("seq", None, seq - 1),)))
        async with call(address, deadline) as timeout_s:
            # Without an update mode, what is absent is inserted.
            await self._client.upsert(
                address,
                [struct],
                wait=True,
                ordering=_STRONG,
                update_filter=lower,
                timeout=timeout_s,
            )

    async def set_payload(
        self, address: str, point_id: str, payload: dict[str, Any], deadline: Deadline
    ) -> None:
        """Overwrites some payload fields of one point that exists."""
        async with call(address, deadline) as timeout_s:
            await self._client.set_payload(
                address,
                payload,
                [point_id],
                wait=True,
                ordering=_STRONG,
                timeout=timeout_s,
            )

    async def delete(self, address: str, selection: wire.Selection, deadline: Deadline) -> None:
        """Removes the points selected."""
        selector: models.PointsSelector
        if selection.ids is not None and not selection.must and not selection.without:
            selector = models.PointIdsList(points=list(selection.ids))
        else:
            selector = models.FilterSelector(filter=filter_of(selection) or models.Filter())
        async with call(address, deadline) as timeout_s:
            await self._client.delete(
                address, selector, wait=True, ordering=_STRONG, timeout=timeout_s
            )

    async def query(self, address: str, query: wire.Query, deadline: Deadline) -> wire.Found:
        """What each stage finds in one call; the best and their records in another.

        The server's own fusion does not know documents.
        """
        generation = await self._physical(address, deadline)
        stages = await self._stages(generation, query, deadline)
        if not stages:
            return wire.Found([], [])
        async with call(generation, deadline) as timeout_s:
            answers = await self._client.query_batch_points(
                generation, requests_for(query, stages, self._tuning), timeout=timeout_s
            )
        scores: dict[str, dict[str, float]] = {}
        document_of: dict[str, str] = {}
        for using, answer in zip(stages, answers, strict=True):
            scores[using] = {str(point.id): point.score for point in answer.points}
            for point in answer.points:
                document_of[str(point.id)] = (point.payload or {})["document_id"]
        ranking = ranked(scores, document_of, query.fusion_k)[: query.limit]
        records = {ids.record_id(document_of[point]) for point, _ in ranking}
        found = await self.retrieve(
            generation, [*(point for point, _ in ranking), *records], deadline, fields=FIELDS
        )
        payloads = {point.id: point.payload for point in found}
        versions = {
            payload["document_id"]: payload["version"]
            for point, payload in payloads.items()
            if point in records
        }
        return passages(ranking, payloads, versions, scores)

    async def _stages(self, generation: str, query: wire.Query, deadline: Deadline) -> Stages:
        stages: Stages = {}
        if query.vector is not None:
            stages[wire.DENSE] = wire.unpack(query.vector)
        if query.text is not None:
            indices, values = (await self._encoder(generation, deadline)).question(query.text)
            if indices:
                stages[wire.SPARSE] = models.SparseVector(indices=indices, values=values)
        return stages

    async def count(self, address: str, selection: wire.Selection, deadline: Deadline) -> int:
        """How many points are selected, exactly."""
        async with call(address, deadline) as timeout_s:
            answer = await self._client.count(
                address, count_filter=filter_of(selection), exact=True, timeout=timeout_s
            )
        return answer.count

    async def retrieve(
        self,
        address: str,
        ids: Sequence[str],
        deadline: Deadline,
        *,
        fields: Sequence[str] | None = None,
        vectors: bool = False,
    ) -> list[wire.Point]:
        """The points that exist of those asked for, in any order."""
        points: list[wire.Point] = []
        for start in range(0, len(ids), CALL_POINTS):
            async with call(address, deadline) as timeout_s:
                found = await self._client.retrieve(
                    address,
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
        address: str,
        selection: wire.Selection,
        limit: int,
        deadline: Deadline,
        *,
        start_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> wire.Slice:
        """Points in the order of their ids, from `start_id` on."""
        async with call(address, deadline) as timeout_s:
            found, next_id = await self._client.scroll(
                address,
                scroll_filter=filter_of(selection),
                limit=limit,
                offset=start_id,
                with_payload=True if fields is None else list(fields),
                with_vectors=False,
                # A rebuild compares by this: it must see every record written before it began.
                consistency=_MAJORITY,
                timeout=timeout_s,
            )
        return wire.Slice(
            [stored(record) for record in found], None if next_id is None else str(next_id)
        )

    async def _encoder(self, generation: str, deadline: Deadline) -> Encoder:
        """The encoder with the parameters of the generation's stamp."""
        known = self._encoders.get(generation)
        if known is None or time.monotonic() - known[1] > ENCODER_AGE_S:
            asked_s = time.monotonic()
            found = await self.retrieve(generation, [ids.STAMP_ID], deadline, fields=["bm25"])
            if not found:
                raise no_collection(generation)
            if len(self._encoders) >= ENCODERS:
                self._encoders.clear()
            known = self._encoders[generation] = Encoder(**found[0].payload["bm25"]), asked_s
        return known[0]
