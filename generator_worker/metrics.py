"""What the generator counts, all of it there from the first scrape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from generator_worker.engines.base import Completion

# From extractive answers (tens of milliseconds) to long ones of a language model.
BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GeneratorMetrics:
    """Answers, fallbacks, tokens and times."""

    def __init__(self, registry: CollectorRegistry, engines: tuple[str, ...]) -> None:
        self._answers = Counter(
            "rag_generator_answers_total",
            "Answers given; answered is false for the no-answer sentence.",
            ["engine", "answered"],
            registry=registry,
        )
        self._fallbacks = Counter(
            "rag_generator_fallbacks_total",
            "Times the language model failed before its first token.",
            registry=registry,
        )
        self._tokens = Counter(
            "rag_generator_tokens_total",
            "Tokens of the language model, as its server counts them.",
            ["kind"],
            registry=registry,
        )
        self._duration = Histogram(
            "rag_generator_answer_duration_seconds",
            "Time to the end of an answer.",
            ["engine"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._first_text = Histogram(
            "rag_generator_first_text_seconds",
            "Time to the first text of an answer.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._waiting = Gauge(
            "rag_generator_waiting", "Questions waiting for the language model.", registry=registry
        )
        for kind in ("prompt", "completion"):
            self._tokens.labels(kind)
        for engine in engines:
            self._duration.labels(engine)
            for answered in ("true", "false"):
                self._answers.labels(engine, answered)

    def count_fallback(self) -> None:
        """The language model failed, the sentences answer."""
        self._fallbacks.inc()

    def observe_waiting(self, waiting: Callable[[], float]) -> None:
        """Where to read how many wait for the language model; 0 without one."""
        self._waiting.set_function(waiting)

    def observe_first_text(self, duration_s: float) -> None:
        """The first text is out."""
        self._first_text.observe(duration_s)

    def observe(self, completion: Completion, duration_s: float) -> None:
        """One answer is complete."""
        answered = "true" if completion.answered else "false"
        self._answers.labels(completion.engine, answered).inc()
        self._duration.labels(completion.engine).observe(duration_s)
        self._tokens.labels("prompt").inc(completion.prompt_tokens)
        self._tokens.labels("completion").inc(completion.completion_tokens)
