"""What the gateway depends on, as last seen. Asking costs nothing: background tasks look."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import grpc

from gateway.answers import Component, Components, HealthResponse, Readiness
from gateway.clients import ModelIdentity
from gateway.metrics import COMPONENTS, GatewayMetrics
from runtime.deadline import Deadline
from runtime.errors import ServiceError

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


class Health:
    """The picture, and whether this gateway should be sent requests.

    Ready latches: once embedder and store were each usable, only draining or a broken
    store process of this gateway's own clears it. A lost shared dependency would otherwise
    take every gateway out of service at once.
    """

    def __init__(
        self,
        *,
        store: Store,
        ping_cache: Callable[[], Awaitable[bool]] | None,
        workers: Mapping[Literal["embedder", "reranker", "generator"], Worker],
        vector_dim: int,
        probe_interval_s: float,
        version: str,
        metrics: GatewayMetrics,
    ) -> None:
        self._store = store
        self._ping_cache = ping_cache
        self._workers = workers
        self._vector_dim = vector_dim
        self._probe_interval_s = probe_interval_s
        self._version = version
        self._up = dict.fromkeys(COMPONENTS, False)
        # The memory tier cannot go away; only Redis can.
        self._up["cache"] = ping_cache is None
        self._seen: set[str] = set()
        self._mismatch: str | None = None
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
        if not all(up.values()) or self._mismatch is not None:
            status = "degraded"
        if not up["vector_db"] or self._store.broken or not self.became_ready.is_set():
            status = "unhealthy"
        state: dict[str, Component] = {name: "up" if up[name] else "down" for name in COMPONENTS}
        return HealthResponse(
            status=status,
            components=Components(**state),
            notes=[*self._notes(), *(note for name, note in _WITHOUT.items() if not up[name])],
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
            return True

        while True:
            self._set("vector_db", await self._says_yes("vector_db", ping()))
            await asyncio.sleep(self._probe_interval_s)

    async def _watch_cache(self, ping: Callable[[], Awaitable[bool]]) -> None:
        while True:
            self._set("cache", await self._says_yes("cache", ping()))
            await asyncio.sleep(self._probe_interval_s)

    async def _watch_worker(self, name: str, worker: Worker) -> None:
        connected = False
        while True:
            state = worker.channel.get_state(try_to_connect=True)
            was_connected, connected = connected, state is grpc.ChannelConnectivity.READY
            if not connected:
                self._set(name, False)
            elif worker.client is None:
                self._set(name, True)
            else:
                if not was_connected:
                    worker.client.forget_model()
                asking = self._knows_model(name, worker.client)
                self._set(name, await self._says_yes(name, asking))
            await asyncio.sleep(LOOK_S)

    async def _knows_model(self, name: str, client: Modelled) -> bool:
        """Whether the worker tells its model; remembered by the client, so asked once."""
        model = await client.model(Deadline.after(ASK_MODEL_S))
        if name == "embedder":
            mismatch = self._mismatch_with(model)
            if mismatch is not None and mismatch != self._mismatch:
                log.error(mismatch)
            self._mismatch = mismatch
        return True

    def _mismatch_with(self, model: ModelIdentity) -> str | None:
        if model.dimension == self._vector_dim:
            return None
        return (
            f"VECTOR_DIM is {self._vector_dim}, but the vectors of {model.name} have "
            f"{model.dimension} dimensions: set VECTOR_DIM={model.dimension}, or EMBEDDING_MODEL "
            f"to a model of {self._vector_dim}."
        )
