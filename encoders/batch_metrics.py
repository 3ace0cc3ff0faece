"""Prometheus metrics of a batcher; every series exists from the first scrape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from encoders.lanes import LANES, Lane

# Why a call was turned away, or what became of its items instead of being computed.
Shed = Literal["queue_full", "too_late", "expired", "cancelled", "unhealthy"]
SHED: Final[tuple[Shed, ...]] = ("queue_full", "too_late", "expired", "cancelled", "unhealthy")

_SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class BatchMetrics:
    """What the batcher counts. Waiting tokens and their age are asked for when scraped.

    prefix: of the names, so that a process may have two models.
    """

    def __init__(self, registry: CollectorRegistry, prefix: str = "rag") -> None:
        self._queue_tokens = Gauge(
            f"{prefix}_queue_tokens",
            "Tokens waiting for the model; not those of batches that failed and are tried again.",
            ["lane"],
            registry=registry,
        )
        self._oldest = Gauge(
            f"{prefix}_queue_oldest_age_seconds",
            "How long the oldest waiting text has waited.",
            ["lane"],
            registry=registry,
        )
        self._fill = Histogram(
            f"{prefix}_batch_fill_ratio",
            "Padded tokens of a batch over what it might have held.",
            ["lane"],
            buckets=_SHARES,
            registry=registry,
        )
        self._duration = Histogram(
            f"{prefix}_batch_duration_seconds",
            "Time the model took for a batch.",
            ["lane"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._items = Counter(
            f"{prefix}_batch_items_total", "Texts or pairs computed.", ["lane"], registry=registry
        )
        self._tokens = Counter(
            f"{prefix}_tokens_total",
            "Tokens computed: of the texts, and padding beside them (the waste).",
            ["kind"],
            registry=registry,
        )
        self._speed = Gauge(
            f"{prefix}_tokens_per_second",
            "Padded tokens all streams of the model compute in a second, lately; by the warm-up "
            "before the first call.",
            registry=registry,
        )
        self._failures = Counter(
            f"{prefix}_batch_failures_total", "Runs of the model that failed.", registry=registry
        )
        self._shed = Counter(
            f"{prefix}_requests_shed_total",
            "Calls refused, or dropped before they were computed.",
            ["cause"],
            registry=registry,
        )
        for lane in LANES:
            # The queue's too: it is scraped while the model still loads.
            for metric in (
                self._queue_tokens, self._oldest, self._fill, self._duration, self._items
            ):  # fmt: skip
                metric.labels(lane)
        for kind in ("text", "padding"):
            self._tokens.labels(kind)
        for cause in SHED:
            self._shed.labels(cause)

    def watch(
        self,
        lane: Lane,
        tokens: Callable[[], float],
        oldest_age_s: Callable[[], float],
    ) -> None:
        """Asks these when scraped, from another thread."""
        self._queue_tokens.labels(lane).set_function(tokens)
        self._oldest.labels(lane).set_function(oldest_age_s)

    def computed(
        self, lane: Lane, *, items: int, tokens: int, padded: int, budget: int, duration_s: float
    ) -> None:
        """One batch that succeeded."""
        self._fill.labels(lane).observe(min(1.0, padded / budget))
        self._duration.labels(lane).observe(duration_s)
        self._items.labels(lane).inc(items)
        self._tokens.labels("text").inc(tokens)
        self._tokens.labels("padding").inc(padded - tokens)

    def speed(self, tokens_per_s: float) -> None:
        """The model's speed by the last measure."""
        self._speed.set(tokens_per_s)

    def failed(self) -> None:
        """One run of the model that failed."""
        self._failures.inc()

    def shed(self, cause: Shed) -> None:
        """One call that was not served."""
        self._shed.labels(cause).inc()
