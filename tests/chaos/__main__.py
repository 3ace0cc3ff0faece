"""`make chaos`: the long form. Exit code 1 when anything was lost, torn, doubled or risen."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from chaos.model import small_model
from chaos.rebuilding import rebuilding
from chaos.report import told
from chaos.stage import Outcome
from chaos.storm import storm

Scenario = Callable[[Path, dict[str, str]], Coroutine[Any, Any, Outcome]]


def main() -> None:
    """Prints the seed first, and a table after each part."""
    arguments = _arguments()
    faults = 0
    for name, scenario in _scenarios(arguments):
        print(f"\n## {name}, seed {arguments.seed}\n", flush=True)
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = asyncio.run(scenario(Path(folder), small_model(Path(folder))))
        print(told(outcome), flush=True)
        faults += len(outcome.faults)
    sys.exit(1 if faults else 0)


def _scenarios(arguments: argparse.Namespace) -> Iterator[tuple[str, Scenario]]:
    seed, kills, rebuild_kills = arguments.seed, arguments.kills, arguments.rebuild_kills
    if kills:
        yield (
            f"{kills} kills while documents are written",
            lambda folder, model: storm(folder, model, seed=seed, kills=kills),
        )
    if rebuild_kills or arguments.rebuilds:
        yield (
            f"{arguments.rebuilds} rebuilds, then {rebuild_kills} kills during rebuilds",
            lambda folder, model: rebuilding(
                folder, model, seed=seed, rebuilds=arguments.rebuilds, kills=rebuild_kills
            ),
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos",
        description="Kills processes while documents are written. 0 leaves a part out.",
    )
    parser.add_argument("--kills", type=int, default=200, help="while documents are written")
    parser.add_argument("--rebuild-kills", type=int, default=60, help="while rebuilding")
    parser.add_argument("--rebuilds", type=int, default=10, help="in calm")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    return parser.parse_args()


if __name__ == "__main__":
    main()
