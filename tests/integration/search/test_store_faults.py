"""The store's process does not start, hangs or fails: said, mended, and nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest
from support.store import COLLECTION, embedded_search, process_of, soon, until_back, version

from runtime.errors import Reason, ServiceError


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Starts again at once."""
    monkeypatch.setattr("gateway.search.process.FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr("gateway.search.process.MOST_BACKOFF_S", 0.05)
    return monkeypatch


async def test_a_store_that_cannot_start_is_broken_and_comes_back(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    async with embedded_search(tmp_path) as search:
        await search.put_document(COLLECTION, version("a", "one", "two"))
        segments = tmp_path / "store" / COLLECTION / "1"
        process = process_of(search).pid
        assert process is not None
        segments.rename(tmp_path / "away")
        segments.write_text("not a folder")
        os.kill(process, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not search.broken:
                await asyncio.sleep(0.02)
        with pytest.raises(ServiceError) as caught:
            await search.ping()
        assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
        segments.unlink()
        (tmp_path / "away").rename(segments)
        await until_back(search)
        assert not search.broken
        assert await search.get_document(COLLECTION, "a", soon()) is not None


async def test_no_room_for_a_process_is_waited_out(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    def full(theirs: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with embedded_search(tmp_path) as search:
        await search.put_document(COLLECTION, version("a", "one"))
        process = process_of(search).pid
        assert process is not None
        with hurried.context() as patch:
            patch.setattr("gateway.search.process._spawn", full)
            os.kill(process, signal.SIGKILL)
            async with asyncio.timeout(30):
                while not search.broken:
                    await asyncio.sleep(0.02)
        await until_back(search)
        assert not search.broken
        assert await search.get_document(COLLECTION, "a", soon()) is not None


async def test_a_process_that_hangs_is_killed_and_comes_back(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    hurried.setattr("gateway.search.process.PING_PAUSE_S", 0.05)
    hurried.setattr("gateway.search.process.HANG_S", 1.0)
    async with embedded_search(tmp_path) as search:
        await search.put_document(COLLECTION, version("a", "one"))
        process = process_of(search).pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        await until_back(search)
        assert process_of(search).pid != process
        assert await search.get_document(COLLECTION, "a", soon()) is not None
