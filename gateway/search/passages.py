"""The passages nearest to a question, in one generation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.search import wire
from gateway.search.conditions import selection
from gateway.search.filters import Filter
from gateway.search.plan import Plan
from gateway.search.points import Points, at
from gateway.search.stamps import check_model
from gateway.search.types import Hit, Mode, Stamp
from runtime.deadline import Deadline, expired
from runtime.errors import Reason, ServiceError


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is looked for; the fields are those of `Search.nearest`."""

    text: str
    vector: npt.NDArray[np.float32] | None
    mode: Mode
    where: Filter | None
    limit: int
    fingerprint: str | None = None


class _Turn:
    """`async with`: a place among those that search, waited for no longer than the deadline."""

    def __init__(self, places: asyncio.Semaphore, deadline: Deadline) -> None:
        self._places = places
        self._deadline = deadline

    async def __aenter__(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # does not wait, and so needs no timer
            return
        try:
            async with asyncio.timeout(self._deadline.share_s()):
                await self._places.acquire()
        except TimeoutError:
            raise expired() from None

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


class Passages:
    """Searches. leftovers: called when chunks were found that no record names."""

    def __init__(self, points: Points, plan: Plan, leftovers: Callable[[], None]) -> None:
        self._points = points
        self._plan = plan
        self._leftovers = leftovers
        self._searching = asyncio.Semaphore(plan.concurrency)

    async def nearest(
        self, collection: str, stamp: Stamp, question: Question, deadline: Deadline
    ) -> list[Hit]:
        """Passages of the stamp's generation, best first.

        Raises ServiceError MODEL_MISMATCH for a vector that another model made.
        """
        address = at(collection, stamp.generation)
        query = self._query(collection, stamp, question)
        async with _Turn(self._searching, deadline):
            found = await self._points.query(address, query, deadline)
            if found.stale:
                # A document was replaced meanwhile, or a crash left chunks behind. Once
                # more without those: the passages they kept out may be the new ones.
                self._leftovers()
                without = msgspec.structs.replace(query.selection, without=tuple(found.stale))
                query = msgspec.structs.replace(query, selection=without)
                found = await self._points.query(address, query, deadline)
        return [
            Hit(
                f"{one.document_id}#{one.ordinal}",
                one.document_id,
                one.ordinal,
                one.text,
                one.score,
                one.dense,
                one.sparse,
                one.metadata,
            )
            for one in found.passages
        ]

    def _query(self, collection: str, stamp: Stamp, question: Question) -> wire.Query:
        vector = None if question.mode == "sparse" else question.vector
        if vector is not None:
            _check_vector(collection, stamp, vector, question.fingerprint)
        elif question.mode == "dense":
            raise ValueError("mode dense needs a vector")
        return wire.Query(
            None if vector is None else np.ascontiguousarray(vector, "<f4").tobytes(),
            None if question.mode == "dense" else question.text,
            selection(question.where, indexes=self._plan.indexes),
            question.limit,
            max(question.limit, self._plan.prefetch),
            self._plan.fusion_k,
        )


def _check_vector(
    collection: str, stamp: Stamp, vector: npt.NDArray[np.float32], fingerprint: str | None
) -> None:
    if fingerprint is not None:
        check_model(collection, stamp, fingerprint)
    if vector.shape != (stamp.dimension,):
        raise ServiceError(
            Reason.MODEL_MISMATCH,
            f"The collection '{collection}' holds vectors of length {stamp.dimension}, "
            f"the question's has length {vector.size}.",
            collection=collection,
        )
