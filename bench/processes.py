"""What the processes of a running system cost: CPU time and resident memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

import psutil

MEBIBYTE: Final = 1024 * 1024
# Short beside the seconds that indexing takes, long beside the millisecond of one reading.
SAMPLE_INTERVAL_S: Final = 0.1


def cpu_s(pid: int) -> float:
    """CPU seconds of the process so far, all threads, user and system (10 ms steps on Linux)."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def rss_mib(pid: int) -> float:
    """Resident memory of the process."""
    return float(psutil.Process(pid).memory_info().rss) / MEBIBYTE


def pss_mib(pid: int) -> float:
    """Proportional set size: memory that n processes share counts 1/n for each (Linux).

    So it may be summed over the processes of one server, which would count a library that all
    of them map as often as there are processes.
    """
    return float(psutil.Process(pid).memory_full_info().pss) / MEBIBYTE


class CpuMeter:
    """CPU time each of some processes spends between two readings."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._start = self._read()

    def spent_s(self) -> dict[str, float]:
        """CPU seconds by name since this meter was made."""
        return {name: now_s - self._start[name] for name, now_s in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self._pids.items()}


class PeakMemory:
    """The largest resident memory of each process while the block runs, by a sampling thread."""

    def __init__(self, pids: Mapping[str, int], read: Callable[[int], float] = rss_mib) -> None:
        self._pids = dict(pids)
        self._read = read
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.before_mib: dict[str, float] = {}
        self.peak_mib: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.before_mib = {name: self._read(pid) for name, pid in self._pids.items()}
        self.peak_mib = dict(self.before_mib)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_INTERVAL_S):
            self._look()
        self._look()

    def _look(self) -> None:
        for name, pid in self._pids.items():
            self.peak_mib[name] = max(self.peak_mib[name], self._read(pid))
