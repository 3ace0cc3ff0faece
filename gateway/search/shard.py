"""The embedded engine's files of one generation: how they are laid out, made and opened."""

from __future__ import annotations

import math
from pathlib import Path
from shutil import rmtree
from typing import Final

import qdrant_edge as edge

from gateway.search import wire
from gateway.search.tuning import QUANTILE, RESCORED, Tuning

# A part of the store is rewritten without its deleted points once they are this share of it...
DELETED_SHARE: Final = 0.2
# ...and it is worth it. Deleted points are never taken back otherwise.
LEAST_VACUUMED: Final = 1000
# Vectors (kilobytes of them) that a filter may let through and still be compared one by one.
FULL_SCAN_KB: Final = 10_000
VECTOR_BYTES: Final = 4
# The engine's own folder for parts that are not complete yet (0.9).
UNFINISHED_PARTS: Final = "temp_segments"
# Parts that optimising aims at. What is new becomes a part of its own until there are so many,
# and then the smallest grows: with fewer, more would be built anew each time; with more, each
# search would have more graphs to walk.
PARTS: Final = 4


def create(path: Path, config: wire.Config, tuning: Tuning) -> None:
    """Makes the directory under another name first: a half-made one is never loaded."""
    unfinished = path.with_name(path.name + ".new")
    rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shard = edge.EdgeShard.create(str(unfinished), _layout(config, tuning))
    shard.flush()
    shard.close()
    unfinished.rename(path)


def load(path: Path, config: wire.Config, tuning: Tuning) -> edge.EdgeShard:
    """Opens a directory. Its parts stay as they are until they are optimised."""
    # What a process was building when it was killed; the engine would leave it there for ever.
    rmtree(path / UNFINISHED_PARTS, ignore_errors=True)
    return edge.EdgeShard.load(str(path), _layout(config, tuning))


def search_params(tuning: Tuning, limit: int) -> edge.SearchParams:
    """For a dense search."""
    quantization = edge.QuantizationSearchParams(rescore=True, oversampling=RESCORED)
    return edge.SearchParams(
        hnsw_ef=max(tuning.ef, limit),
        quantization=None if tuning.quantization == "none" else quantization,
    )


def _layout(config: wire.Config, tuning: Tuning) -> edge.EdgeConfig:
    # In kilobytes; the engine, too, reads 0 as never.
    threshold_kb = math.ceil(tuning.from_vectors * config.dimension * VECTOR_BYTES / 1024)
    quantization = edge.ScalarQuantizationConfig(
        edge.ScalarType.Int8, quantile=QUANTILE, always_ram=True
    )
    return edge.EdgeConfig(
        vectors={
            wire.DENSE: edge.EdgeVectorParams(size=config.dimension, distance=edge.Distance.Cosine)
        },
        sparse_vectors={wire.SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=edge.HnswIndexConfig(
            m=tuning.m, ef_construct=tuning.ef_construct, full_scan_threshold=FULL_SCAN_KB
        ),
        quantization_config=None if tuning.quantization == "none" else quantization,
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=DELETED_SHARE,
            vacuum_min_vector_number=LEAST_VACUUMED,
            default_segment_number=PARTS,
            indexing_threshold=threshold_kb,
        ),
    )
