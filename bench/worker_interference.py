"""One embedder that answers single questions, idle and while a bulk load saturates it.

Three processes: the worker, a client that asks, and a client that loads. What is compared takes
turns: one round is questions alone, the load alone, and both. A bare grpc.aio server that computes
as long as the model does is asked the same: what gRPC for Python leaves to gain.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from bench import client, floor, prepared, worker
from bench.calls import Call, Load
from bench.options import Options
from bench.passages import passages
from bench.schedule import Closed, Even
from bench.scrape import scrape

ROUNDS: Final = 3
SECONDS: Final = 7.0
BARE_SECONDS: Final = 4.0
CLOSED_SECONDS: Final = 3.0
# Some 5 % of what the worker can answer on two cores: a load that a worker is meant to carry
# beside its bulk work, and calls that hardly meet each other.
QUESTIONS_PER_S: Final = 20.0
QUESTION_TIMEOUT_S: Final = 5.0
# As a large POST /index sends them: EMBEDDING_BATCH_SIZE texts a call, several in flight.
BULK_TEXTS: Final = 32
BULK_CALLS: Final = 4
BULK_TIMEOUT_S: Final = 120.0
# The load runs so long before and after what is counted, so that nothing of it is alone.
LEAD_S: Final = 1.0
WARM_UP_S: Final = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Round:
    """closed: one call after another; idle, loaded: QUESTIONS_PER_S, without and with the load.

    bare_closed, bare_idle: the same of the bare server.
    alone_per_s, shared_per_s: bulk texts a second, without and with questions.
    """

    closed: tuple[Call, ...]
    idle: tuple[Call, ...]
    loaded: tuple[Call, ...]
    bare_closed: tuple[Call, ...]
    bare_idle: tuple[Call, ...]
    alone_per_s: float
    shared_per_s: float


def measure(options: Options) -> list[Round]:
    """The rounds, on one worker that was warmed with both kinds of call."""
    asked = prepared.query_calls(prepared.questions(options.data, 1000))
    texts = prepared.bulk_calls(passages(options.data, 3000), BULK_TEXTS)
    seconds = options.seconds(SECONDS)
    question = Load(
        prepared.EMBED_TEXTS, asked, Closed(1), options.seconds(CLOSED_SECONDS), QUESTION_TIMEOUT_S
    )
    bulk = Load(prepared.EMBED_TEXTS, texts, Closed(BULK_CALLS), WARM_UP_S, BULK_TIMEOUT_S)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(worker.running("embedder_worker"))
        asking = stack.enter_context(client.running(running.target, prepared.EMBEDDER))
        # Bulk competes for the processors as any process does.
        loading = stack.enter_context(client.running(running.target, prepared.EMBEDDER, priority=0))
        beside = stack.enter_context(ThreadPoolExecutor(1))

        def under_load(during: Callable[[], Result]) -> tuple[Result, float]:
            """What `during` gives while bulk runs, and the texts of bulk a second meanwhile."""
            load = replace(bulk, duration_s=seconds + 2 * LEAD_S)
            loaded = beside.submit(loading, load)
            time.sleep(LEAD_S)
            before, started_s = _bulk_texts(running), time.perf_counter()
            result = during()
            rate = (_bulk_texts(running) - before) / (time.perf_counter() - started_s)
            loaded.result()
            return result, rate

        def rounds() -> Iterator[Round]:
            for turn in range(options.rounds(ROUNDS)):
                spread = replace(question, schedule=Even(QUESTIONS_PER_S, turn), duration_s=seconds)
                closed, idle = asking(question).calls, asking(spread).calls
                bare_closed = bare(replace(question, method=floor.METHOD)).calls
                bare_idle = bare(
                    replace(spread, method=floor.METHOD, duration_s=options.seconds(BARE_SECONDS))
                ).calls
                _, alone_per_s = under_load(partial(time.sleep, seconds))
                outcome, shared_per_s = under_load(partial(asking, spread))
                yield Round(
                    closed, idle, outcome.calls, bare_closed, bare_idle, alone_per_s, shared_per_s
                )

        warm = asking(replace(question, duration_s=WARM_UP_S))
        loading(bulk)
        computes_as_long = floor.computing(_model_ms(warm.calls))
        bare = stack.enter_context(
            client.running(stack.enter_context(computes_as_long), floor.SERVICE)
        )
        bare(replace(question, method=floor.METHOD, duration_s=WARM_UP_S))
        return list(rounds())


def _model_ms(calls: Sequence[Call]) -> float:
    """Of the median answer. Raises statistics.StatisticsError when no answer says it."""
    return statistics.median(call.model_ms for call in calls if call.model_ms is not None)


def _bulk_texts(running: worker.Worker) -> float:
    """Texts of the bulk lane computed since the worker started."""
    return scrape(running.metrics_url).value("rag_batch_items_total", lane="bulk")
