"""How a Qdrant server finds its way among many vectors: `Tuning` in the words of its client."""

from __future__ import annotations

from qdrant_client import models

from gateway.search.tuning import QUANTILE, RESCORED, Tuning


def hnsw_config(tuning: Tuning) -> models.HnswConfigDiff | None:
    """Of a new generation; None leaves it to the server."""
    if not tuning.m:
        return None
    return models.HnswConfigDiff(m=tuning.m, ef_construct=tuning.ef_construct)


def quantization_config(tuning: Tuning) -> models.ScalarQuantization | None:
    """Of a new generation; None: the vectors as they are."""
    if tuning.quantization == "none":
        return None
    return models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=QUANTILE, always_ram=True
        )
    )


def search_params(tuning: Tuning, limit: int) -> models.SearchParams:
    """For a dense search. A generation without copies is searched all the same."""
    return models.SearchParams(
        hnsw_ef=max(tuning.ef, limit),
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=RESCORED),
    )
