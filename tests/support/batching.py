"""A model and a clock that tests control, for the batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from encoders.batch_metrics import BatchMetrics
from encoders.batching import Batcher
from encoders.limits import Limits


@dataclass
class Text:
    """What the fake model is given: it answers with `name`."""

    name: object
    tokens: int = 1
    poisoned: bool = False


@dataclass
class FakeModel:
    """Takes `seconds_per_token` of the fake clock for each padded token."""

    seconds_per_token: float = 0.001
    now_s: float = 0.0
    broken: bool = False
    batches: list[list[Text]] = field(default_factory=list)
    # Called after each batch was recorded, before it is answered.
    during: Callable[[list[Text]], None] | None = None

    def clock(self) -> float:
        return self.now_s

    def run(self, batch: Sequence[Text]) -> list[object]:
        texts = list(batch)
        self.batches.append(texts)
        self.now_s += self.seconds_per_token * len(texts) * max(text.tokens for text in texts)
        if self.during is not None:
            self.during(texts)
        if self.broken or any(text.poisoned for text in texts):
            raise RuntimeError("the fake model fails, as the test asked")
        return [text.name for text in texts]

    def probe(self) -> None:
        if self.broken:
            raise RuntimeError("the fake model is still broken")


class Inline(Executor):
    """Runs what it is given at once, in the caller's thread: each step of a test is exact."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class Bench:
    """A batcher over a fake model."""

    model: FakeModel
    batcher: Batcher[Text, object]
    registry: CollectorRegistry
    health: list[bool]

    def ask(self, texts: Sequence[Text], **options: Any) -> asyncio.Task[list[object]]:
        """Submits without waiting."""
        tokens = [text.tokens for text in texts]
        options.setdefault("lane", "interactive")
        return asyncio.create_task(self.batcher.submit(texts, tokens, **options))

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value now."""
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, f"no series {name}{labels}"
        return value


def bench(limits: Limits | None = None, model: FakeModel | None = None) -> Bench:
    """Not started: what is submitted waits until `bench.batcher.start()`."""
    model = model or FakeModel()
    registry = CollectorRegistry()
    health: list[bool] = []

    async def on_health(serving: bool) -> None:
        health.append(serving)

    batcher: Batcher[Text, object] = Batcher(
        model.run,
        limits or Limits(),
        BatchMetrics(registry),
        probe=model.probe,
        on_health=on_health,
        now_s=model.clock,
        executor=Inline(),
    )
    return Bench(model, batcher, registry, health)
