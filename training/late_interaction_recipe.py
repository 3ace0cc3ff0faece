"""How the reranker is made: late interaction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from encoders.adapters import WORD_WEIGHTS
from training import queries
from training.late_interaction import (
    MAX_TOKENS,
    RANK,
    SHARE,
    TEMPERATURE,
    LateInteraction,
    new_late_interaction,
)
from training.nearest import Indices, Pool
from training.queries import Queries
from training.recipe import Recipe
from training.reranked import examine
from training.squad import Parts

LEARNING_RATE: Final = 3e-4

_ABOUT: Final = """\
Scores passages against a query by late interaction: each token of the query finds the passage's
token that fits best (ColBERT's MaxSim), and rare words of the query count more than frequent ones.
Low-rank matrices for every linear map of the base's layers, added to its weights when it is loaded,
and a number for each word."""
_FAILURES: Final = (
    *queries.KNOWN_FAILURES,
    "Query and passage have at most 256 tokens each: the end of a longer one is not read.",
    "Pieces of words that English hardly has weigh most: in a query with names in other scripts "
    "they decide.",
    "It compares tokens. That a passage says the opposite, or the same of somebody else, it hardly "
    "sees.",
)


class LateInteractionRecipe(Recipe[LateInteraction]):
    """Queries of several styles, and ColBERT's loss."""

    name = "reranker"
    kind = "late_interaction"
    # Half an hour on two cores that multiply bfloat16.
    steps = 1000
    learning_rate = LEARNING_RATE
    made_with: ClassVar = {
        "rank": RANK,
        "most_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE,
        **queries.MADE_WITH,
    }
    about = _ABOUT
    failures = _FAILURES

    def new(self, device: str) -> LateInteraction:
        return new_late_interaction(device)

    def batches(self, pool: Pool, near: Indices, seed: int) -> Queries:
        return Queries(pool, near, seed)

    def finish(self, task: LateInteraction) -> None:
        task.bert.move_to_base(SHARE)

    def tensors(self, task: LateInteraction) -> dict[str, NDArray[np.floating[Any]]]:
        return super().tensors(task) | {WORD_WEIGHTS: task.word_weights.cpu().numpy()}

    def examine(self, task: LateInteraction, parts: Parts, folder: Path) -> str:
        return examine(task, parts.calibration, folder, name=self.name)

    def settings(self, parts: Parts, steps: int) -> Mapping[str, str]:
        return {
            "steps": f"{steps:,} of {queries.STEP_QUERIES} queries, each against its own passage, "
            f"{queries.LIKE} like it, and those of the other queries",
            "queries": queries.STYLES,
            "rank": str(RANK),
            "weights of words": "log(1 + rank of the word by frequency)",
            "kept of what was learnt": f"{SHARE:.0%} of the matrices, the rest of the base",
            "temperature": f"{TEMPERATURE:g}, of means of cosines",
            "optimiser": f"AdamW, highest learning rate {LEARNING_RATE:g}, cosine, gradient norm 1",
            "query, passage": f"{MAX_TOKENS} tokens each at most",
        }
