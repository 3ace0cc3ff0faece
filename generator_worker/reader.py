"""The reader behind its queue, for the extractive engine."""

from __future__ import annotations

from collections.abc import Sequence

from encoders.reading import PassageReader, Read, Reading
from generator_worker.encoder import Queued
from runtime.deadline import Deadline


class QueuedReader(Queued[PassageReader, Reading, Read]):
    """Reads passages for a question."""

    async def read(
        self, question: str, passages: Sequence[str], deadline: Deadline
    ) -> Sequence[Read]:
        """What the model makes of each passage. Raises as `compute`."""
        return await self.compute(lambda model: model.prepare(question, passages), deadline)
