"""Adapters over packaged models: files of a few megabytes, merged into the base when it is loaded.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): an adapted linear map is
W + B A, here without a scale. A file holds A as `<map>.lora_down` [rank, in] and B as
`<map>.lora_up` [out, rank] in float16, `<map>` being the name of the map within the base. What the
base has not, heads and weights of words, lies beside them as it is, in float32. The metadata say
what it is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from encoders.blueprint import Kind
from encoders.encoder import Floats
from encoders.identity import fingerprint
from encoders.location import AdapterFile, ModelFiles, ModelUnusableError, locate

if TYPE_CHECKING:
    from torch import nn

# Last parts of the names of A and B.
DOWN: Final = "lora_down"
UP: Final = "lora_up"
# A linear map of token states; a cross-encoder reads the first token's alone.
HEAD_WEIGHT: Final = "head.weight"
HEAD_BIAS: Final = "head.bias"
# How much each word of the vocabulary counts in a query.
WORD_WEIGHTS: Final = "word_weights"

# How many numbers the head of each kind gives for a token: the logit of a pair's score, for its
# first token; that an answer begins there, ends there. Late interaction has none.
_HEAD_OUTPUTS: Final[Mapping[Kind, int]] = MappingProxyType({"cross_encoder": 1, "reader": 2})
# Of the base that an adapter was trained over the fingerprint as this kind is noted.
_BASE_KIND: Final = "embedding"


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What is added to a linear map's weights, up @ down: float32 [rank, in], [out, rank]."""

    down: Floats
    up: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear map of token states: float32 [outputs, dimension], [outputs]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Adapter:
    """maps: by the name of a linear map within the base.

    word_weights: of late interaction, float32 [vocabulary], above 0; None counts all words alike.
    """

    maps: Mapping[str, LowRank]
    head: Head | None = None
    word_weights: Floats | None = None


def merge(files: ModelFiles, bert: nn.Module) -> Adapter | None:
    """Adds the adapter of `files`, where there is one, to the float32 weights of its base, `bert`.

    Returns the adapter. Raises ModelUnusableError when the adapter is damaged, or was
    trained over another model.
    """
    if files.adapter is None:
        return None
    _require_base(files, files.adapter)
    adapter = read_adapter(files.adapter)
    _add(adapter, bert, files.name)
    return adapter


