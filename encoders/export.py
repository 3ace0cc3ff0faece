"""Exports of models for OpenVINO: a worker that finds one never loads torch.

    python -m encoders.export --kind embedding --model <name> --cache-dir <folder>

makes one, for an image to carry: its workers look in MODEL_EXPORTS_DIR first. A worker that
finds none runs the same command as a child. With `--trained` in place of kind and model it makes
those of all adapters that come with this version, each in the folder of its kind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

from encoders.blueprint import Blueprint, Kind, Prompt
from encoders.identity import fingerprint
from encoders.location import ModelFiles, ModelUnusableError, locate, trained
from encoders.openvino_import import import_openvino

# Raised when what is written, or how a graph is made, changes.
EXPORT_VERSION: Final = 3
# Begins the name of a folder that is not whole yet.
MAKING: Final = ".making-"

_BLUEPRINT: Final = "blueprint.json"
_WEIGHTS: Final = "model.xml"


class Export:
    """A folder with a model's graph, weights and blueprint."""

    def __init__(self, folder: Path) -> None:
        self.weights = folder / _WEIGHTS
        self.blueprint = read_blueprint(folder / _BLUEPRINT)


def is_complete(folder: Path) -> bool:
    """Whether an export lies there; it may be damaged all the same."""
    return (folder / _BLUEPRINT).is_file()


def cache_key(model_fingerprint: str) -> str:
    """Names everything that an export depends on."""
    made_with = "/".join(version(name) for name in ("openvino", "torch", "transformers"))
    stamp = hashlib.sha256(f"{EXPORT_VERSION}/{made_with}".encode()).hexdigest()[:8]
    return f"{model_fingerprint}-{stamp}"


def make_export(files: ModelFiles, kind: Kind, cache_dir: Path) -> Path:
    """Exports the model into the cache and returns its folder. Loads torch.

    The folder appears whole, by a rename of what is on the disk already: a power cut leaves
    all of it or nothing. Of two processes that make the same one, the second throws its
    own away.
    """
    target = cache_dir / cache_key(fingerprint(files, kind=kind))
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=MAKING) as made:
        folder = Path(made) / "export"
        folder.mkdir()
        _write(files, kind, folder)
        for path in (*folder.iterdir(), folder):
            _sync(path)
        try:
            folder.rename(target)
        except OSError:
            if not is_complete(target):
                shutil.rmtree(target, ignore_errors=True)
                folder.rename(target)
    _sync(cache_dir)
    return target


def _sync(path: Path) -> None:
    """Waits until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(files: ModelFiles, kind: Kind, folder: Path) -> None:
    import torch

    from encoders.graphs import build
    from encoders.masking import fill_empty_rows

    openvino = import_openvino()

    blueprint, graph = build(files, kind)
    fill_empty_rows(graph.transformer.model)
    # Rows of different length, so that the masked path is what is traced.
    ids = torch.full((2, 16), blueprint.pad_id, dtype=torch.int64)
    ids[0], ids[1, :9] = 5, 5
    mask = (ids == 5).to(torch.int64)
    examples = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
    example = tuple(examples.get(name, mask) for name in blueprint.inputs)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about branches that do not vary here
        model = openvino.convert_model(graph, example_input=example)
    # float16 weights would be another model than the float32 reference.
    openvino.save_model(model, folder / _WEIGHTS, compress_to_fp16=False)
    write_blueprint(blueprint, folder / _BLUEPRINT)


def write_blueprint(blueprint: Blueprint, path: Path) -> None:
    """Writes it as JSON."""
    path.write_text(json.dumps(asdict(blueprint)), "utf-8")


def read_blueprint(path: Path) -> Blueprint:
    """Reads what `write_blueprint` wrote."""
    fields = json.loads(path.read_text("utf-8"))
    prompts = {name: Prompt(**prompt) for name, prompt in fields.pop("prompts").items()}
    return Blueprint(inputs=tuple(fields.pop("inputs")), prompts=prompts, **fields)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Export models for OpenVINO.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="hub name, local folder or adapter")
    what.add_argument("--trained", action="store_true", help="all adapters of this version")
    parser.add_argument("--kind", choices=get_args(Kind), help="what is made of the model")
    parser.add_argument("--cache-dir", type=Path, required=True)
    given = parser.parse_args()
    if (given.model is None) != (given.kind is None):
        parser.error("--model and --kind go together")
    try:
        if given.trained:
            _export_trained(given.cache_dir)
        else:
            _export(locate(given.model), given.kind, given.cache_dir)
    except ModelUnusableError as error:
        sys.exit(str(error))


def _export_trained(cache_dir: Path) -> None:
    for name in trained():
        files = locate(name)
        if files.adapter is not None:
            _export(files, files.adapter.kind, cache_dir / files.adapter.kind)


def _export(files: ModelFiles, kind: Kind, cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True, exist_ok=True)
    print(make_export(files, kind, cache_dir))


if __name__ == "__main__":
    main()
