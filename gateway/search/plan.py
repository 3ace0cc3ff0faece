"""What a store is asked to be."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.search import wire
from gateway.search.conditions import metadata_path
from gateway.search.settings import StoreSettings
from gateway.search.types import Bm25


@dataclass(frozen=True, slots=True)
class Plan:
    """The default collection, and how collections are made, searched and rebuilt.

    prefetch: passages of each stage that enter the fusion, at least.
    fusion_k: the constant of reciprocal rank fusion.
    indexes: metadata field → kind of its index.
    most_collections: that there may be.
    keep_s: how long the generation that a rebuild replaced is kept.
    """

    collection: str
    dimension: int
    bm25: Bm25
    indexes: dict[str, wire.IndexKind]
    concurrency: int
    prefetch: int
    fusion_k: int
    most_collections: int = 32
    keep_s: float = 300.0

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
            most_collections=settings.max_collections,
            keep_s=settings.reindex_keep_seconds,
        )

    def config(self, dimension: int | None = None) -> wire.Config:
        """What a generation is made with; the vectors' length is the default collection's."""
        fields: dict[str, wire.IndexKind] = {
            metadata_path(field): kind for field, kind in self.indexes.items()
        }
        return wire.Config(
            dimension or self.dimension,
            self.bm25.k1,
            self.bm25.b,
            self.bm25.average_tokens,
            self.bm25.language,
            {"kind": "keyword", **fields},
        )