def read_adapter(file: AdapterFile) -> Adapter:
    """The tensors of an adapter.

    Raises ModelUnusableError when a name, a shape or a number is not what it should be.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    name = file.path.name
    try:
        tensors = load_file(file.path)
    # The last three are said of numbers that numpy has not: bfloat16, those of 8 bits.
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnusableError(f"the adapter {name} cannot be read: {error}") from error
    floats: dict[str, Floats] = {}
    for key, tensor in tensors.items():
        if tensor.dtype not in (np.float16, np.float32) or not np.isfinite(tensor).all():
            raise ModelUnusableError(f"{key} of the adapter {name} is not made of finite floats")
        floats[key] = tensor.astype(np.float32)
    late = file.kind == "late_interaction"
    head = None if late else _take_head(floats, _HEAD_OUTPUTS[file.kind], name)
    weights = _take_word_weights(floats, name) if late else None
    maps = _take_maps(floats, name)
    if floats:
        raise ModelUnusableError(f"the adapter {name} holds {min(floats)}, which is unknown")
    return Adapter(maps, head, weights)


def _take_word_weights(tensors: dict[str, Floats], name: str) -> Floats | None:
    weights = tensors.pop(WORD_WEIGHTS, None)
    if weights is not None and (weights.ndim != 1 or not (weights > 0).all()):
        raise ModelUnusableError(
            f"{WORD_WEIGHTS} of the adapter {name} is not one number above 0 for each word"
        )
    return weights


def _take_head(tensors: dict[str, Floats], outputs: int, name: str) -> Head:
    weight, bias = tensors.pop(HEAD_WEIGHT, None), tensors.pop(HEAD_BIAS, None)
    if weight is None or bias is None:
        raise ModelUnusableError(f"the adapter {name} lacks {HEAD_WEIGHT} or {HEAD_BIAS}")
    if weight.ndim != 2 or len(weight) != outputs or bias.shape != (outputs,):
        raise ModelUnusableError(f"the head of the adapter {name} gives not {outputs} a token")
    return Head(weight, bias)


def _take_maps(tensors: dict[str, Floats], name: str) -> dict[str, LowRank]:
    maps: dict[str, LowRank] = {}
    for key in sorted(key for key in tensors if key.endswith(f".{DOWN}")):
        target = key.removesuffix(f".{DOWN}")
        down, up = tensors.pop(key), tensors.pop(f"{target}.{UP}", None)
        if up is None or down.ndim != 2 or up.ndim != 2 or up.shape[1] != len(down):
            raise ModelUnusableError(f"the adapter {name} has no pair of matrices for {target}")
        maps[target] = LowRank(down, up)
    if not maps:
        raise ModelUnusableError(f"the adapter {name} adapts nothing")
    return maps


def _require_base(files: ModelFiles, adapter: AdapterFile) -> None:
    found = fingerprint(ModelFiles(adapter.base, files.folder), kind=_BASE_KIND)
    if found != adapter.base_fingerprint:
        raise ModelUnusableError(
            f"{files.name} was trained over {adapter.base}@{adapter.base_fingerprint[:8]}, and "
            f"the one here is @{found[:8]}"
        )


def _add(adapter: Adapter, bert: nn.Module, name: str) -> None:
    import torch
    from torch import nn

    linear = {key: part for key, part in bert.named_modules() if isinstance(part, nn.Linear)}
    for key, low_rank in adapter.maps.items():
        shape = (len(low_rank.up), low_rank.down.shape[1])
        target = linear.get(key)
        if target is None or tuple(target.weight.shape) != shape:
            raise ModelUnusableError(f"{name}: the base has no linear map {key} of shape {shape}")
        with torch.no_grad():
            target.weight += torch.from_numpy(low_rank.up) @ torch.from_numpy(low_rank.down)
    config: Any = bert.config
    if adapter.head is not None and adapter.head.weight.shape[1] != config.hidden_size:
        raise ModelUnusableError(f"{name}: the base's states are not as wide as the head")
    weights = adapter.word_weights
    if weights is not None and len(weights) != config.vocab_size:
        raise ModelUnusableError(
            f"{name} weighs {len(weights)} words, and the base knows {config.vocab_size}"
        )


def write_adapter(
    path: Path, tensors: Mapping[str, NDArray[np.floating[Any]]], *, kind: Kind, base: str
) -> None:
    """Writes an adapter's file, in one step: the same tensors give the same bytes.

    tensors: by the names of the module's text; A and B are written in float16, heads in float32.
    base: name of the model it was trained over, which lies on this machine.

    Raises ValueError for what `merge` would refuse, such as numbers beyond float16's 65,504;
    nothing is written then.
    """
    from safetensors.numpy import save

    for_base = fingerprint(locate(base), kind=_BASE_KIND)
    metadata = {"base": base, "base_fingerprint": for_base, "kind": kind}
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        kept = {key: np.ascontiguousarray(tensor, _kept_as(key)) for key, tensor in tensors.items()}
    whole = path.with_suffix(".new")
    whole.write_bytes(_ordered(save(kept, metadata)))
    try:
        read_adapter(AdapterFile(whole, base, for_base, kind))
        whole.rename(path)
    finally:
        whole.unlink(missing_ok=True)


def _kept_as(key: str) -> type[np.floating[Any]]:
    return np.float16 if key.endswith((f".{DOWN}", f".{UP}")) else np.float32


def _ordered(content: bytes) -> bytes:
    """The same file with its header's keys in order: the library writes metadata in any."""
    # The format: the header's length in 8 bytes, little-endian, the header as JSON, the data.
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return content[:8] + text.encode().ljust(size) + content[8 + size :]
