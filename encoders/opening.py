"""Opening a model behind its queue, the same for every worker, and ending when it cannot serve."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

from encoders.batch_metrics import BatchMetrics
from encoders.batching import Batcher
from encoders.embedding import EmbeddingModel
from encoders.encoder import EncoderModel, Floats
from encoders.lanes import P, R
from encoders.limits import Limits
from encoders.location import ModelUnusableError
from encoders.reading import PassageReader, Read, Reading
from encoders.self_check import SelfCheckFailedError, check_embedding, check_reading
from encoders.streams import ModelThreads
from encoders.tokenizing import Tokens
from runtime.settings import EXIT_BAD_SETTINGS

log = logging.getLogger(__name__)

M = TypeVar("M", bound=EncoderModel)

EmbeddingBatcher = Batcher[Tokens, Floats]
ReadingBatcher = Batcher[Reading, Read]


class UnusableSettingError(Exception):
    """The model that a setting names cannot serve; the message begins with the setting."""


async def open_batched(
    load: Callable[[Event], M],
    run: Callable[[M, Sequence[P]], Sequence[R]],
    check: Callable[[M], None],
    limits: Callable[[int], Limits],
    *,
    metrics: BatchMetrics,
    on_health: Callable[[bool], Awaitable[None]],
) -> tuple[M, Batcher[P, R]]:
    """Loads, warms and checks a model in the threads that will run it; its batcher has started.

    load: is told by the event to stop: cancelling this ends a load that takes long.
    run: one batch, as the batcher's `run`.
    check: raises when the model computes something else than it should.
    limits: the batcher's bounds, by the batch that is fastest here (padded tokens).

    Raises what `load` and `check` raise.
    """
    threads = ModelThreads()
    stopped = Event()
    try:
        model = await threads.load(lambda: load(stopped))
        speeds = await threads.warm(model.streams, model.warm_up)
        await threads.load(lambda: check(model))
    except BaseException:
        stopped.set()
        threads.abandon()
        raise
    per_stream = sum(speeds) / len(speeds)
    log.info("model warmed", extra={"tokens_per_s": round(per_stream * model.streams)})
    batcher: Batcher[P, R] = Batcher(
        lambda batch: run(model, batch),
        limits(model.batch_tokens),
        metrics,
        probe=lambda: check(model),
        on_health=on_health,
        padded=model.padded,
        tokens_per_s=per_stream,
        streams=threads,
    )
    batcher.start()
    return model, batcher


async def open_embedding(
    load: Callable[[Event], EmbeddingModel],
    limits: Callable[[int], Limits],
    *,
    metrics: BatchMetrics,
    on_health: Callable[[bool], Awaitable[None]],
) -> tuple[EmbeddingModel, EmbeddingBatcher]:
    """As `open_batched`, for texts to vectors."""
    return await open_batched(
        load,
        lambda model, batch: list(model.embed(batch)),
        check_embedding,
        limits,
        metrics=metrics,
        on_health=on_health,
    )


async def open_reading(
    load: Callable[[Event], PassageReader],
    limits: Callable[[int], Limits],
    *,
    metrics: BatchMetrics,
    on_health: Callable[[bool], Awaitable[None]],
) -> tuple[PassageReader, ReadingBatcher]:
    """As `open_batched`, for questions with passages to where the answers stand."""
    return await open_batched(
        load,
        lambda model, batch: model.read(batch),
        check_reading,
        limits,
        metrics=metrics,
        on_health=on_health,
    )


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Raises UnusableSettingError, which names the setting, when its model cannot serve."""
    try:
        yield
    # The last: what the self-check computed is no number.
    except (ModelUnusableError, SelfCheckFailedError, FloatingPointError) as error:
        raise UnusableSettingError(f"{setting}: {error}") from error


@contextmanager
def exit_if_unusable(setting: str) -> Iterator[None]:
    """Exits 2 with one line that names the setting when its model cannot serve."""
    try:
        with naming(setting):
            yield
    except UnusableSettingError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)
