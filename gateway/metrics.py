"""The gateway's Prometheus metrics. Every series exists from the first scrape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.jobs.job import ENDED, KINDS, STATES
from gateway.problems import PROBLEMS

STAGES: Final = ("embed", "search", "rerank", "generate")
CACHE_TIERS: Final = ("memory", "redis")
COMPONENTS: Final = ("vector_db", "cache", "embedder", "reranker", "generator")
# From a cached search (3 ms) to a long generation; 0.1 s is the promise people watch.
_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
# From one document to the rebuild of a large collection.
_JOB_BUCKETS_S: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)


class GatewayMetrics:
    """What the gateway counts; names are part of the public contract."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queries = Counter("rag_queries_total", "POST /query requests.", registry=registry)
        self.query_duration = Histogram(
            "rag_query_duration_seconds",
            "Time from the arrival of a POST /query to its last byte.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._cache_hits = Counter(
            "rag_cache_hits_total",
            "Question vectors found in a cache.",
            ["tier"],
            registry=registry,
        )
        self.cache_misses = Counter(
            "rag_cache_misses_total", "Question vectors found in no cache.", registry=registry
        )
        self.requests = Counter(
            "rag_requests_total", "Requests, probes and scrapes left out.", registry=registry
        )
        self._errors = Counter(
            "rag_errors_total", "Requests that failed, by reason.", ["type"], registry=registry
        )
        self.active_requests = Gauge(
            "rag_active_requests", "Requests being served.", registry=registry
        )
        self._stages = Histogram(
            "rag_stage_duration_seconds",
            "Time in one stage of a request.",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._degraded = Counter(
            "rag_degraded_total", "Answers given without a stage.", ["stage"], registry=registry
        )
        self._components = Gauge(
            "rag_component_up",
            "1 when the dependency was there when last looked at.",
            ["component"],
            registry=registry,
        )
        self._jobs = Gauge(
            "rag_jobs",
            "Jobs known, by state; of the ended, JOBS_KEPT.",
            ["state"],
            registry=registry,
        )
        self._job_idle = Gauge(
            "rag_job_idle_seconds",
            "Since the running job got further; 0 without one.",
            registry=registry,
        )
        self._jobs_ended = Counter(
            "rag_jobs_ended_total",
            "Jobs that ended, by how.",
            ["kind", "state"],
            registry=registry,
        )
        self._job_duration = Histogram(
            "rag_job_duration_seconds",
            "From the first start of a job to its end, restarts of the gateway included.",
            ["kind"],
            buckets=_JOB_BUCKETS_S,
            registry=registry,
        )
        # Looking a labelled child up costs more than counting it: they are kept.
        self._stage = {name: self._stages.labels(name) for name in STAGES}
        self._hit = {name: self._cache_hits.labels(name) for name in CACHE_TIERS}
        self._error = {reason.value: self._errors.labels(reason.value) for reason in PROBLEMS}
        for name in ("dense", "query_truncated", "rerank", "generate"):
            self._degraded.labels(name)
        for name in COMPONENTS:
            self._components.labels(name)
        for state in STATES:
            self._jobs.labels(state)
        for kind in KINDS:
            self._job_duration.labels(kind)
            for state in sorted(ENDED):
                self._jobs_ended.labels(kind, state)

    def stage(self, name: str, seconds: float) -> None:
        """One stage took that long."""
        self._stage[name].observe(seconds)

    def cache_hit(self, tier: str) -> None:
        """A vector was found in that tier."""
        self._hit[tier].inc()

    def error(self, reason: str) -> None:
        """A request failed for that reason."""
        self._error[reason].inc()

    def degraded(self, stage: str) -> None:
        """An answer was given without that stage."""
        self._degraded.labels(stage).inc()

    def component(self, name: str, look: Callable[[], float]) -> None:
        """Reads the state of a dependency at each scrape."""
        self._components.labels(name).set_function(look)

    def watch_jobs(self, count: Callable[[str], float], idle_s: Callable[[], float]) -> None:
        """Reads the jobs at each scrape. count: how many are in a state."""
        for state in STATES:
            self._jobs.labels(state).set_function(lambda state=state: count(state))  # type: ignore[misc]
        self._job_idle.set_function(idle_s)

    def job_ended(self, kind: str, state: str, duration_s: float | None) -> None:
        """A job ended. duration_s: None for one that never ran."""
        self._jobs_ended.labels(kind, state).inc()
        if duration_s is not None:
            self._job_duration.labels(kind).observe(duration_s)
