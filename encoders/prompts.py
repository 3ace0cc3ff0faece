"""The prefixes that a model was trained with, found where sentence-transformers keeps them.

This file imports torch and sentence-transformers, as `encoders.graphs` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn

from encoders.blueprint import InputType, Prompt
from encoders.location import ModelFiles, ModelUnusableError

# Names sentence-transformers looks for, in its order, for either side of retrieval.
_PROMPT_NAMES: Final[Mapping[InputType, tuple[str, ...]]] = {
    "query": ("query",),
    "passage": ("document", "passage", "corpus"),
}


def prompts_of(model: SentenceTransformer, transformer: Any) -> dict[InputType, Prompt]:
    """Those of an embedding model, for either side of retrieval."""
    return {name: _prompt(model, transformer, name) for name in _PROMPT_NAMES}


def pair_prompt(model: CrossEncoder, files: ModelFiles) -> Prompt:
    """The prefix `CrossEncoder.predict` puts before the first text of each pair.

    Raises ModelUnusableError for one that its score leaves out.
    """
    text = model.prompts.get(model.default_prompt_name or "") or ""
    if text and not _pools_prompt(model):
        raise ModelUnusableError(f"{files.name} leaves its prompt out of what it scores")
    return Prompt(text)


def _pools_prompt(model: nn.Sequential) -> bool:
    """Whether pooling takes the prefix's tokens in, as it does mostly."""
    return all(getattr(module, "include_prompt", True) for module in model)


def _prompt(model: SentenceTransformer, transformer: Any, input_type: InputType) -> Prompt:
    """The prefix `encode_query` or `encode_document` would use."""
    names = [name for name in _PROMPT_NAMES[input_type] if name in model.prompts]
    name = names[0] if names else model.default_prompt_name
    text = (model.prompts.get(name) or "") if name else ""
    if not text or _pools_prompt(model):
        return Prompt(text)
    ids = transformer.tokenizer(text)["input_ids"]
    special = set(transformer.tokenizer.all_special_ids)
    return Prompt(text, len(ids) - (1 if ids[-1] in special else 0))
