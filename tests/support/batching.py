"""A model, a clock and streams that tests control, for the batcher."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from encoders.batch_metrics import BatchMetrics
from encoders.batching import Batcher
from encoders.limits import Limits
from encoders.stage import Stage


@dataclass
class Text:
    """What the fake model is given: it answers with `name`."""

    name: object
    tokens: int = 1
    poisoned: bool = False


@dataclass
class FakeModel:
    """Takes `seconds_per_batch` of the fake clock, and `seconds_per_token` a padded token."""

    seconds_per_token: float = 0.001
    now_s: float = 0.0
    broken: bool = False
    batches: list[list[Text]] = field(default_factory=list)
    probes: int = 0
    # Called after each batch was recorded, before it is answered.
    during: Callable[[list[Text]], None] | None = None
    seconds_per_batch: float = 0.0
    # What the batch that is being computed has taken so far, by its own stream's clock.
    ahead_s: float = 0.0

    def clock(self) -> float:
        return self.now_s + self.ahead_s

    def run(self, batch: Sequence[Text]) -> list[object]:
        texts = list(batch)
        self.batches.append(texts)
        padded = len(texts) * max(text.tokens for text in texts)
        self.ahead_s += self.seconds_per_batch + self.seconds_per_token * padded
        if self.during is not None:
            self.during(texts)
        if self.broken or any(text.poisoned for text in texts):
            raise RuntimeError("the fake model fails, as the test asked")
        return [text.name for text in texts]

    def probe(self) -> None:
        self.probes += 1
        if self.broken:
            raise RuntimeError("the fake model is still broken")


class FakeStreams:
    """Streams in the time of a fake clock, which goes from the end of one batch to the next.

    Between two ends the event loop turns until nothing happens any more, as it would in
    the milliseconds of a real batch; a stream that ends one takes the next at once.
    """

    # Turns of the event loop between two moments: more than any chain of callbacks needs.
    TURNS = 12

    def __init__(self, model: FakeModel, count: int = 1) -> None:
        self.count = count
        self.running = 0
        self.most_at_once = 0
        self._model = model
        self._moments: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._driver: asyncio.Task[None] | None = None

    def at(self, when_s: float, happens: Callable[[], None]) -> None:
        """Something that happens at that time of the fake clock, between two ends."""
        heapq.heappush(self._moments, (when_s, next(self._numbers), happens))

    def start(
        self,
        stage: Stage[Any],
        compute: Callable[[Any], Any],
        taken: Callable[[Any], None],
        done: Callable[[Any], None],
        died: Callable[[BaseException], None],
    ) -> None:
        loop = asyncio.get_running_loop()

        def take() -> None:
            while self.running < self.count and (thing := stage.take_back()) is not None:
                loop.call_soon(taken, thing)
                outcome = compute(thing)
                self.at(self._model.clock(), partial(end, outcome))
                self._model.ahead_s = 0.0
                self.running += 1
                self.most_at_once = max(self.most_at_once, self.running)

        def end(outcome: Any) -> None:
            self.running -= 1
            loop.call_soon(done, outcome)

        async def drive() -> None:
            while True:
                for _ in range(self.TURNS):
                    take()
                    await asyncio.sleep(0)
                if self._moments:
                    when_s, _, happens = heapq.heappop(self._moments)
                    self._model.now_s = max(self._model.now_s, when_s)
                    happens()

        self._driver = asyncio.create_task(drive())

    async def join(self) -> None:
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)


@dataclass
class Bench:
    """A batcher over a fake model."""

    model: FakeModel
    streams: FakeStreams
    batcher: Batcher[Text, object]
    registry: CollectorRegistry
    health: list[bool]
    # One for each time it was.
    given_up: list[None]

    def ask(self, texts: Sequence[Text], **options: Any) -> asyncio.Task[list[object]]:
        """Submits without waiting."""
        tokens = [text.tokens for text in texts]
        options.setdefault("lane", "interactive")

        async def results() -> list[object]:
            return (await self.batcher.submit(texts, tokens, **options)).results

        return asyncio.create_task(results())

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value now."""
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, f"no series {name}{labels}"
        return value


def bench(
    limits: Limits | None = None,
    model: FakeModel | None = None,
    *,
    streams: int = 1,
    tokens_per_s: float = 0.0,
) -> Bench:
    """Not started: what is submitted waits until `bench.batcher.start()`."""
    model = model or FakeModel()
    fakes = FakeStreams(model, streams)
    registry = CollectorRegistry()
    health: list[bool] = []
    given_up: list[None] = []

    async def on_health(serving: bool) -> None:
        health.append(serving)

    batcher: Batcher[Text, object] = Batcher(
        model.run,
        limits or Limits(),
        BatchMetrics(registry),
        probe=model.probe,
        on_health=on_health,
        now_s=model.clock,
        tokens_per_s=tokens_per_s,
        streams=fakes,
        give_up=partial(given_up.append, None),
    )
    return Bench(model, fakes, batcher, registry, health, given_up)
