"""Documents of an index job that are indexed together, and what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.indexing import NewDocument
from gateway.jobs.job import DocumentOutcome


class Group:
    """Outcomes come in any order and are kept in that of the documents, as far as no gap is."""

    def __init__(self, documents: Sequence[NewDocument]) -> None:
        self._documents = documents
        self._positions = {document.id: at for at, document in enumerate(documents)}
        self._outcomes: list[DocumentOutcome | None] = [None] * len(documents)
        self._kept = 0
        self._arrived = asyncio.Event()
        self.settled = 0

    def __len__(self) -> int:
        return len(self._documents)

    def settle(self, outcome: DocumentOutcome) -> None:
        """Takes what became of a document."""
        at = self._positions[outcome.id]
        self.settled += self._outcomes[at] is None
        self._outcomes[at] = outcome
        self._arrived.set()

    def unsettled(self) -> list[NewDocument]:
        """The documents nothing is known of yet, in their order."""
        pairs = zip(self._documents, self._outcomes, strict=True)
        return [document for document, outcome in pairs if outcome is None]

    def keepable(self) -> list[DocumentOutcome]:
        """What can be kept next: the outcomes from the last kept one to the first gap."""
        found: list[DocumentOutcome] = []
        for outcome in self._outcomes[self._kept :]:
            if outcome is None:
                break
            found.append(outcome)
        return found

    def keep(self, outcomes: Sequence[DocumentOutcome]) -> bool:
        """Notes that these are kept; whether those of all documents are now."""
        self._kept += len(outcomes)
        return self._kept == len(self._documents)

    async def arrival(self) -> None:
        """Returns when an outcome has come since the last call."""
        await self._arrived.wait()
        self._arrived.clear()
