"""What a store is asked to be."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.search import wire
from gateway.search.conditions import metadata_path
from gateway.search.settings import StoreSettings
from gateway.search.types import Bm25


@dataclass(frozen=True, slots=True)
class Plan:
    """The default collection, and how it is searched.

    prefetch: passages of each stage that enter the fusion, at least.
    fusion_k: the constant of reciprocal rank fusion.
    indexes: metadata field → kind of its index.
    """

    collection: str
    dimension: int
    bm25: Bm25
    indexes: dict[str, wire.IndexKind]
    concurrency: int
    prefetch: int
    fusion_k: int

    @classmethod
    def of(cls, settings: StoreSettings) -> Plan:
        """The plan that the settings name."""
        return cls(
            collection=settings.qdrant_collection,
            dimension=settings.vector_dim,
            bm25=Bm25(language=settings.bm25_language),
            indexes=settings.indexed_fields(),
            concurrency=settings.search_concurrency,
            prefetch=settings.search_prefetch,
            fusion_k=settings.hybrid_fusion_k,
        )

    def config(self) -> wire.Config:
        """What the points of the default collection are made with."""
        fields: dict[str, wire.IndexKind] = {
            metadata_path(field): kind for field, kind in self.indexes.items()
        }
        return wire.Config(
            self.dimension,
            self.bm25.k1,
            self.bm25.b,
            self.bm25.average_tokens,
            self.bm25.language,
            {"kind": "keyword", **fields},
        )
