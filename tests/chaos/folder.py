"""The store's folder after its gateway has stopped: one generation, and in it no orphan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.search import ids, wire
from gateway.search.embedded import EmbeddedPoints
from gateway.search.points import Points
from gateway.search.sweep import sweep
from runtime.deadline import Deadline

SLICE: Final = 256
TIMEOUT_S: Final = 60.0
# As they are stored, whatever the code calls them.
RECORD: Final = "record"
TOMBSTONE: Final = "tombstone"
STAMP: Final = "stamp"


@dataclass(slots=True)
class Swept:
    """removed: points that the sweep found; points: what is there after it, by kind."""

    removed: int = 0
    points: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


async def check_folder(data_dir: Path, collection: str) -> Swept:
    """Sweeps as the gateway would when all is old enough, and counts what is left."""
    points = EmbeddedPoints(data_dir)
    await points.start()
    try:
        generations = await points.generations(collection, Deadline.after(TIMEOUT_S))
        swept = Swept(await sweep(points, collection, orphan_age_s=-1))
        payloads = await _all(points, collection)
    finally:
        await points.aclose()
    if generations.others:
        swept.faults.append(f"generations beside the live one: {generations}")
    swept.points.update(payload["kind"] for payload in payloads.values())
    expected: set[str] = {ids.STAMP_ID}
    for point_id, payload in payloads.items():
        if payload["kind"] in (RECORD, TOMBSTONE):
            expected.add(ids.record_id(payload["document_id"]))
            if point_id != ids.record_id(payload["document_id"]):
                swept.faults.append(f"a record of {payload['document_id']} under another id")
        if payload["kind"] == RECORD:
            expected |= {
                *ids.version_ids(payload["document_id"], payload["version"], payload["chunks"])
            }
    for point_id in payloads.keys() - expected:
        swept.faults.append(f"a point that no record names: {payloads[point_id]}")
    for point_id in expected - payloads.keys():
        swept.faults.append(f"a point that a record names is not there: {point_id}")
    stamp = payloads.get(ids.STAMP_ID, {})
    if stamp.get("generation") != generations.live or stamp.get("next") is not None:
        swept.faults.append(f"the stamp of generation {generations.live} is {stamp}")
    return swept


async def _all(points: Points, collection: str) -> dict[str, dict[str, Any]]:
    """Payloads of all points by id."""
    payloads: dict[str, dict[str, Any]] = {}
    start_id: str | None = None
    while True:
        part = await points.scroll(
            collection,
            wire.Selection(),
            SLICE,
            Deadline.after(TIMEOUT_S),
            start_id=start_id,
            fields=["kind", "document_id", "version", "chunks", "generation", "next"],
        )
        payloads |= {point.id: point.payload for point in part.points}
        start_id = part.next_id
        if start_id is None:
            return payloads
