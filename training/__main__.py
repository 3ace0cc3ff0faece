"""`python -m training <adapter>`: from the data to `encoders/trained/<adapter>.safetensors`."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.datasets import data_folder
from training.options import TRAINED, Options

if TYPE_CHECKING:
    from training.recipe import Recipe

# Module and class of each recipe: they import torch.
ADAPTERS: Final = {
    "reader": ("reader_recipe", "ReaderRecipe"),
    "reranker": ("late_interaction_recipe", "LateInteractionRecipe"),
    "cross_encoder": ("cross_encoder_recipe", "CrossEncoderRecipe"),
}
EXIT_NO_DATA: Final = 2
EXIT_BROKEN_OFF: Final = 130
log = logging.getLogger("training")


def main() -> None:
    """Trains one adapter, or goes on with it, and writes its file and card.

    Exits 2 when the data is not there, 1 with a line when it cannot be trained on, 130 when it
    was broken off: the same command goes on.
    """
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    device = _prepare(arguments.device, arguments.threads)
    options = Options(
        data_folder(needed=False),
        arguments.data,
        arguments.folder,
        arguments.output,
        arguments.steps,
        arguments.seed,
        device,
        tuple(arguments.figures),
    )
    if not options.squad_file.is_file():
        print(
            f"training: there is no {options.squad_file}. Set BENCH_DATA to the folder that holds "
            "squad/, or name a file with --data (docs/training.md).",
            file=sys.stderr,
        )
        sys.exit(EXIT_NO_DATA)
    began_s = time.monotonic()
    recipe = _recipe(arguments.adapter)
    try:
        if arguments.examine:
            print(recipe.examined(options))
            return
        path = recipe.make(options)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"training: {error}")
    except KeyboardInterrupt:
        log.info("broken off; the same command goes on from the last checkpoint")
        sys.exit(EXIT_BROKEN_OFF)
    spent_min = (time.monotonic() - began_s) / 60
    log.info("%s and %s, after %.0f min", path, path.with_suffix(".md").name, spent_min)


def _recipe(adapter: str) -> Recipe[Any]:
    module, name = ADAPTERS[adapter]
    recipe: type[Recipe[Any]] = getattr(importlib.import_module(f"training.{module}"), name)
    return recipe()


def _prepare(device: str | None, threads: int | None) -> str:
    """Sets torch's threads; returns the device, a GPU when there is one and none was named."""
    import torch

    from encoders.machine import available_cpus, multiplies_bf16

    torch.set_num_threads(threads or available_cpus())
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    log.info("trains on %s with %d threads", chosen, torch.get_num_threads())
    if chosen == "cpu" and multiplies_bf16() is None:
        log.warning("this processor does not multiply bfloat16: it will take many times as long")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Trains an adapter over the packaged model; docs/training.md says how, "
        "and how long. A run that was broken off is taken up again.",
    )
    parser.add_argument("adapter", choices=sorted(ADAPTERS))
    parser.add_argument("--steps", type=_positive, help="default: docs/training.md")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, default=Path(".training"), help="for checkpoints (%(default)s)"
    )
    parser.add_argument("--threads", type=_positive, help="default: every core it may use")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument(
        "--data", type=Path, help="a file in SQuAD's format; default: SQuAD's under BENCH_DATA"
    )
    parser.add_argument(
        "--output", type=Path, default=TRAINED, help="where file and card go (encoders/trained)"
    )
    parser.add_argument(
        "--examine", action="store_true", help="print the figures of the last checkpoint, no more"
    )
    parser.add_argument(
        "--figures", type=Path, nargs="*", default=[], help="Markdown tables for the card"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
