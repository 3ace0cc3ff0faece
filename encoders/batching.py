"""The batcher: what waits for a model, in which order it is computed, and what is refused.

It knows no model and no transport. Work-conserving and without a timer: when the
model is free, it takes what fits. Cost is padded tokens, not items. Interactive
work goes first, bulk keeps a minimum share of the model's time, and a bulk batch is
sized by time because nothing can preempt it. All methods belong to one event loop;
the model runs in one thread beside it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Generic

from encoders.admission import Speed, draining, excess_tokens, queue_full, wait_s
from encoders.batch_metrics import BatchMetrics
from encoders.lanes import Item, Job, Lane, LaneQueue, P, R, choose_batch
from encoders.limits import Limits
from encoders.waiting import Waiting
from runtime.deadline import expired
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)


class Batcher(Generic[P, R]):
    """Runs `run` on batches of what is submitted.

    run: payloads → one result each, in order; called in one thread.
    padded: tokens of an item → length of its row.
    probe: run after failures in a row, and instead of batches while the model counts as
        broken; returns when it works.
    on_health: told False when it breaks, True when a probe succeeded.
    now_s: the clock deadlines are measured on.
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
        now_s: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        self._run = run
        self._limits = limits
        self._metrics = metrics
        self._probe = probe
        self._on_health = on_health
        self._padded = padded
        self._now_s = now_s
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: Waiting[P, R] = Waiting()
        self._work = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._closed = False
        self._broken = False
        self._running_tokens = 0
        self._failures = 0
        self._bulk_credit_s = 0.0
        self._speed = Speed()
        for lane, queue in self._waiting.lanes.items():
            metrics.watch(lane, partial(getattr, queue, "tokens"), partial(self._age_s, queue))

    def start(self) -> None:
        """From now on what is submitted is computed."""
        self._serving = asyncio.create_task(self._serve(), name="batcher")
        self._serving.add_done_callback(self._on_end)

    async def aclose(self) -> None:
        """Answers everything that waits with DRAINING, and waits for the batch that runs."""
        self._closed = True
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        self._waiting.fail_all(draining())
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _on_end(self, serving: asyncio.Task[None]) -> None:
        """A fault of the batcher itself must not leave callers waiting."""
        if not serving.cancelled() and (fault := serving.exception()) is not None:
            log.critical("the batcher itself failed", exc_info=fault)
            self._closed = True
            self._waiting.fail_all(draining())

    async def submit(
        self,
        payloads: Sequence[P],
        tokens: Sequence[int],
        *,
        lane: Lane,
        remaining_s: float | None = None,
    ) -> list[R]:
        """One result per payload, in order; all of them, or an error.

        tokens: of each payload, not padded.
        remaining_s: what is left of the caller's time; None is without end.

        Raises ServiceError QUEUE_FULL (with retry_after_s), DEADLINE_EXCEEDED,
        MODEL_FAILED, UNAVAILABLE (the model is broken) or DRAINING. Cancelling it
        withdraws what has not been computed.
        """
        if not payloads:
            return []
        self._admit(sum(tokens), lane, remaining_s)
        now_s = self._now_s()
        deadline_s = None if remaining_s is None else now_s + remaining_s
        answer: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        job: Job[P, R] = Job(lane, deadline_s, answer, [None] * len(payloads), len(payloads))
        pairs = enumerate(zip(payloads, tokens, strict=True))
        items = [Item(job, index, payload, count, now_s) for index, (payload, count) in pairs]
        self._waiting.add(job, items)
        self._work.set()
        try:
            return await answer
        except asyncio.CancelledError:
            self._metrics.shed("cancelled")
            raise
        finally:
            self._waiting.withdraw(job)

    # Admission

    def _admit(self, tokens: int, lane: Lane, remaining_s: float | None) -> None:
        if self._closed:
            raise draining()
        if self._broken:
            self._metrics.shed("unhealthy")
            raise self._broken_error()
        if remaining_s is not None and remaining_s <= 0:
            self._metrics.shed("expired")
            raise expired()
        load = self._waiting.load(lane, self._running_tokens)
        if load.idle:
            return  # it takes anything: what it cannot do in time, only trying will tell
        excess = excess_tokens(self._limits, load, lane, tokens)
        if excess:
            self._metrics.shed("queue_full")
            raise queue_full(self._speed.seconds_for(excess))
        if remaining_s is None:
            return
        needed_s = wait_s(self._limits, load, self._speed, lane, tokens)
        if needed_s > remaining_s:
            self._metrics.shed("too_late")
            raise queue_full(needed_s - remaining_s)

    def _broken_error(self) -> ServiceError:
        return ServiceError(
            Reason.UNAVAILABLE, "The model does not work.", self._limits.probe_interval_s
        )

    # Serving

    async def _serve(self) -> None:
        while True:
            if self._failures >= self._limits.max_failures:
                await self._examine()
            chosen = self._next_batch()
            if chosen is None:
                self._work.clear()
                await self._work.wait()
                continue
            lane, batch, budget = chosen
            self._running_tokens = sum(item.tokens for item in batch)
            started_s = self._now_s()
            try:
                succeeded = await self._compute(lane, batch, budget)
            except BaseException:  # closing; what was taken from the queue is answered too
                for item in batch:
                    self._waiting.fail(item.job, draining())
                raise
            self._running_tokens = 0
            self._settle_credit(lane, self._now_s() - started_s)
            if succeeded is not None:
                self._failures = 0 if succeeded else self._failures + 1

    def _next_batch(self) -> tuple[Lane, list[Item[P, R]], int] | None:
        """The lane whose turn it is, items taken from its queue, and the budget they had."""
        self._drop_expired()
        interactive, bulk = self._waiting.lanes["interactive"], self._waiting.lanes["bulk"]
        if not interactive and not bulk:
            return None
        due = self._bulk_credit_s >= self._limits.bulk_quantum_s
        lane: Lane = "bulk" if bulk and (due or not interactive) else "interactive"
        budget = self._limits.batch_tokens
        if lane == "bulk":
            budget = min(budget, self._speed.tokens_in(self._limits.bulk_quantum_s, budget))
        queue = self._waiting.lanes[lane]
        batch = choose_batch(
            queue.window(self._limits.window_items),
            budget_tokens=budget,
            most_items=self._limits.batch_items,
            padded=self._padded,
        )
        for item in batch:
            queue.remove(item)
        return lane, batch, budget

    def _settle_credit(self, lane: Lane, duration_s: float) -> None:
        """Bulk that waits earns its share of the time that interactive work takes."""
        if lane == "bulk":
            self._bulk_credit_s = max(self._bulk_credit_s - duration_s, -duration_s)
            if not self._waiting.lanes["interactive"]:
                self._bulk_credit_s = 0.0
        elif self._waiting.lanes["bulk"]:
            share = self._limits.bulk_share
            self._bulk_credit_s += duration_s * share / (1 - share)
        else:
            self._bulk_credit_s = 0.0

    async def _compute(self, lane: Lane, batch: list[Item[P, R]], budget: int) -> bool | None:
        """Answers the batch's items: whether any part of it could be computed.

        None when nobody waited for it any more, which says nothing of the model. A batch that
        is halved until the item that is to blame stands alone; only its caller gets
        the error.
        """
        self._drop_expired()
        batch = [item for item in batch if not item.job.answer.done()]
        if not batch:
            return None
        results = await self._try(lane, batch, budget)
        if results is not None:
            for item, result in zip(batch, results, strict=True):
                self._waiting.answer(item, result)
            return True
        if len(batch) == 1:
            error = ServiceError(Reason.MODEL_FAILED, "The model failed on this input.")
            self._waiting.fail(batch[0].job, error)
            return False
        middle = len(batch) // 2
        first = await self._compute(lane, batch[:middle], budget)
        second = await self._compute(lane, batch[middle:], budget)
        return bool(first or second)

    async def _try(self, lane: Lane, batch: list[Item[P, R]], budget: int) -> Sequence[R] | None:
        """The results of one run of the model, or None when it failed."""
        payloads = [item.payload for item in batch]
        loop = asyncio.get_running_loop()
        started_s = self._now_s()
        try:
            results = await loop.run_in_executor(self._executor, self._run, payloads)
            if len(results) != len(payloads):
                raise RuntimeError(f"{len(results)} results for {len(payloads)} payloads")
        except Exception:  # whatever the model throws, its waiters get an answer
            log.exception("the model failed on a batch of %d", len(batch))
            self._metrics.failed()
            return None
        duration_s = self._now_s() - started_s
        padded = len(batch) * max(self._padded(item.tokens) for item in batch)
        self._speed.observe(padded, duration_s)
        self._metrics.speed(self._speed.tokens_per_s)
        self._metrics.computed(
            lane,
            items=len(batch),
            tokens=sum(item.tokens for item in batch),
            padded=padded,
            budget=budget,
            duration_s=duration_s,
        )
        return results

    async def _examine(self) -> None:
        """After failures in a row: were the inputs to blame, or is the model broken?

        A broken model is out of service until a probe succeeds.
        """
        log.error("the model failed %d batches in a row", self._failures)
        if not await self._works():
            self._broken = True
            self._waiting.fail_all(self._broken_error())
            await self._on_health(False)
            while True:
                await asyncio.sleep(self._limits.probe_interval_s)
                if await self._works():
                    break
            self._broken = False
            await self._on_health(True)
        self._failures = 0
        log.info("the model works")

    async def _works(self) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._probe)
        except Exception:  # still broken, in whatever way
            log.warning("the model fails its check", exc_info=True)
            return False
        return True

    def _drop_expired(self) -> None:
        for _ in range(self._waiting.drop_expired(self._now_s())):
            self._metrics.shed("expired")

    def _age_s(self, queue: LaneQueue[P, R]) -> float:
        oldest_s = queue.oldest_s
        return 0.0 if oldest_s is None else max(0.0, self._now_s() - oldest_s)
