"""The second tier: Redis, which may be slow, wrong or gone without anybody noticing."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.cache.entry import Entry, decode, encode

log = logging.getLogger(__name__)

# Failures in a row before Redis is left alone, and for how long. One request in that time
# then pays the time-out (50 ms) instead of all of them.
BREAK_AFTER: Final = 3
BREAK_S: Final = 1.0
# Keys written together must not expire together.
TTL_JITTER: Final = 0.1


class Breaker:
    """Closed: calls go out. Open: none does. After a while one is let through to see."""

    def __init__(self, after: int = BREAK_AFTER, open_s: float = BREAK_S) -> None:
        self._after = after
        self._open_s = open_s
        self._failures = 0
        self._try_at_s = 0.0

    @property
    def closed(self) -> bool:
        """Whether the last calls came back."""
        return self._failures < self._after

    def allow(self) -> bool:
        """Whether a call may go out now."""
        if self.closed:
            return True
        now_s = time.monotonic()
        if now_s < self._try_at_s:
            return False
        self._try_at_s = now_s + self._open_s
        return True

    def succeed(self) -> None:
        """The call came back."""
        self._failures = 0

    def fail(self) -> None:
        """The call did not come back, or not in time."""
        self._failures += 1
        self._try_at_s = time.monotonic() + self._open_s


class RedisTier:
    """Vectors in Redis. Nothing here raises: a failure is a miss, soon enough."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int, connections: int) -> None:
        # Defaults of redis-py would wait 5 s and retry 10 times (measured: 3.8 s for one GET
        # with Redis down). The pool blocks instead of failing when all connections are out.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=timeout_s,
            socket_timeout=timeout_s,
        )
        self._redis = Redis(connection_pool=pool)
        self._pool = pool
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        self._breaker = Breaker()

    async def get_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """What is kept under each key, in order, by one MGET."""
        values = await self._ask(self._redis.mget, keys)
        if values is None:
            return [None] * len(keys)
        return [decode(key, value) for key, value in zip(keys, values, strict=True)]

    async def put_many(self, entries: Mapping[bytes, Entry]) -> None:
        """Keeps the entries for about the time to live, in one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        for key, entry in entries.items():
            jitter = random.uniform(1 - TTL_JITTER, 1 + TTL_JITTER)  # noqa: S311
            pipe.set(key, encode(key, entry), ex=max(1, round(self._ttl_s * jitter)))
        await self._ask(pipe.execute)

    async def ping(self) -> bool:
        """Whether Redis answers in time; asked even when it is being left alone."""
        return await self._call(self._redis.ping) is not None

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
        await self._pool.disconnect()

    async def _ask(self, call: Any, *arguments: Any) -> Any:
        return await self._call(call, *arguments) if self._breaker.allow() else None

    async def _call(self, call: Any, *arguments: Any) -> Any:
        """What the call returns, or None when it failed or took too long."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await call(*arguments)
        except (RedisError, OSError, TimeoutError) as error:
            if self._breaker.closed:
                log.warning("redis is not answering: %s", type(error).__name__)
            self._breaker.fail()
            return None
        if not self._breaker.closed:
            log.info("redis answers again")
        self._breaker.succeed()
        return answer
