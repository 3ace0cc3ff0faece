"""The embedded engine among many vectors: small copies, graphs, and stores made without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge

from gateway.search import wire
from gateway.search.engine import Engine
from gateway.search.ids import record_id
from gateway.search.tuning import USUAL, Tuning

DIMENSION = 64
CHUNKS = 2000
CONFIG = wire.Config(DIMENSION, 1.2, 0.75, 48.0, "english", {"kind": "keyword"})
VERSION = "v"
UNTOUCHED = Tuning(from_vectors=0)
COPIES = Tuning(from_vectors=1000)
GRAPH = Tuning(from_vectors=1000, quantization="none", m=16)
BOTH = Tuning(from_vectors=1000, m=16)


def vectors(count: int = CHUNKS) -> np.ndarray:
    rng = np.random.default_rng(6)
    made = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))


def point_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def chunks(made: np.ndarray) -> list[wire.Point]:
    return [
        wire.Point(
            point_id(number),
            {
                "kind": "chunk",
                "document_id": "d",
                "version": VERSION,
                "ordinal": number,
                "text": f"chunk {number}",
                "metadata": {},
            },
            vector.tobytes(),
            f"chunk {number}",
        )
        for number, vector in enumerate(made)
    ]


def fill(engine: Engine, made: np.ndarray) -> None:
    record = {"kind": "record", "document_id": "d", "version": VERSION, "seq": 1}
    engine.write(wire.Upsert([wire.Point(record_id("d"), record)]))
    engine.write(wire.Upsert(chunks(made)))


def found(engine: Engine, question: np.ndarray) -> list[int]:
    query = wire.Query(question.tobytes(), None, wire.Selection(), 10, 10, 10)
    return [passage.ordinal for passage in engine.query(query).passages]


def recall(engine: Engine, made: np.ndarray, questions: np.ndarray) -> float:
    nearest = np.argsort(-(questions @ made.T), axis=1)[:, :10]
    shares = [
        len(set(real.tolist()).intersection(found(engine, question))) / 10
        for real, question in zip(nearest, questions, strict=True)
    ]
    return float(np.mean(shares))


def indexed(engine: Engine) -> int:
    """Dense vectors with copies or a graph: the sparse ones, one a chunk, always count."""
    return engine._shard.info().indexed_vectors_count - CHUNKS


@pytest.mark.parametrize("tuning", [UNTOUCHED, COPIES, GRAPH, BOTH])
def test_optimised_or_not_a_search_finds_what_is_nearest(tmp_path: Path, tuning: Tuning) -> None:
    made = vectors()
    engine = Engine(tmp_path / "1", CONFIG, tuning, create=True)
    fill(engine, made)
    engine.optimize()
    assert indexed(engine) == (0 if tuning is UNTOUCHED else CHUNKS)
    assert recall(engine, made, vectors(CHUNKS + 50)[CHUNKS:]) >= 0.98
    engine.close()


def test_few_vectors_are_left_as_they_are(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "1", CONFIG, USUAL, create=True)
    fill(engine, vectors())
    engine.optimize()
    assert indexed(engine) == 0
    engine.close()


def test_deleted_points_are_taken_out(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "1", CONFIG, USUAL, create=True)
    fill(engine, vectors())
    deleted = tuple(point_id(number) for number in range(0, CHUNKS, 2))
    engine.write(wire.Delete(wire.Selection(ids=deleted)))
    engine.flush()
    before = segments(tmp_path / "1")
    engine.optimize()
    assert not before & segments(tmp_path / "1"), "the part was not written anew"
    assert engine.count(wire.Count(wire.Selection())) == CHUNKS // 2 + 1
    engine.close()


def segments(path: Path) -> set[str]:
    return {folder.name for folder in (path / "segments").iterdir()}


def test_a_store_from_before_there_were_settings_opens_and_is_optimised(tmp_path: Path) -> None:
    path = tmp_path / "1"
    path.mkdir()
    dense = edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Cosine)
    sparse = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)
    config = edge.EdgeConfig(vectors={wire.DENSE: dense}, sparse_vectors={wire.SPARSE: sparse})
    edge.EdgeShard.create(str(path), config).close()
    made = vectors()
    engine = Engine(path, CONFIG, COPIES, create=False)
    fill(engine, made)
    assert recall(engine, made, made[:20]) == 1.0
    engine.optimize()
    assert indexed(engine) == CHUNKS
    assert recall(engine, made, made[:20]) >= 0.98
    engine.close()


def test_other_settings_are_taken_at_the_next_start(tmp_path: Path) -> None:
    made = vectors()
    for tuning in (GRAPH, COPIES, UNTOUCHED, BOTH):
        engine = Engine(tmp_path / "1", CONFIG, tuning, create=True)
        if tuning is GRAPH:
            fill(engine, made)
        engine.optimize()
        assert recall(engine, made, made[:20]) >= 0.98
        engine.close()
