"""Two workers behind one gateway: what the second is worth, and what comes and goes unnoticed."""

from __future__ import annotations

from typing import Any

from bench import outages, scaling
from bench.options import Options
from bench.report import Report


def run(options: Options) -> Report:
    """First the throughput, then everything that may happen to a replica."""
    ways = scaling.measure(options)
    happened = outages.measure(options)
    figures: dict[str, Any] = {
        "scaling": {
            name: {
                "seconds": way.seconds,
                "worker_cpu_s": way.cpu_s,
                "tokens": way.tokens,
                "calls": way.calls,
            }
            for name, way in ways.items()
        },
        "outages": outages.figures(happened),
    }
    return Report(
        figures,
        [scaling.table(ways), *outages.tables(happened)],
        [*scaling.targets(ways), *outages.targets(happened)],
    )
