"""What this machine can do: CPUs it may use, and number formats it multiplies fast."""

from __future__ import annotations

import math
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

_CGROUP: Final = Path("/sys/fs/cgroup")
_CPUINFO: Final = Path("/proc/cpuinfo")
_DEVICES: Final = Path("/dev")
# Of nice values, of which each step is 1.25 times less of a CPU that others want too.
_NICE: Final = 10
_LEAST_PRIORITY: Final = 19


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """CPUs this process may use: its affinity, bounded by the cgroup's quota, at least 1.

    The host's count is wrong in a container: threads beyond the quota are
    throttled all at once (1x16 tokens took 142 ms instead of 10).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota_cpus(cgroup)
    return max(1, min(allowed or 1, math.ceil(quota) if quota is not None else allowed or 1))


def _quota_cpus(cgroup: Path) -> float | None:
    """CPUs of the quota by cgroup v2 (`cpu.max`) or v1 (`cpu.cfs_*`); None without one."""
    unified = _read(cgroup / "cpu.max").split()
    if len(unified) == 2 and unified[0] != "max":
        return int(unified[0]) / int(unified[1])
    quota_us = _read(cgroup / "cpu" / "cpu.cfs_quota_us")
    period_us = _read(cgroup / "cpu" / "cpu.cfs_period_us")
    if quota_us and period_us and int(quota_us) > 0:
        return int(quota_us) / int(period_us)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such controller here: no quota
        return ""


def multiplies_bf16(cpuinfo: Path = _CPUINFO) -> str | None:
    """The instruction set that makes bfloat16 faster than float32 here, or None."""
    flags = set(_read(cpuinfo).split())
    for name in ("amx_bf16", "avx512_bf16", "bf16"):  # the last is what Arm calls it
        if name in flags:
            return name
    return None


def limit_threads(threads: int) -> None:
    """Bounds the process's other pools: the tokenizers' to `threads`, numpy's to none.

    Each starts a thread per CPU of the host otherwise, whatever the quota. The
    tokenizers read theirs once, before the first batch of texts. numpy multiplies in
    the calling thread: OpenBLAS's own wait for more in a busy loop of some 25 ms, which
    doubled the time of scoring beside the model.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    threadpool_limits(1, user_api="blas")


def lower_priority() -> None:
    """Gives the calling thread, and those it starts, less of a CPU than the process's others want.

    The event loop then answers at once though every CPU computes. Measured on 2 cores at three
    times the capacity: refusals within 7.5 ms (p99) instead of 56, late answers 0.5 % instead
    of 2.0. It counts only among the threads of one container or session (cgroups, autogroup):
    neighbours get nothing of it. Nothing where threads have no priority of their own.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # not permitted: it stays as it is
            own = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(own + _NICE, _LEAST_PRIORITY))


def has_nvidia_gpu(devices: Path = _DEVICES) -> bool:
    """Whether a driver shows a GPU; says nothing of whether torch can use it.

    A container may hold any one of the host's GPUs, not always the first; under WSL 2 they
    are behind one device.
    """
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()
