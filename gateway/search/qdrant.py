"""The words of the store in those of Qdrant's client, and its errors in ours."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from gateway.search import wire
from gateway.search.bm25 import Encoder
from gateway.search.points import no_collection, unavailable
from gateway.search.qdrant_filters import filter_of
from gateway.search.qdrant_tuning import search_params
from gateway.search.tuning import Tuning
from runtime.deadline import Deadline, expired

Stages = dict[str, list[float] | models.SparseVector]


def requests_for(query: wire.Query, stages: Stages, tuning: Tuning) -> list[models.QueryRequest]:
    """One request for each stage, for points and the document of each."""
    limit = max(query.limit, query.prefetch) if len(stages) > 1 else query.limit
    condition = filter_of(query.selection)
    return [
        models.QueryRequest(
            query=vector,
            using=using,
            filter=condition,
            limit=limit,
            with_payload=["document_id"],
            params=search_params(tuning, limit) if using == wire.DENSE else None,
        )
        for using, vector in stages.items()
    ]


def structs(points: Sequence[wire.Point], encoder: Encoder) -> list[models.PointStruct]:
    """Points to write, their sparse vectors encoded: 34 µs each, so in a thread."""
    return [_struct(point, encoder) for point in points]


def _struct(point: wire.Point, encoder: Encoder) -> models.PointStruct:
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[wire.DENSE] = wire.unpack(point.dense)
    if point.text is not None:
        indices, values = encoder.passage(point.text)
        if indices:
            vectors[wire.SPARSE] = models.SparseVector(indices=indices, values=values)
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def stored(record: models.Record) -> wire.Point:
    """A point as read."""
    vectors: Any = record.vector or {}
    dense = vectors.get(wire.DENSE)
    return wire.Point(
        str(record.id), record.payload or {}, None if dense is None else wire.pack(dense)
    )


@asynccontextmanager
async def call(collection: str, deadline: Deadline) -> AsyncIterator[int]:
    """What is left of the deadline, in whole seconds; the client's errors become ours."""
    share_s = deadline.share_s()
    try:
        async with asyncio.timeout(share_s):
            yield math.ceil(share_s)
    except TimeoutError:
        raise expired() from None
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise no_collection(collection) from error
        raise unavailable() from error
    except UnexpectedResponse as error:
        if error.status_code == 404:
            raise no_collection(collection) from error
        raise unavailable() from error
    except (ApiException, QdrantException, OSError) as error:
        raise unavailable() from error
    except ValueError as error:
        # The in-memory client's way to say NOT_FOUND.
        if "not found" in str(error):
            raise no_collection(collection) from error
        raise
