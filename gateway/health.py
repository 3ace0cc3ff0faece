"""What the gateway depends on, as last seen. Asking costs nothing: background tasks look."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import grpc

from gateway.answers import Component, Components, HealthResponse, Readiness
from gateway.clients import ModelIdentity
from gateway.metrics import COMPONENTS, GatewayMetrics
from gateway.search.types import Model, Stamp
from runtime.deadline import Deadline
from runtime.errors import ServiceError
from runtime.labels import model_label

log = logging.getLogger(__name__)

# How often the state of the channels is read: it is in memory, and this many reads cost nothing.
LOOK_S: Final = 0.1
ASK_MODEL_S: Final = 5.0

# What a question has to do without while a part is down.
_WITHOUT: Final = {
    "vector_db": "The vector store cannot be reached: documents and questions are refused.",
    "cache": "Redis cannot be reached: vectors are kept in memory alone.",
    "embedder": "The embedder cannot be reached: questions are answered by their words alone, "
    "and nothing can be indexed.",
    "reranker": "The reranker cannot be reached: passages stay in the order of retrieval.",
    "generator": "The generator cannot be reached: /search works, /query does not.",
}


class Store(Protocol):
    """The part of the store that can be asked how it is."""

    @property
    def broken(self) -> bool:
        """This gateway's own store process cannot be brought back."""

    @property
    def fault(self) -> str | None:
        """Why the store cannot be used yet; None once it could."""

    async def ping(self) -> None:
        """Raises ServiceError when the store does not answer."""

    async def stamp(self, collection: str, deadline: Deadline) -> Stamp:
        """What the collection was made with."""


