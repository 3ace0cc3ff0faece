"""The embedded engine: one generation of one collection in one directory.

Every call holds the GIL, so this runs in the store's own process (`child.py`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import qdrant_edge as edge

from gateway.search import ids, shard, wire
from gateway.search.bm25 import Encoder
from gateway.search.edge_filters import filter_of, index_changes
from gateway.search.locks import hold
from gateway.search.ranking import FIELDS, passages, ranked
from gateway.search.tuning import Tuning

# How the engine names a point: it gives UUIDs, and takes their text as well.
PointId = int | str | UUID

# Chunks whose document is remembered, 4 MB: reading it from the store takes 0.6 ms of a search
# of 2 ms. A chunk's document never changes, its id is made of it.
REMEMBERED: Final = 16_384


class Engine:
    """The calls of `wire`, run on an `EdgeShard`. Raises the engine's bare `Exception`s."""

    def __init__(self, path: Path, config: wire.Config, tuning: Tuning, *, create: bool) -> None:
        # The engine has a lock of its own, but looks at it too late: a second load is refused,
        # and has by then cut off the journal of the first, whose next flush fails (0.9).
        self._lock = hold(path)
        if create and not path.exists():
            shard.create(path, config, tuning)
        self._shard = shard.load(path, config, tuning)
        self._tuning = tuning
        self._log_dir = path / "wal"
        self._document_of: dict[PointId, str] = {}
        self._encoder = Encoder(
            k1=config.k1,
            b=config.b,
            average_tokens=config.average_tokens,
            language=config.language,
        )
        present = self._shard.info().payload_schema
        for operation in index_changes(present, config.indexes):
            self._shard.update(operation)

    def sync(self) -> None:
        """Makes every update so far outlive a power cut.

        The engine writes an update to its log before it applies it, through a memory map;
        `fsync` puts the map's dirty pages on disk, and loading replays the log. That takes
        10 ms where `flush` takes 100, and unlike `flush` it releases the GIL, so searches
        go on in the meantime. May run in another thread than the calls.
        """
        for path in (*self._log_dir.iterdir(), self._log_dir):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # a flush has just made this part of the log superfluous
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def flush(self) -> None:
        """Writes the segments and lets go of the log; then there is nothing to replay."""
        self._shard.flush()

    def close(self) -> None:
        """Flushes and gives the directory free."""
        self._shard.flush()
        self._shard.close()
        os.close(self._lock)

    def write(self, call: wire.Change) -> None:
        """Applies one write; it is durable once `sync` returned after it."""
        self._shard.update(self._operation(call))

    def optimize(self) -> None:
        """Merges and indexes the segments, durably. Holds the GIL until it is done."""
        self._shard.optimize()
        self._shard.flush()

    def _operation(self, call: wire.Change) -> edge.UpdateOperation:
        match call:
            case wire.Upsert(points):
                return edge.UpdateOperation.upsert_points([self._point(p) for p in points])
            case wire.Swap(point, seq):
                return self._swap(point, seq)
            case wire.Advance(point, seq):
                lower = filter_of(wire.Selection((wire.Between("seq", None, seq - 1),)))
                return edge.UpdateOperation.upsert_points([self._point(point)], lower)
            case wire.SetPayload(point_id, payload):
                return edge.UpdateOperation.set_payload([point_id], payload)
            case wire.Delete(selection):
                if selection.ids is not None and not selection.must and not selection.without:
                    return edge.UpdateOperation.delete_points(list(selection.ids))
                return edge.UpdateOperation.delete_points_by_filter(
                    filter_of(selection) or edge.Filter()
                )

    def _swap(self, point: wire.Point, seq: int | None) -> edge.UpdateOperation:
        if seq is None:
            return edge.UpdateOperation.upsert_points(
                [self._point(point)], None, edge.UpdateMode.InsertOnly
            )
        condition = filter_of(wire.Selection((wire.Match("seq", seq),)))
        return edge.UpdateOperation.upsert_points(
            [self._point(point)], condition, edge.UpdateMode.UpdateOnly
        )

    def _point(self, point: wire.Point) -> edge.Point:
        vectors: dict[str, Any] = {}
        if point.dense is not None:
            vectors[wire.DENSE] = wire.unpack(point.dense)
        if point.text is not None:
            indices, values = self._encoder.passage(point.text)
            if indices:
                vectors[wire.SPARSE] = edge.SparseVector(indices, values)
        return edge.Point(point.id, vectors, point.payload)

    def query(self, call: wire.Query) -> wire.Found:
        """The nearest chunks of current versions; see `wire.Query`."""
        stages = self._stages(call)
        if len(stages) > 1:
            self._remember({point for found in stages.values() for point in found})
        ranking = ranked(stages, self._document_of, call.fusion_k)[: call.limit]
        if not ranking:
            return wire.Found([], [])
        payloads: dict[PointId, dict[str, Any]] = {
            record.id: record.payload or {}
            for record in self._shard.retrieve([point for point, _ in ranking], FIELDS, False)
        }
        versions = self._versions({payload["document_id"] for payload in payloads.values()})
        return passages(ranking, payloads, versions, stages)

    def _stages(self, call: wire.Query) -> dict[str, dict[PointId, float]]:
        """Scores by point of each stage that runs, best first, in one pass of the engine."""
        stages: list[tuple[str, Any]] = []
        if call.vector is not None:
            stages.append((wire.DENSE, wire.unpack(call.vector)))
        if call.text is not None:
            indices, values = self._encoder.question(call.text)
            if indices:
                stages.append((wire.SPARSE, edge.SparseVector(indices, values)))
        limit = max(call.limit, call.prefetch) if len(stages) > 1 else call.limit
        condition = filter_of(call.selection)
        # The sparse stage has no use for them.
        params = shard.search_params(self._tuning, limit)
        answers = self._shard.query_batch(
            edge.QueryBatchRequest(
                [
                    edge.QueryRequest(
                        limit=limit,
                        query=edge.Query.Nearest(vector, using),
                        filter=condition,
                        with_payload=False,
                        params=params,
                    )
                    for using, vector in stages
                ]
            )
        )
        return {
            using: {point.id: point.score for point in answer}
            for (using, _), answer in zip(stages, answers, strict=True)
        }

    def _remember(self, points: set[PointId]) -> None:
        """Afterwards the document of each of the points is known."""
        if len(self._document_of) > REMEMBERED:
            self._document_of.clear()
        missing = [point for point in points if point not in self._document_of]
        for record in self._shard.retrieve(missing, ["document_id"], False) if missing else ():
            self._document_of[record.id] = (record.payload or {})["document_id"]

    def _versions(self, document_ids: set[str]) -> dict[str, str]:
        """Document → the version its record names."""
        wanted: list[PointId] = [ids.record_id(document_id) for document_id in document_ids]
        records = self._shard.retrieve(wanted, ["document_id", "version"], False)
        payloads = [record.payload or {} for record in records]
        return {payload["document_id"]: payload["version"] for payload in payloads}

    def count(self, call: wire.Count) -> int:
        """How many points are selected."""
        return self._shard.count(edge.CountRequest(exact=True, filter=filter_of(call.selection)))

    def retrieve(self, call: wire.Retrieve) -> list[wire.Point]:
        """The points that exist of those asked for."""
        vectors: bool | list[str] = [wire.DENSE] if call.vectors else False
        records = self._shard.retrieve(list(call.ids), _fields(call.fields), vectors)
        return [_stored(record) for record in records]

    def scroll(self, call: wire.Scroll) -> wire.Slice:
        """One slice of the points selected, in the order of their ids."""
        records, next_id = self._shard.scroll(
            edge.ScrollRequest(
                offset=call.start_id,
                limit=call.limit,
                filter=filter_of(call.selection),
                with_payload=_fields(call.fields),
                with_vector=False,
            )
        )
        return wire.Slice(
            [_stored(record) for record in records], None if next_id is None else str(next_id)
        )


def _fields(fields: list[str] | None) -> bool | list[str]:
    return True if fields is None else fields


def _stored(record: edge.Record) -> wire.Point:
    # The type says more than can come: vectors have names here.
    vectors: Any = record.vector or {}
    dense = vectors.get(wire.DENSE)
    return wire.Point(
        str(record.id), record.payload or {}, None if dense is None else wire.pack(dense)
    )
