"""Loading by sentence-transformers: what it refuses is said in one sentence, and what it makes up
is refused.

Missing weights are filled with random numbers and a missing vocabulary with special tokens. Both
load and run without a complaint, and every score and vector is noise.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

from sentence_transformers import CrossEncoder, SentenceTransformer

from encoders.location import ModelFiles, ModelUnusableError

# Names in a message; a whole layer that is missing has sixteen.
_NAMED: Final = 3

M = TypeVar("M", SentenceTransformer, CrossEncoder)


def load(files: ModelFiles, library: type[M]) -> M:
    """The model in float32, on the CPU, without the network and without running code of its own.

    Raises ModelUnusableError when the files are damaged or of an architecture that is not part
    of transformers.
    """
    try:
        model: M = library(
            str(files.folder),
            device="cpu",
            local_files_only=True,
            model_kwargs={"dtype": "float32"},
        )
    except Exception as error:  # anything, down to KeyError, for files they cannot read
        if isinstance(error, ValueError) and _brings_code(files):
            raise ModelUnusableError(
                f"{files.name} needs Python code from its own repository, which is never run; "
                "take a model whose architecture is part of transformers"
            ) from error
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelUnusableError(
            f"{files.name} cannot be loaded: {type(error).__name__}: {reason}"
        ) from error
    model.eval()
    return model


def _brings_code(files: ModelFiles) -> bool:
    """Whether the model's configuration names Python files that lie beside it."""
    path = files.folder / "config.json"
    return path.is_file() and "auto_map" in json.loads(path.read_bytes())


def require_complete(transformer: Any, files: ModelFiles, *, reads_token_states: bool) -> None:
    """Raises ModelUnusableError when weights or vocabulary are not what the files held.

    transformer: sentence-transformers' module, just loaded.
    reads_token_states: a pooler is not read then, and many embedding models come without one.
    """
    names = _made_up(transformer.model)
    if reads_token_states:
        names = [name for name in names if not name.startswith("pooler.")]
    if names:
        shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        raise ModelUnusableError(
            f"the weights of {files.name} are not those its config.json asks for: there is no "
            f"{shown}"
        )
    tokenizer = transformer.tokenizer
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ModelUnusableError(
            f"{files.name} has no vocabulary; its tokenizer.json belongs into the same folder"
        )


def _made_up(model: Any) -> list[str]:
    """Parameters that transformers initialised by itself: it marks those that it loaded."""
    loaded = {
        name: getattr(parameter, "_is_hf_initialized", False)
        for name, parameter in model.named_parameters()
    }
    # A release of transformers that marks none says nothing.
    return [name for name, found in loaded.items() if not found] if any(loaded.values()) else []
