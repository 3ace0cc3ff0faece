"""Exports of models for OpenVINO, cached on disk: a worker that finds one never loads torch.

    python -m encoders.export --kind embedding --model <name> --cache-dir <folder>

makes one, for an image to carry. A worker that finds none runs the same command as a
child, so that the 400 MB torch takes go with the child.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Final, get_args

from encoders.blueprint import Blueprint, Kind, Prompt
from encoders.identity import fingerprint
from encoders.location import ModelFiles, ModelUnusableError, locate
from encoders.openvino_import import import_openvino

log = logging.getLogger(__name__)

# Raised when what is written, or how a graph is made, changes.
EXPORT_VERSION: Final = 1
# Loading and tracing a model of 100 MB takes 8 s here; of 2 GB, minutes.
EXPORT_TIMEOUT_S: Final = 900.0

_MAKING: Final = ".making-"
_POLL_S: Final = 0.2
_INTERRUPT_S: Final = 5.0
_BLUEPRINT: Final = "blueprint.json"
_WEIGHTS: Final = "model.xml"


class Export:
    """A folder with a model's graph, weights and blueprint."""

    def __init__(self, folder: Path) -> None:
        self.weights = folder / _WEIGHTS
        self.blueprint = read_blueprint(folder / _BLUEPRINT)


def open_export(
    files: ModelFiles, kind: Kind, model_fingerprint: str, cache_dir: Path, stopped: Event
) -> Export:
    """The cached export of the model, made first if it is not there.

    stopped: set by another thread, it ends the making of one.

    Raises ModelUnusableError when it cannot be made, OSError when `cache_dir` cannot be written.
    """
    folder = cache_dir / cache_key(model_fingerprint)
    if not (folder / _BLUEPRINT).is_file():
        log.info("exporting the model, once", extra={"model": files.name, "kind": kind})
        cache_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(cache_dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(cache_dir))
        _remove_stale(cache_dir)
        _export_in_child(files, kind, cache_dir, stopped)
    return Export(folder)


def _remove_stale(cache_dir: Path) -> None:
    """What a process left that was killed while it made an export."""
    oldest_s = time.time() - EXPORT_TIMEOUT_S
    for folder in cache_dir.glob(f"{_MAKING}*"):
        if folder.stat().st_mtime < oldest_s:
            shutil.rmtree(folder, ignore_errors=True)


def cache_key(model_fingerprint: str) -> str:
    """Names everything that an export depends on."""
    made_with = "/".join(version(name) for name in ("openvino", "torch", "transformers"))
    stamp = hashlib.sha256(f"{EXPORT_VERSION}/{made_with}".encode()).hexdigest()[:8]
    return f"{model_fingerprint}-{stamp}"


def _export_in_child(files: ModelFiles, kind: Kind, cache_dir: Path, stopped: Event) -> None:
    command = [sys.executable, "-m", "encoders.export", "--kind", kind]
    command += ["--model", str(files.folder), "--cache-dir", str(cache_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    complaint = _wait(child, stopped)
    if child.returncode != 0:
        last_line = (complaint.strip().splitlines() or ["it was stopped"])[-1]
        raise ModelUnusableError(f"{files.name} cannot be exported for OpenVINO: {last_line}")


def _wait(child: subprocess.Popen[str], stopped: Event) -> str:
    """What the child wrote to stderr. It is interrupted when `stopped` is set, or too slow."""
    give_up_s = time.monotonic() + EXPORT_TIMEOUT_S
    while not stopped.is_set() and time.monotonic() < give_up_s:
        try:
            return child.communicate(timeout=_POLL_S)[1]
        except subprocess.TimeoutExpired:
            continue
    # An interrupt lets it take its half-made folder away.
    child.send_signal(signal.SIGINT)
    try:
        return child.communicate(timeout=_INTERRUPT_S)[1]
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()[1]


def make_export(files: ModelFiles, kind: Kind, cache_dir: Path) -> Path:
    """Exports the model into the cache and returns its folder. Loads torch.

    The folder appears whole, by a rename: of two processes that make the same
    one, the second throws its own away.
    """
    target = cache_dir / cache_key(fingerprint(files, kind=kind))
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=_MAKING) as made:
        folder = Path(made) / "export"
        folder.mkdir()
        _write(files, kind, folder)
        try:
            folder.rename(target)
        except OSError:
            if not (target / _BLUEPRINT).is_file():
                shutil.rmtree(target, ignore_errors=True)
                folder.rename(target)
    return target


def _write(files: ModelFiles, kind: Kind, folder: Path) -> None:
    import torch

    from encoders.graphs import build

    openvino = import_openvino()

    blueprint, graph = build(files, kind)
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
    parser = argparse.ArgumentParser(description="Export a model for OpenVINO.")
    parser.add_argument("--kind", choices=get_args(Kind), required=True)
    parser.add_argument("--model", required=True, help="hub name or local folder")
    parser.add_argument("--cache-dir", type=Path, required=True)
    given = parser.parse_args()
    given.cache_dir.mkdir(parents=True, exist_ok=True)
    print(make_export(locate(given.model), given.kind, given.cache_dir))


if __name__ == "__main__":
    main()
