"""Which model it is: a fingerprint of everything that decides what comes out of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from encoders.location import ModelFiles, ModelUnusableError
from runtime.labels import model_label

# Raised when the same files come to mean other vectors (another normalisation, say).
SEMANTICS_VERSION: Final = 1

# 64 bits: models are told apart, not secured.
FINGERPRINT_HEX_DIGITS: Final = 16

# Says who wrote a file, with what and where, nothing of what the model computes. `dtype`: the
# float precisions of one model share a fingerprint.
_IRRELEVANT_KEYS: Final = frozenset(
    {
        "_name_or_path", "name_or_path", "is_local", "local_files_only",
        "__version__", "transformers_version", "torch_dtype", "dtype",
    }
)  # fmt: skip
_WEIGHTS: Final = ("*.safetensors", "*.bin")
_TOKENIZER_TEXT: Final = ("vocab.txt", "merges.txt", "*.model")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What callers compare. Two models are the same when their fingerprints are, and only then.

    dimension: length of a vector; 0 for a model that gives scores.
    max_tokens: longest input in the model's own tokens, special ones included.
    """

    name: str
    fingerprint: str
    dimension: int
    max_tokens: int

    def __str__(self) -> str:
        return model_label(self.name, self.fingerprint)


def fingerprint(files: ModelFiles, *, kind: str) -> str:
    """Hex fingerprint of the model's weights, tokenizer, pooling, prefixes, limits and adapter.

    kind: what is made of the model ("embedding", "late_interaction", ...): other
        outputs of the same weights are another model.

    SHA-256 over the files that sentence-transformers reads, streamed (90 MB take
    0.1 s). JSON is hashed by content, so that formatting and version stamps do
    not matter.
    """
    digest = hashlib.sha256(f"{kind}/{SEMANTICS_VERSION}".encode())
    for path in relevant_files(files.folder):
        digest.update(b"\0" + path.relative_to(files.folder).as_posix().encode() + b"\0")
        digest.update(_content_digest(path))
    if files.adapter is not None:
        digest.update(b"\0adapter\0" + _content_digest(files.adapter.path))
    return digest.hexdigest()[:FINGERPRINT_HEX_DIGITS]


def relevant_files(folder: Path) -> list[Path]:
    """The files that decide what the model computes, in a fixed order.

    Raises ModelUnusableError when the folder holds no weights.
    """
    found: list[Path] = []
    weights = 0
    for part in (folder, *_module_folders(folder)):
        for pattern in _WEIGHTS:
            matches = sorted(part.glob(pattern))
            found += matches
            weights += len(matches)
            if matches:  # the same weights in an older format beside them say nothing new
                break
        found += sorted(part.glob("*.json"))
        for pattern in _TOKENIZER_TEXT:
            found += sorted(part.glob(pattern))
    if not weights:
        raise ModelUnusableError(f"{folder.name} holds no weights (*.safetensors or *.bin)")
    return [path for path in found if path.name not in _NOT_THE_MODEL]


# Training records and model cards that lie beside some models.
_NOT_THE_MODEL: Final = frozenset(
    {"data_config.json", "train_script.json", "training_args.bin", "optimizer.bin"}
)


def _module_folders(folder: Path) -> list[Path]:
    """Where the modules of a sentence-transformers model lie, and the parts of a module.

    `modules.json` names folders such as `1_Pooling`; "" is the model's own, which is not
    searched deeper: it may hold exports for other runtimes.
    """
    listing = folder / "modules.json"
    modules = json.loads(listing.read_bytes()) if listing.is_file() else []
    named = {folder / module["path"] for module in modules if module.get("path")}
    inner = {path for module in named for path in module.rglob("*") if path.is_dir()}
    return sorted(named | inner)


def _content_digest(path: Path) -> bytes:
    if path.suffix != ".json":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    content = _without_irrelevant(json.loads(path.read_bytes()))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _without_irrelevant(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_irrelevant(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        # Modules moved between releases of sentence-transformers; their class names did not.
        key: str(inner).rsplit(".", 1)[-1] if key == "type" else _without_irrelevant(inner)
        for key, inner in value.items()
        if key not in _IRRELEVANT_KEYS
    }
