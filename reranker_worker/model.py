"""The scoring model behind its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Self

from encoders.batch_metrics import BatchMetrics
from encoders.batching import Batcher
from encoders.identity import ModelIdentity
from encoders.opening import open_batched
from encoders.requests import too_long
from encoders.scoring import Pair, PairScorer, load_pair_scorer
from encoders.self_check import check_scoring
from reranker_worker.settings import RerankerSettings


@dataclass(frozen=True, slots=True)
class Scored:
    """scores: in 0..1, one a passage; truncated: positions of passages that were cut.

    queue_s, model_s: as in `Answer`.
    """

    scores: list[float]
    truncated: list[int]
    tokens: int
    queue_s: float
    model_s: float


class Reranker:
    """Tokenises off the event loop and scores through the batcher."""

    def __init__(self, scorer: PairScorer, batcher: Batcher[Pair, float]) -> None:
        self._scorer = scorer
        self._batcher = batcher
        # Two, so that a call of a thousand passages does not hold up one of thirty.
        self._tokenizer = ThreadPoolExecutor(2, thread_name_prefix="tokenizer")

    @classmethod
    async def open(
        cls,
        settings: RerankerSettings,
        metrics: BatchMetrics,
        on_health: Callable[[bool], Awaitable[None]],
    ) -> Self:
        """Loads, warms and checks the model in the threads that will run it."""

        def load(stopped: Event) -> PairScorer:
            runtime = settings.runtime(
                settings.reranker_backend, settings.reranker_precision, stopped
            )
            return load_pair_scorer(settings.reranker_model, runtime)

        def score(scorer: PairScorer, batch: Sequence[Pair]) -> Sequence[float]:
            return scorer.score(batch)

        opened = open_batched(
            load, score, check_scoring, settings.limits, metrics=metrics, on_health=on_health
        )
        return cls(*await opened)

    @property
    def identity(self) -> ModelIdentity:
        """Of the loaded model."""
        return self._scorer.identity

    @property
    def engine(self) -> str:
        """How scores are made: "cross_encoder" or "late_interaction"."""
        return self._scorer.engine

    @property
    def description(self) -> str:
        """Such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads, late interaction"."""
        return self._scorer.description

    async def score(
        self,
        query: str,
        passages: Sequence[str],
        *,
        truncate: bool,
        remaining_s: Callable[[], float | None],
    ) -> Scored:
        """One score per passage, in order.

        remaining_s: asked after tokenising, which takes time too.

        Raises ServiceError TEXT_TOO_LONG when `truncate` is False and a passage must
        be cut, and what `Batcher.submit` raises.
        """
        # Who cannot be served is told before anything is done for them.
        guess = self._scorer.guessed_tokens(passages)
        self._batcher.admit(guess, lane="interactive", remaining_s=remaining_s())
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(
            self._tokenizer, self._scorer.prepare, query, passages
        )
        if prepared.truncated and not truncate:
            passage = f"passages[{prepared.truncated[0]}]"
            field = "query" if prepared.query_truncated else passage
            raise too_long(field, self.identity.max_tokens)
        answer = await self._batcher.submit(
            prepared.pairs,
            [len(pair.tokens) for pair in prepared.pairs],
            lane="interactive",
            remaining_s=remaining_s(),
        )
        return Scored(
            answer.results, prepared.truncated, prepared.tokens, answer.queue_s, answer.model_s
        )

    async def aclose(self) -> None:
        """Answers what waits and releases the model."""
        await self._batcher.aclose()
        self._tokenizer.shutdown(wait=False, cancel_futures=True)
        self._scorer.close()
