"""`make chaos`: the long form. Exit code 1 when anything was lost, torn, doubled or risen."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from chaos.model import small_model
from chaos.report import told
from chaos.storm import storm


def main() -> None:
    """Prints the seed first, and a table at the end."""
    parser = argparse.ArgumentParser(
        prog="make chaos", description="Kills processes while documents are written."
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.kills} kills", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        outcome = asyncio.run(
            storm(folder, small_model(folder), seed=arguments.seed, kills=arguments.kills)
        )
    print(told(outcome))
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
