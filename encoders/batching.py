"""The batcher: what waits for a model, in which order it is computed, and what is refused.

It knows no model and no transport. Work-conserving and without a timer: the model runs as
many batches at once as it has streams, each in a thread, and one more is always prepared
in the stage, so that a thread goes from batch to batch without waiting for the event
loop. What is prepared still waits: it keeps its place in the queue, and is chosen anew
when something better came. Cost is padded tokens, not items. Interactive work goes first,
bulk keeps a minimum share of the model's time, and a bulk batch is sized by time because
nothing can preempt it. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic

from encoders.admission import (
    Demand,
    Speed,
    broken,
    draining,
    refusal,
)
from encoders.batch_metrics import BatchMetrics
from encoders.batches import Answer, Batch, Checked, Computation, Outcome, Probe
from encoders.examiner import Examiner
from encoders.lanes import Item, Job, Lane, LaneQueue, P, R
from encoders.limits import Limits
from encoders.schedule import Schedule
from encoders.stage import Stage
from encoders.streams import ModelThreads, Streams
from runtime.deadline import expired
from runtime.errors import Reason, ServiceError
from runtime.supervision import end_process

log = logging.getLogger(__name__)


class Batcher(Generic[P, R]):
    """Runs `run` on batches of what is submitted.

    run: payloads → one result each, in order; called by the threads of `streams`.
    padded: tokens of an item → length of its row.
    probe: run alone after failures in a row, and again and again while the model counts as
        broken; returns when it works.
    on_health: told False when it breaks, True when a probe succeeded.
    tokens_per_s: speed of one stream, padded, as measured beforehand; 0 when it was not.
    now_s: the clock deadlines are measured on; called by any thread.
    give_up: called when it will not work again in this process.
    """

    def __init__(
        self,
        run: Callable[[Sequence[P]], Sequence[R]],
        limits: Limits,
        metrics: BatchMetrics,
        *,
        probe: Callable[[], object],
        on_health: Callable[[bool], Awaitable[None]],
        padded: Callable[[int], int] = lambda tokens: tokens,
        tokens_per_s: float = 0.0,
        now_s: Callable[[], float] = time.monotonic,
        streams: Streams | None = None,
        give_up: Callable[[], None] = end_process,
    ) -> None:
        self._computation = Computation(run, probe, now_s)
        self._limits = limits
        self._metrics = metrics
        self._padded = padded
        self._now_s = now_s
        self._streams = streams or ModelThreads()
        self._speed = Speed(self._streams.count, tokens_per_s)
        self._schedule: Schedule[P, R] = Schedule(limits, self._speed, padded, self._streams.count)
        self._waiting = self._schedule.waiting
        self._stage: Stage[Batch[P, R] | Probe] = Stage()
        self._prepared: Batch[P, R] | None = None
        # Set while nothing runs.
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._preparing = False
        self._give_up = give_up
        # Of everything from now on: the batcher is closed, or broken for good.
        self._refusal: Callable[[], ServiceError] | None = None
        self._examiner = Examiner(
            limits,
            self._works,
            on_broken=self._schedule.fail_all,
            on_health=on_health,
            on_end=self._on_examined,
            give_up=give_up,
        )
        metrics.speed(self._speed.tokens_per_s)
        for lane, queue in self._waiting.lanes.items():
            metrics.watch(lane, partial(getattr, queue, "tokens"), partial(self._age_s, queue))

    def start(self) -> None:
        """From now on what is submitted is computed."""
        taken, done = partial(self._guarded, self._taken), partial(self._guarded, self._done)
        self._streams.start(self._stage, self._computation, taken, done, self._on_fault)

    async def aclose(self) -> None:
        """Answers everything with DRAINING, and waits for the batches that run."""
        self._refusal = draining
        self._stage.close()
        await self._examiner.aclose()
        self._schedule.fail_all(draining())
        await self._streams.join()

    async def submit(
        self,
        payloads: Sequence[P],
        tokens: Sequence[int],
        *,
        lane: Lane,
        remaining_s: float | None = None,
    ) -> Answer[R]:
        """One result per payload, in order; all of them, or an error.

        tokens: of each payload, not padded.
        remaining_s: what is left of the caller's time; None is without end.

        Raises what `admit` raises, DEADLINE_EXCEEDED and MODEL_FAILED. Cancelling it
        withdraws what has not been computed.
        """
        if not payloads:
            return Answer([], 0.0, 0.0)
        self.admit(tokens, lane=lane, remaining_s=remaining_s)
        now_s = self._now_s()
        deadline_s = None if remaining_s is None else now_s + remaining_s
        answer: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        job: Job[P, R] = Job(lane, now_s, deadline_s, answer, [None] * len(payloads), len(payloads))
        pairs = enumerate(zip(payloads, tokens, strict=True))
        self._schedule.add(
            job, [Item(job, index, payload, count) for index, (payload, count) in pairs]
        )
        self._prepare_soon()
        try:
            results = await answer
        except asyncio.CancelledError:
            self._metrics.shed("cancelled")
            self._waiting.withdraw(job)
            self._prepare_soon()
            raise
        return Answer(results, job.queue_s, job.model_s)

    def admit(self, tokens: Sequence[int], *, lane: Lane, remaining_s: float | None) -> None:
        """Whether a call of such rows may wait. It can be asked earlier than `submit` asks it,
        with guessed tokens: who is refused then need not be tokenised.

        Raises ServiceError QUEUE_FULL (with retry_after_s), DEADLINE_EXCEEDED (also for
        what is hopeless), UNAVAILABLE (the model is broken) or DRAINING.
        """
        if self._refusal is not None:
            raise self._refusal()
        if self._examiner.broken:
            self._metrics.shed("unhealthy")
            raise broken(self._limits.probe_interval_s)
        if remaining_s is not None and remaining_s <= 0:
            self._metrics.shed("expired")
            raise expired()
        load, demand = self._schedule.load(lane), Demand(sum(tokens), max(tokens))
        refused = refusal(
            self._limits, load, self._speed, demand, lane=lane, remaining_s=remaining_s
        )
        if refused is not None:
            cause, error = refused
            self._metrics.shed(cause)
            raise error

    # Preparing

    def _prepare_soon(self) -> None:
        """Once for all that came in this turn of the event loop."""
        if not self._preparing:
            self._preparing = True
            asyncio.get_running_loop().call_soon(self._guarded, self._prepare)

    def _prepare(self) -> None:
        """The batch that is best now lies in the stage, if anything waits."""
        self._preparing = False
        if self._refusal is not None:
            return
        for _ in range(self._waiting.drop_expired(self._now_s())):
            self._metrics.shed("expired")
        if self._prepared is not None:
            if not self._examiner.busy and self._schedule.stands(self._prepared):
                return
            self._take_back(self._prepared)
        if not self._examiner.busy and (batch := self._schedule.choose()) is not None:
            self._prepared = batch
            self._stage.put(batch)

    def _take_back(self, prepared: Batch[P, R]) -> None:
        self._prepared = None
        if self._stage.take_back() is None:
            self._runs(prepared)  # a thread was quicker; `_taken` comes later, to no effect

    # Running

    def _taken(self, work: Batch[P, R] | Probe) -> None:
        """A thread has what was prepared: the next one is due."""
        if isinstance(work, Batch) and work is self._prepared:
            self._prepared = None
            self._runs(work)
        self._prepare()

    def _runs(self, batch: Batch[P, R]) -> None:
        self._schedule.start(batch)
        self._quiet.clear()

    def _done(self, told: Outcome[P, R] | Checked) -> None:
        if isinstance(told, Outcome):
            self._ended(told)
        elif not told.probe.answer.done():
            told.probe.answer.set_result(told.works)
        self._prepare()

    def _ended(self, outcome: Outcome[P, R]) -> None:
        """Answers the items of a batch, or sees what to do with them when it failed."""
        batch = outcome.batch
        self._schedule.end(batch, outcome.duration_s)
        if self._schedule.quiet:
            self._quiet.set()
        if outcome.results is None:
            self._failed(batch, outcome.items)
        elif outcome.items:
            self._examiner.succeeded()
            self._measure(outcome)
            for item, result in zip(outcome.items, outcome.results, strict=True):
                item.job.computed(outcome.started_s, outcome.ended_s)
                self._waiting.answer(item, result)

    def _failed(self, batch: Batch[P, R], items: Sequence[Item[P, R]]) -> None:
        """Halves it until what is to blame stands alone; only its caller gets the error."""
        self._metrics.failed()
        if len(items) > 1:
            self._schedule.retry(batch, items)
            return
        if items[0].job.answer.done():
            return  # by another of its items, it may be: each caller counts once
        error = ServiceError(Reason.MODEL_FAILED, "The model failed on this input.")
        self._waiting.fail(items[0].job, error)
        self._examiner.failed()

    def _measure(self, outcome: Outcome[P, R]) -> None:
        batch, items = outcome.batch, outcome.items
        padded = len(items) * max(self._padded(item.tokens) for item in items)
        self._speed.observe(padded, outcome.duration_s, batch.supply)
        self._metrics.speed(self._speed.tokens_per_s)
        self._metrics.computed(
            batch.lane,
            items=len(items),
            tokens=sum(item.tokens for item in items),
            padded=padded,
            budget=batch.budget_tokens,
            duration_s=outcome.duration_s,
        )

    # Health

    async def _works(self) -> bool:
        await self._quiet.wait()
        probe = Probe(asyncio.get_running_loop().create_future())
        self._stage.put(probe)
        return await probe.answer

    def _on_examined(self, fault: BaseException | None) -> None:
        if fault is not None:
            self._on_fault(fault)
        self._prepare_soon()

    def _guarded(self, step: Callable[..., None], *told: Any) -> None:
        try:
            step(*told)
        except Exception as fault:
            self._on_fault(fault)

    def _on_fault(self, fault: BaseException) -> None:
        """Of the batcher itself, or of a stream: nobody may wait for ever, nor come in vain."""
        log.critical("the batcher itself failed", exc_info=fault)
        if self._refusal is None:
            self._refusal = partial(broken, self._limits.probe_interval_s)
            self._schedule.fail_all(self._refusal())
            self._give_up()

    def _age_s(self, queue: LaneQueue[P, R]) -> float:
        oldest_s = queue.oldest_s
        return 0.0 if oldest_s is None else max(0.0, self._now_s() - oldest_s)
