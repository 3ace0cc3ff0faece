"""Documents listed, read whole, and deleted by what they have in common."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from gateway.search import wire
from gateway.search.conditions import selection
from gateway.search.filters import Filter
from gateway.search.plan import Plan
from gateway.search.points import Points, at
from gateway.search.records import Records
from gateway.search.stamps import Stamps
from gateway.search.types import Document, Page
from gateway.search.versions import RECORD, SUMMARY_FIELDS, Record
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError
from runtime.groups import task_group

# Documents of one call that are deleted at the same time.
DELETED_AT_ONCE: Final = 16


class Documents:
    """The documents of collections."""

    def __init__(self, points: Points, stamps: Stamps, records: Records, plan: Plan) -> None:
        self._points = points
        self._stamps = stamps
        self._records = records
        self._plan = plan

    async def page(
        self,
        collection: str,
        *,
        limit: int,
        cursor: str | None,
        filter: Filter | None,  # noqa: A002
        deadline: Deadline,
    ) -> Page:
        """One page. A document that is there throughout is on exactly one of the pages.

        Raises ServiceError INVALID_ARGUMENT for a cursor that no page gave.
        """
        start_id = None if cursor is None else _start_id(cursor)
        documents = selection(filter, wire.Match("kind", RECORD), indexes=self._plan.indexes)
        part = await self._stamps.in_generation(
            collection,
            deadline,
            lambda stamp: self._points.scroll(
                at(collection, stamp.generation),
                documents,
                limit,
                deadline,
                start_id=start_id,
                fields=SUMMARY_FIELDS,
            ),
        )
        records = [msgspec.convert(point.payload, Record) for point in part.points]
        return Page(tuple(record.summary() for record in records), part.next_id)

    async def document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> Document | None:
        """The document with its source text and chunks; None if there is none."""
        return await self._stamps.in_generation(
            collection,
            deadline,
            lambda stamp: self._records.document(
                at(collection, stamp.generation), document_id, deadline
            ),
        )

    async def delete_matching(
        self,
        collection: str,
        filter: Filter | None,  # noqa: A002
        deadline: Deadline,
    ) -> tuple[int, int]:
        """Deletes the documents that pass `filter`: how many, and how many chunks they had.

        One that is replaced meanwhile stays if it passes no longer. Those deleted before an
        error stay deleted, and nothing is deleted after it; out of time it stops between
        documents.
        """
        doomed = selection(filter, indexes=self._plan.indexes)
        documents = chunks = 0
        cursor: str | None = None
        while True:
            page = await self.page(
                collection, limit=DELETED_AT_ONCE, cursor=cursor, filter=filter, deadline=deadline
            )
            async with task_group() as group:
                deletes = [
                    group.create_task(self._records.delete(collection, one.id, deadline, doomed))
                    for one in page.documents
                ]
            deleted = [delete.result() for delete in deletes]
            documents += sum(count is not None for count in deleted)
            chunks += sum(count or 0 for count in deleted)
            cursor = page.next_cursor
            if cursor is None:
                return documents, chunks


def _start_id(cursor: str) -> str:
    try:
        return str(uuid.UUID(cursor))
    except ValueError:
        raise ServiceError(
            Reason.INVALID_ARGUMENT, "Not a cursor of this service.", field="cursor"
        ) from None
