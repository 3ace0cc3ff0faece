"""CPU time and memory of processes."""

from __future__ import annotations

import os
import time

from bench.processes import CpuMeter, PeakMemory


def test_cpu_time_is_what_the_process_burnt() -> None:
    meter = CpuMeter({"self": os.getpid()})
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        continue
    # Linux counts in steps of 10 ms.
    assert meter.spent_s()["self"] >= 0.08


def test_peak_memory_is_the_largest_that_was_seen() -> None:
    # The first reading is taken before the block, the last one after it.
    readings = iter([100.0, 300.0])
    with PeakMemory({"store": 1}, lambda _: next(readings, 200.0)) as memory:
        pass
    assert memory.before_mib == {"store": 100.0}
    assert memory.peak_mib == {"store": 300.0}


def test_peak_memory_reads_real_processes() -> None:
    with PeakMemory({"self": os.getpid()}) as memory:
        pass
    # A Python interpreter with pytest in it: more than 10 MiB, less than 10 GiB.
    assert 10 < memory.before_mib["self"] <= memory.peak_mib["self"] < 10_240