class Modelled(Protocol):
    """A client that knows its worker's model."""

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The loaded model."""

    def forget_model(self) -> None:
        """Makes `model` ask again."""


@dataclass(frozen=True, slots=True)
class Worker:
    """channel: its state says whether a replica serves (client-side health check).
    client: asked for its model whenever the channel has come up; None has none to ask for.
    """

    channel: grpc.aio.Channel
    client: Modelled | None


WorkerName = Literal["embedder", "embedder_next", "reranker", "generator"]
EMBEDDERS: Final[tuple[WorkerName, ...]] = ("embedder", "embedder_next")


class Health:
    """The picture, and whether this gateway should be sent requests.

    Ready latches: once embedder and store were each usable, only draining or a broken
    store process of this gateway's own clears it. A lost shared dependency would otherwise
    take every gateway out of service at once.

    The embedder is the one that holds the model of the default collection: while collections
    move to another model, that may be EMBEDDER_TARGET_NEXT's. Until something is written it is
    EMBEDDER_TARGET's. Where none of those that are set holds the model, it is down as long as
    one of them cannot be reached.
    """

    def __init__(
        self,
        *,
        store: Store,
        ping_cache: Callable[[], Awaitable[bool]] | None,
        workers: Mapping[WorkerName, Worker],
        collection: str,
        vector_dim: int,
        probe_interval_s: float,
        version: str,
        metrics: GatewayMetrics,
    ) -> None:
        self._store = store
        self._ping_cache = ping_cache
        self._workers = workers
        self._collection = collection
        self._vector_dim = vector_dim
        self._probe_interval_s = probe_interval_s
        self._version = version
        self._up = dict.fromkeys(COMPONENTS, False)
        # The memory tier cannot go away; only Redis can.
        self._up["cache"] = ping_cache is None
        self._seen: set[str] = set()
        self._mismatch: str | None = None
        # Of the embedders that can be reached: by worker, the model.
        self._models: dict[str, ModelIdentity] = {}
        self._wanted: Model | None = None
        self._unforeseen: dict[str, str] = {}
        self._draining = False
        self._started_s = time.monotonic()
        self.became_ready = asyncio.Event()
        for name in COMPONENTS:
            metrics.component(name, lambda name=name: float(self._up[name]))  # type: ignore[misc]

    async def watch(self) -> None:
        """Keeps the picture until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_store())
            if self._ping_cache is not None:
                tasks.create_task(self._watch_cache(self._ping_cache))
            for name, worker in self._workers.items():
                tasks.create_task(self._watch_worker(name, worker))

    def drain(self) -> None:
        """The gateway is stopping."""
        self._draining = True

    def report(self) -> HealthResponse:
        """For people."""
        up = self._up
        status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
        if not all(up.values()) or self._mismatch is not None or self._about_models():
            status = "degraded"
        if not up["vector_db"] or self._store.broken or not self.became_ready.is_set():
            status = "unhealthy"
        state: dict[str, Component] = {name: "up" if up[name] else "down" for name in COMPONENTS}
        return HealthResponse(
            status=status,
            components=Components(**state),
            notes=[
                *self._notes(),
                *self._about_models(),
                *(note for name, note in _WITHOUT.items() if not up[name]),
            ],
            uptime_seconds=round(time.monotonic() - self._started_s, 3),
            version=self._version,
        )

    def readiness(self) -> Readiness:
        """For load balancers."""
        ready = self.became_ready.is_set() and not self._draining and not self._store.broken
        return Readiness(ready, [] if ready else self._notes())

    def _notes(self) -> list[str]:
        notes: list[str] = []
        if self._draining:
            notes.append("The gateway is stopping.")
        if self._store.broken:
            notes.append("The store process of this gateway cannot be brought back.")
        notes += [fault for fault in (self._mismatch, self._store.fault) if fault is not None]
        if not self.became_ready.is_set():
            waiting = [name for name in ("embedder", "vector_db") if not self._up[name]]
            if waiting:
                notes.append(f"Waiting for {' and '.join(waiting)}.")
        return notes

    def _about_models(self) -> list[str]:
        """What questions and rebuilds have to do without, although an embedder is there."""
        notes: list[str] = []
        if "embedder_next" in self._workers and "embedder_next" not in self._models:
            notes.append(
                "EMBEDDER_TARGET_NEXT cannot be reached: no collection can be moved to its model."
            )
        elif self._wanted is not None and self._models and self._holder() is None:
            notes.append(
                f"No embedder holds {model_label(self._wanted.name, self._wanted.fingerprint)}, "
                f"the model of the collection '{self._collection}': its questions are refused, "
                "unless their mode is 'sparse'."
            )
        return notes

    def _holder(self) -> str | None:
        """The worker that holds the default collection's model."""
        wanted = None if self._wanted is None else self._wanted.fingerprint
        holders = (name for name, model in self._models.items() if model.fingerprint == wanted)
        return next(holders, None)

    def _embeds(self) -> bool:
        """Whether the embedder is up; the class says which one that is."""
        if self._wanted is None:
            return "embedder" in self._models
        reached = all(name in self._models for name in EMBEDDERS if name in self._workers)
        return reached or self._holder() is not None

    def _set(self, name: str, up: bool) -> None:
        if self._up[name] != up:
            self._up[name] = up
            if up and name not in self._seen:
                level = logging.DEBUG  # part of every start
            else:
                level = logging.INFO if up else logging.WARNING
            self._seen.add(name)
            log.log(level, "%s is %s", name, "up" if up else "down")
        if self._up["embedder"] and self._up["vector_db"] and self._mismatch is None:
            self.became_ready.set()

    async def _says_yes(self, name: str, asking: Awaitable[bool]) -> bool:
        """What a dependency says of itself; no failure to say it may end the watch."""
        try:
            yes = await asking
        except ServiceError:
            return False
        except Exception as error:
            # Asked up to ten times a second: the same once is enough.
            if self._unforeseen.get(name) != repr(error):
                self._unforeseen[name] = repr(error)
                log.exception("asking %s failed", name)
            return False
        self._unforeseen.pop(name, None)
        return yes

    async def _watch_store(self) -> None:
        async def ping() -> bool:
            await self._store.ping()
            with suppress(ServiceError):  # it may be on its way from one generation to the next
                deadline = Deadline.after(ASK_MODEL_S)
                self._wanted = (await self._store.stamp(self._collection, deadline)).model
            return True

        while True:
            self._set("vector_db", await self._says_yes("vector_db", ping()))
            await asyncio.sleep(self._probe_interval_s)

    async def _watch_cache(self, ping: Callable[[], Awaitable[bool]]) -> None:
        while True:
            self._set("cache", await self._says_yes("cache", ping()))
            await asyncio.sleep(self._probe_interval_s)

    async def _watch_worker(self, name: WorkerName, worker: Worker) -> None:
        connected = False
        while True:
            state = worker.channel.get_state(try_to_connect=True)
            was_connected, connected = connected, state is grpc.ChannelConnectivity.READY
            up = connected
            if connected and worker.client is not None:
                if not was_connected:
                    worker.client.forget_model()
                up = await self._says_yes(name, self._knows_model(name, worker.client))
            if not up:
                self._models.pop(name, None)
            if name in EMBEDDERS:
                self._set("embedder", self._embeds())
            else:
                self._set(name, up)
            await asyncio.sleep(LOOK_S)

    async def _knows_model(self, name: WorkerName, client: Modelled) -> bool:
        """Whether the worker tells its model; remembered by the client, so asked once."""
        model = await client.model(Deadline.after(ASK_MODEL_S))
        if name in EMBEDDERS:
            self._models[name] = model
        if name == "embedder":
            mismatch = self._mismatch_with(model)
            if mismatch is not None and mismatch != self._mismatch:
                log.error(mismatch)
            self._mismatch = mismatch
        return True

    def _mismatch_with(self, model: ModelIdentity) -> str | None:
        # The next model may be longer or shorter; VECTOR_DIM is changed when it takes over.
        if self._vector_dim in (model.dimension, *(one.dimension for one in self._models.values())):
            return None
        return (
            f"VECTOR_DIM is {self._vector_dim}, but the vectors of {model.name} have "
            f"{model.dimension} dimensions: set VECTOR_DIM={model.dimension}, or EMBEDDING_MODEL "
            f"to a model of {self._vector_dim}."
        )
