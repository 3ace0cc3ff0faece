"""The composition root of the generator worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from threading import Event
from typing import Final

from prometheus_client import CollectorRegistry

from encoders.batch_metrics import BatchMetrics
from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.opening import (
    ReadingBatcher,
    exit_if_unusable,
    naming,
    open_embedding,
    open_reading,
)
from encoders.reading import PassageReader, load_passage_reader
from generator_worker.admission import Admission
from generator_worker.encoder import EmbeddingEncoder
from generator_worker.engines.base import AnswerRequest, Completion, Engine
from generator_worker.engines.extractive import ExtractiveEngine
from generator_worker.engines.fallback import FallbackEngine
from generator_worker.metrics import GeneratorMetrics
from generator_worker.reader import QueuedReader
from generator_worker.service import METHODS, SERVICE_NAME, GeneratorService
from generator_worker.settings import NO_READER, GeneratorSettings
from runtime.health import Health
from runtime.metrics import new_registry
from runtime.server import Service, serve_worker

# The language model leaves the extractive engine this much of the budget: it needs about 0.1 s
# for five passages, more when the machine is busy.
FALLBACK_RESERVE_S: Final = 1.0


class LateEngine:
    """An engine that is built by `start`: the port is bound before anything heavy is imported."""

    def __init__(self, build: Callable[[], Engine]) -> None:
        self._build = build
        self._engine: Engine | None = None

    async def start(self) -> str:
        """Builds and starts the engine, off the event loop: importing DSPy takes half a second."""
        self._engine = await asyncio.to_thread(self._build)
        return await self._engine.start()

    def answer(self, request: AnswerRequest) -> AsyncGenerator[str | Completion, None]:
        """As `Engine.answer`; only after `start`."""
        if self._engine is None:
            raise RuntimeError("start() comes first")
        return self._engine.answer(request)

    async def close(self) -> None:
        """Closes the engine, if it was built."""
        if self._engine is not None:
            await self._engine.close()


class ModelsHealth:
    """Ready while every model is; each tells for itself."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._failing: set[str] = set()

    def of(self, model: str) -> Callable[[bool], Awaitable[None]]:
        """What the batcher of a model tells whether it is well."""

        async def tell(healthy: bool) -> None:
            if healthy:
                self._failing.discard(model)
            else:
                self._failing.add(model)
            await self._health.set_serving(not self._failing)

        return tell


async def _ignore(healthy: bool) -> None:
    """A worker with a language model answers without its fallback too."""


@dataclass(frozen=True, slots=True)
class Models:
    """What sentences are chosen by; nothing is loaded before the engine starts them."""

    encoder: EmbeddingEncoder
    reader: QueuedReader | None


def build_service(
    settings: GeneratorSettings, registry: CollectorRegistry, models: Models
) -> Service:
    """The service as `serve_worker` takes it; nothing is loaded yet."""
    engines = ("extractive",) if settings.lm_model is None else ("dspy", "extractive")
    metrics = GeneratorMetrics(registry, engines)
    engine = LateEngine(lambda: build_engine(settings, models, metrics))
    servicer = GeneratorService(engine, metrics, settings.answer_timeout_seconds)
    return Service(SERVICE_NAME, METHODS, servicer.add_to, engine.start, engine.close)


def build_engine(settings: GeneratorSettings, models: Models, metrics: GeneratorMetrics) -> Engine:
    """The language model with the extractive engine behind it, or the latter alone."""
    with_reader = models.reader is not None
    extractive = ExtractiveEngine(
        models.encoder,
        models.reader,
        why="LM_MODEL is not set" if settings.lm_model is None else "fallback",
        threshold=settings.reader_threshold if with_reader else settings.answer_threshold,
        most_sentences=settings.answer_sentences,
        most_sentences_compared=settings.answer_sentences_read,
    )
    if settings.lm_model is None:
        return extractive
    door = Admission(settings.lm_concurrency, settings.lm_waiting)
    metrics.observe_waiting(lambda: door.waiting)
    language_model = _build_language_model(settings, settings.lm_model, door)
    return FallbackEngine(language_model, extractive, metrics.count_fallback)


def _build_language_model(settings: GeneratorSettings, name: str, door: Admission) -> Engine:
    # DSPy otherwise fetches a table of prices from the network at first use.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from generator_worker.engines.language_model import LanguageModel, LanguageModelEngine

    model = LanguageModel(
        name=name,
        api_base=settings.lm_api_base,
        api_key=_api_key(settings, name),
        temperature=settings.lm_temperature,
        context_tokens=settings.lm_context_tokens,
        max_tokens=settings.lm_max_tokens,
        first_token_s=settings.lm_first_token_timeout_seconds,
        next_token_s=settings.lm_next_token_timeout_seconds,
        reserve_s=FALLBACK_RESERVE_S,
    )
    return LanguageModelEngine(model, door)


def _api_key(settings: GeneratorSettings, name: str) -> str | None:
    """OpenAI's key goes to OpenAI and to the server that was named with it, to no other."""
    if not name.startswith("openai/") and settings.lm_api_base is None:
        return None
    if settings.openai_api_key is None:
        # Local servers ask for none, but the client insists on one.
        return "none"
    return settings.openai_api_key.get_secret_value()


def open_models(
    settings: GeneratorSettings,
    registry: CollectorRegistry,
    health: Health,
    load: Callable[[Event], EmbeddingModel],
    load_reader: Callable[[Event], PassageReader],
) -> Models:
    """The models of the settings, loaded when they are started."""
    healths = ModelsHealth(health)
    on_health = healths.of if settings.lm_model is None else lambda _: _ignore
    metrics = BatchMetrics(registry)
    encoder = EmbeddingEncoder(
        lambda: open_embedding(
            load, settings.limits, metrics=metrics, on_health=on_health("embedding")
        )
    )
    if settings.reader_model == NO_READER:
        return Models(encoder, None)
    reader_metrics = BatchMetrics(registry, "rag_reader")

    async def open_reader() -> tuple[PassageReader, ReadingBatcher]:
        with naming("READER_MODEL"):
            return await open_reading(
                load_reader, settings.limits, metrics=reader_metrics, on_health=on_health("reader")
            )

    return Models(encoder, QueuedReader(open_reader))


async def serve(settings: GeneratorSettings) -> None:
    """Runs the worker until it is told to stop; exits 2 when a model of its own cannot serve."""
    registry = new_registry()
    health = Health(SERVICE_NAME)

    def load(stopped: Event) -> EmbeddingModel:
        return load_embedding_model(settings.embedding_model, settings.embedding_runtime(stopped))

    def load_reader(stopped: Event) -> PassageReader:
        return load_passage_reader(settings.reader_model, settings.embedding_runtime(stopped))

    models = open_models(settings, registry, health, load, load_reader)
    service = build_service(settings, registry, models)
    with exit_if_unusable("EMBEDDING_MODEL"):
        await serve_worker(settings, service, health, registry)
