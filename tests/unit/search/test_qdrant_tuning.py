"""What a Qdrant server is told of searching among many vectors."""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, models

from gateway.search import wire
from gateway.search.qdrant import requests_for
from gateway.search.server import ServerPoints
from gateway.search.tuning import USUAL, Tuning
from runtime.deadline import Deadline

CONFIG = wire.Config(4, 1.2, 0.75, 48.0, "english", {})


class Recording(AsyncQdrantClient):
    """The in-memory client, which takes note of what collections are made with."""

    made: dict[str, Any]

    async def create_collection(self, *args: Any, **given: Any) -> bool:
        self.made = given
        return await super().create_collection(*args, **given)


async def created(tuning: Tuning) -> dict[str, Any]:
    client = Recording(":memory:")
    points = ServerPoints(client, tuning)
    await points.create("documents", CONFIG, Deadline.after(10))
    await points.aclose()
    return client.made


async def test_a_generation_gets_copies_and_the_servers_own_graph() -> None:
    made = await created(USUAL)
    assert made["hnsw_config"] is None
    assert made["quantization_config"].scalar.type is models.ScalarType.INT8


async def test_a_generation_gets_the_graph_that_is_set_and_no_copies() -> None:
    made = await created(Tuning(quantization="none", m=24, ef_construct=150))
    assert (made["hnsw_config"].m, made["hnsw_config"].ef_construct) == (24, 150)
    assert made["quantization_config"] is None


@pytest.mark.parametrize(("limit", "candidates"), [(10, 128), (500, 500)])
def test_a_dense_search_keeps_as_many_candidates_as_it_is_asked_for(
    limit: int, candidates: int
) -> None:
    query = wire.Query(b"", None, wire.Selection(), limit, limit, 10)
    (request,) = requests_for(query, {wire.DENSE: [0.0] * 4}, USUAL)
    assert request.params is not None
    assert request.params.hnsw_ef == candidates
    assert request.params.quantization is not None
    assert request.params.quantization.rescore


def test_the_sparse_stage_is_left_alone() -> None:
    query = wire.Query(None, "words", wire.Selection(), 10, 10, 10)
    sparse = models.SparseVector(indices=[1], values=[1.0])
    (request,) = requests_for(query, {wire.SPARSE: sparse}, USUAL)
    assert request.params is None
