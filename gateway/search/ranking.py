"""From what the stages found to passages in one order: the same for both adapters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

from gateway.search import wire
from gateway.search.scores import dense_score, fuse, fused_score, sparse_score

# What a passage is made of.
FIELDS: Final = ["document_id", "ordinal", "version", "text", "metadata"]

K = TypeVar("K", bound=Hashable)
# Stage (`wire.DENSE`, `wire.SPARSE`) → score by point, best first.
Stages = Mapping[str, Mapping[K, float]]


def ranked(stages: Stages[K], document_of: Mapping[K, str], fusion_k: int) -> list[tuple[K, float]]:
    """The points found, best first, each with its score in 0..1.

    document_of: the document of each point; it is asked only where two stages are fused.
    """
    if len(stages) > 1:
        fused = fuse([list(found) for found in stages.values()], document_of, fusion_k)
        return [(point, fused_score(score, fusion_k, len(stages))) for point, score in fused]
    scaled = dense_score if wire.DENSE in stages else sparse_score
    return [(point, scaled(score)) for found in stages.values() for point, score in found.items()]


def passages(
    ranking: Sequence[tuple[K, float]],
    payloads: Mapping[K, dict[str, Any]],
    versions: Mapping[str, str],
    stages: Stages[K],
) -> wire.Found:
    """The passages whose version is their record's, and the ids of the others.

    payloads: FIELDS by point; one that is missing was deleted after it was found.
    versions: document → the version its record names.
    """
    dense, sparse = stages.get(wire.DENSE, {}), stages.get(wire.SPARSE, {})
    current: list[wire.Passage] = []
    stale: list[str] = []
    for point, score in ranking:
        payload = payloads.get(point)
        if payload is None or versions.get(payload["document_id"]) != payload["version"]:
            stale.append(str(point))
            continue
        current.append(
            wire.Passage(
                payload["document_id"],
                payload["ordinal"],
                payload["text"],
                payload["metadata"],
                score,
                dense.get(point),
                sparse.get(point),
            )
        )
    return wire.Found(current, stale)
