"""`python -m bench [measurement ...]`: runs them one after the other.

By default all but those of ON_REQUEST, which take about 95 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from typing import Final, Protocol, cast

from bench.datasets import data_folder
from bench.options import Options
from bench.report import Report, machine, save

# In the order in which they run; each is a module of this package with `run(options)`.
MEASUREMENTS: Final = {
    "backends": "backends",
    "cache": "caching",
    "latency": "latency",
    "indexing": "indexing",
    "interference": "interference",
    "overload": "overload",
    "throughput": "throughput",
    "reranking": "reranking",
    "servers": "servers",
    "replicas": "replicas",
    "rebuild": "rebuild",
    "scale": "scale",
    "memory": "memory",
    "ingest": "ingest",
    "retrieval": "retrieval",
    "reranked": "reranked",
    "reading": "reading",
    "gpu": "gpu",
}
# Not among "all": the one installs other projects first, gigabytes from a package registry, the
# other needs a GPU.
ON_REQUEST: Final = frozenset({"servers", "gpu"})
# Take other texts where the evaluation data is not at hand.
WITHOUT_DATA: Final = frozenset({"gpu", "ingest"})


class Measurement(Protocol):
    """A module of MEASUREMENTS."""

    def run(self, options: Options) -> Report:
        """Measures; takes minutes."""


def main() -> None:
    """Prints tables and writes `bench/results/<measurement>.json`.

    Exits 1 when a measurement says that it failed, after all of them were made.
    """
    arguments = _arguments()
    # What was started is stopped, as after Ctrl-C: 128 + 15 is what a shell says of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    usual = [name for name in MEASUREMENTS if name not in ON_REQUEST]
    names = arguments.measurements or usual
    data = data_folder(needed=not WITHOUT_DATA.issuperset(names))
    options = Options(
        data,
        arguments.quick,
        _chunking(arguments),
        arguments.minutes,
        tuple(arguments.reranker),
    )
    here = machine()
    print(
        f"{here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB; "
        f"Python {here['python']}; commit {here['commit']}; "
        f"load average {here['load_average_before'][0]:.1f} before the start",
        flush=True,
    )
    failures: list[str] = []
    for name in names:
        print(f"\n## {name}\n", flush=True)
        before = machine()
        started_s = time.monotonic()
        module = cast(Measurement, importlib.import_module(f"bench.{MEASUREMENTS[name]}"))
        report = module.run(options)
        path = save(name, report, before, quick=options.quick)
        print(report.text())
        print(f"\nTook {time.monotonic() - started_s:.0f} s; figures in {path}.", flush=True)
        failures += report.failures
    if failures:
        sys.exit("\n".join(["", "FAILED:", *failures]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the running system; docs/benchmarks.md says what and how. "
        f"By default all but {' and '.join(sorted(ON_REQUEST))}: about 95 minutes on 2 cores.",
    )
    parser.add_argument(
        "measurements", nargs="*", metavar="measurement", help=f"of {', '.join(MEASUREMENTS)}"
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to try things out")
    parser.add_argument("--chunk-size", type=int, help="for retrieval: characters of a chunk")
    parser.add_argument("--overlap", type=int, help="for retrieval: characters two chunks share")
    parser.add_argument("--minutes", type=float, help="for memory: how long it is watched")
    parser.add_argument(
        "--reranker",
        action="append",
        default=[],
        metavar="MODEL",
        help="for reranked: a model to try, by name or folder; may be repeated",
    )
    arguments = parser.parse_args()
    for name in arguments.measurements:
        if name not in MEASUREMENTS:
            parser.error(f"no measurement {name!r}; there are {', '.join(MEASUREMENTS)}")
    return arguments


def _chunking(arguments: argparse.Namespace) -> dict[str, int]:
    given = {"chunk_size": arguments.chunk_size, "overlap": arguments.overlap}
    return {name: value for name, value in given.items() if value is not None}


if __name__ == "__main__":
    main()
