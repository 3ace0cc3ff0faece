"""A gateway in front of replicas that come and go, as pods behind headless Services do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench import dns, worker
from bench.dns import NameServer
from bench.scrape import scrape
from bench.worker import LOOPBACK, Worker

# As in production, where a load balancer is to look elsewhere before a worker refuses.
DRAIN_PAUSE_S: Final = 1.0


class Replicas:
    """The replicas of one worker: one name, an address each, the same port."""

    def __init__(
        self, module: str, names: NameServer, stack: ExitStack, settings: Mapping[str, object]
    ) -> None:
        """stack: whoever closes it stops the replicas. settings: of every replica."""
        self.listed: tuple[Worker, ...] = ()
        self.started: list[Worker] = []
        self._module = module
        self._name = f"{module}.test"
        self._names = names
        self._stack = stack
        self._settings = dict(settings)
        self._port = 0

    @property
    def target(self) -> str:
        """Where a client finds all of them; not before the first is there."""
        return self._names.target(self._name, self._port)

    def start(self) -> Worker:
        """One more process, which is ready and which nobody knows of."""
        settings = {
            "drain_pause_seconds": DRAIN_PAUSE_S,
            "grpc_host": f"127.0.0.{len(self.started) + 1}",
            "grpc_port": self._port,  # the first takes a free one, the others the same
            **self._settings,
        }
        replica = self._stack.enter_context(worker.running(self._module, **settings))
        self._port = int(replica.target.rpartition(":")[2])
        self.started.append(replica)
        return replica

    def announce(self, replica: Worker) -> None:
        """The name has its address from now on."""
        self._list((*self.listed, replica))

    def forget(self, replica: Worker) -> None:
        """The name has its address no longer."""
        self._list(tuple(one for one in self.listed if one is not replica))

    def kill(self, replica: Worker) -> None:
        """SIGKILL; the name forgets it afterwards, as a cluster that notices does."""
        replica.kill()
        self.forget(replica)

    def stop(self, replica: Worker) -> None:
        """SIGTERM, as a pod gets it that is deleted: the name forgets it at the same time."""
        self.forget(replica)
        replica.stop()

    def _list(self, replicas: tuple[Worker, ...]) -> None:
        self.listed = replicas
        self._names.zone[self._name] = tuple(
            replica.target.rpartition(":")[0] for replica in replicas
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """What runs."""

    gateway: Worker
    embedders: Replicas
    rerankers: Replicas

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the gateway."""
        host, _, port = self.gateway.target.partition(":")
        return host, int(port)

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://{self.gateway.target}"


@contextlib.contextmanager
def running(
    *, embedders: int, rerankers: int, gateway: Mapping[str, object], **workers: object
) -> Iterator[Cluster]:
    """Starts so many replicas, one generator and a gateway; stops them at the end.

    gateway: its settings; workers: those of embedders and rerankers.
    Raises StartFailed.
    """
    with ExitStack() as stack:
        names = stack.enter_context(dns.serving())
        counts = {"embedder_worker": embedders, "reranker_worker": rerankers, "generator_worker": 1}
        kinds = {module: Replicas(module, names, stack, workers) for module in counts}

        def fill(module: str) -> None:
            for _ in range(counts[module]):
                kinds[module].announce(kinds[module].start())

        def empty() -> None:
            with ThreadPoolExecutor() as pool:
                list(
                    pool.map(Worker.stop, [one for kind in kinds.values() for one in kind.started])
                )

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, counts))
        stack.callback(empty)  # after the gateway, and all at once
        front = worker.running(
            "gateway",
            server_host=LOOPBACK,
            server_port=0,
            data_dir="data",  # in the empty folder in which it is started
            embedder_target=kinds["embedder_worker"].target,
            reranker_target=kinds["reranker_worker"].target,
            generator_target=kinds["generator_worker"].target,
            **gateway,
        )
        yield Cluster(
            stack.enter_context(front), kinds["embedder_worker"], kinds["reranker_worker"]
        )


def calls(replica: Worker, method: str) -> float:
    """Calls of that method which the replica has ended since it started, whatever the outcome."""
    return scrape(replica.metrics_url).value("rag_rpcs_total", method=method)
