"""One embedder or two as if they were one: each call goes to where its model is.

Two are there while collections move from one model to another: questions need the model of
the generation they search, and a rebuild needs the next one, at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from gateway.clients import EmbedderClient, Embeddings, InputType, Lane, ModelIdentity
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# What is known of the models is asked for again before a call is refused, but not more often:
# a worker may have come back with another model before anybody saw it go.
ASK_AGAIN_S: Final = 1.0


class Embedders:
    """Texts to vectors, by the model that is wanted.

    serving: makes the vectors of new collections; rebuilding: of the next generation of those
    that are rebuilt, None: the same one. Either is asked for any model that it holds.
    """

    def __init__(self, serving: EmbedderClient, rebuilding: EmbedderClient | None = None) -> None:
        self._serving = serving
        self._rebuilding = rebuilding or serving
        # Where both hold a model, the first is being replaced by what the second was.
        self._clients = (serving,) if rebuilding is None else (rebuilding, serving)
        self._asked_s = time.monotonic()

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The model that collections are made with. Raises as `EmbedderClient.model`."""
        return await self._serving.model(deadline)

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        """The model that collections are rebuilt with. Raises as `EmbedderClient.model`."""
        return await self._rebuilding.model(deadline)

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        """Returns when an embedder holds the model of that fingerprint.

        Raises ServiceError MODEL_MISMATCH when none does, EMBEDDER_UNAVAILABLE when one that
        might cannot be reached, DEADLINE_EXCEEDED or MODEL_FAILED.
        """
        await self._holder(fingerprint, deadline)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType,
        lane: Lane,
        fingerprint: str,
        deadline: Deadline,
        truncate: bool = True,
    ) -> Embeddings:
        """One vector per text, by the model of that fingerprint.

        Raises as `EmbedderClient.embed`, and as `require`.
        """
        # Once more when a worker has come back with another model since it was asked.
        for _ in range(2):
            client = await self._holder(fingerprint, deadline)
            try:
                return await client.embed(
                    texts,
                    input_type=input_type,
                    lane=lane,
                    fingerprint=fingerprint,
                    deadline=deadline,
                    truncate=truncate,
                )
            except ServiceError as error:
                if error.reason is not Reason.MODEL_MISMATCH:
                    raise
                self._forget()
        raise mismatch(fingerprint, self._known())

    def _known(self) -> list[ModelIdentity]:
        models = (client.known_model for client in self._clients)
        return [model for model in models if model is not None]

    async def _holder(self, fingerprint: str, deadline: Deadline) -> EmbedderClient:
        for client in self._clients:
            if (known := client.known_model) is not None and known.fingerprint == fingerprint:
                return client
        if time.monotonic() - self._asked_s >= ASK_AGAIN_S:
            self._forget()
        return await self._first_that_holds(fingerprint, deadline)

    def _forget(self) -> None:
        self._asked_s = time.monotonic()
        for client in self._clients:
            client.forget_model()

    async def _first_that_holds(self, fingerprint: str, deadline: Deadline) -> EmbedderClient:
        """Asks all at once: one that cannot be reached must not keep the other from its work."""
        asking = {asyncio.create_task(one.model(deadline)): one for one in self._clients}
        unheard: ServiceError | None = None
        try:
            waiting = set(asking)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        if task.result().fingerprint == fingerprint:
                            return asking[task]
                    except ServiceError as error:
                        unheard = error
        finally:
            for task in asking:
                if not task.cancel() and not task.cancelled():
                    task.exception()  # heard, or asyncio complains
        if unheard is not None:  # it may be the one
            raise unheard
        raise mismatch(fingerprint, self._known())


def mismatch(fingerprint: str, held: Sequence[ModelIdentity]) -> ServiceError:
    """409, in words that say what can be done."""
    there = " and ".join(str(model) for model in held) or "none"
    return ServiceError(
        Reason.MODEL_MISMATCH,
        f"No embedder holds the model of the collection's vectors (fingerprint "
        f"{fingerprint[:8]}); there is {there}. Start one with that model as EMBEDDER_TARGET or "
        "EMBEDDER_TARGET_NEXT, move the collection to the model that is there with "
        "POST /reindex, or search with mode 'sparse'.",
    )
