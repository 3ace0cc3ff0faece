"""Removes what crashes leave behind: points that no record names, and old tombstones."""

from __future__ import annotations

import time
from typing import Final

from gateway.search import ids, wire
from gateway.search.points import SLICE_POINTS, SLICE_TIMEOUT_S, Points
from gateway.search.stamps import STAMP
from gateway.search.versions import RECORD, TOMBSTONE
from runtime.deadline import Deadline

# Younger points may belong to a version whose record is about to be written. Far above
# `records.WRITE_TIMEOUT_S` and the difference of two gateways' clocks.
ORPHAN_AGE_S: Final = 900
# A writer that read the document before it was deleted has long given up by then, and the
# document comes back with a higher `seq`, unless a clock is wrong by so much
# (`versions.seq_after`).
TOMBSTONE_AGE_S: Final = 3600


async def sweep(
    points: Points,
    address: str,
    *,
    orphan_age_s: float = ORPHAN_AGE_S,
    tombstones_too: bool = True,
) -> int:
    """Looks at every point of a generation once; returns how many it removed.

    tombstones_too: False leaves tombstones of any age, for a rebuild to compare with.
    """
    oldest_orphan = int(time.time() - orphan_age_s)
    oldest_tombstone = int(time.time() - TOMBSTONE_AGE_S)
    removed = 0
    start_id: str | None = None
    while True:
        deadline = Deadline.after(SLICE_TIMEOUT_S)
        part = await points.scroll(
            address,
            wire.Selection(),
            SLICE_POINTS,
            deadline,
            start_id=start_id,
            fields=["kind", "document_id", "version", "written_at"],
        )
        owned = [
            point
            for point in part.points
            if point.payload["kind"] not in (RECORD, TOMBSTONE, STAMP)
            and point.payload["written_at"] <= oldest_orphan
        ]
        orphans = await _unnamed(points, address, owned, deadline)
        if orphans:
            await points.delete(address, wire.Selection(ids=tuple(orphans)), deadline)
        tombstones = tuple(
            point.id
            for point in part.points
            if tombstones_too
            and point.payload["kind"] == TOMBSTONE
            and point.payload["written_at"] <= oldest_tombstone
        )
        if tombstones:
            # Only if it still is one: the document may be back by now.
            still = wire.Selection((wire.Match("kind", TOMBSTONE),), ids=tombstones)
            await points.delete(address, still, deadline)
        removed += len(orphans) + len(tombstones)
        start_id = part.next_id
        if start_id is None:
            return removed


async def _unnamed(
    points: Points, address: str, owned: list[wire.Point], deadline: Deadline
) -> list[str]:
    """The ids of those points whose version their record does not name."""
    documents = {point.payload["document_id"] for point in owned}
    if not documents:
        return []
    records = await points.retrieve(
        address,
        [ids.record_id(document_id) for document_id in documents],
        deadline,
        fields=["document_id", "version"],
    )
    current = {record.payload["document_id"]: record.payload["version"] for record in records}
    return [
        point.id
        for point in owned
        if current.get(point.payload["document_id"]) != point.payload["version"]
    ]
