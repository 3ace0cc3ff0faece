"""An embedded store opened in this process, and what it takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import psutil

from bench.processes import MEBIBYTE, SAMPLE_INTERVAL_S, rss_mib
from gateway.search.search import Search, open_search
from gateway.search.settings import StoreSettings


@asynccontextmanager
async def opened(settings: StoreSettings) -> AsyncIterator[tuple[Search, dict[str, float]]]:
    """The store, with the seconds until it answered and its resident memory until then."""
    search = open_search(settings)
    started_s = time.perf_counter()
    with _PeakOfStore() as memory:
        await search.start()
    try:
        await search.ping()
        seconds = time.perf_counter() - started_s
        yield search, {"open_s": seconds, "peak_rss_mib": memory.mib}
    finally:
        await search.aclose()


class _PeakOfStore:
    """The largest resident memory of this process's store while the block runs."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_INTERVAL_S):
            # It may not have begun yet.
            self.mib = max([self.mib, *map(rss_mib, _store_pids())])


def _store_pids() -> list[int]:
    """The processes of the embedded stores that this process has opened."""
    pids = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # one that has just ended
            if "gateway.search.child" in child.cmdline():
                pids.append(child.pid)
    return pids


def store_pid() -> int:
    """The process of the only generation that this process has open."""
    (pid,) = _store_pids()
    return pid


def disk_mib(folder: Path) -> float:
    """What the folder's files take on disk."""
    blocks = sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file())
    return blocks * 512 / MEBIBYTE
