"""How the cross-encoder is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from training import queries
from training.cross_encoder import (
    MAX_TOKENS,
    OTHERS,
    RANK,
    READER,
    CrossEncoder,
    new_cross_encoder,
)
from training.nearest import Indices, Pool
from training.queries import Queries
from training.recipe import Recipe
from training.reranked import examine
from training.squad import Parts

LEARNING_RATE: Final = 3e-4

_ABOUT: Final = """\
Scores a passage against a query by reading both together, through all layers: the log-odds are a
linear map of the first token's state. Low-rank matrices for every linear map of the base's layers,
added to its weights when it is loaded. They were trained from those of the reader on."""
_FAILURES: Final = (
    *queries.KNOWN_FAILURES,
    "Query and passage have at most 256 tokens together: the end of a longer passage is not read.",
    "Its score says which of some passages is the better one. Scores of different queries are not "
    "to be compared.",
)


class CrossEncoderRecipe(Recipe[CrossEncoder]):
    """Queries of several styles, and a softmax over the right passage and wrong ones."""

    name = "cross_encoder"
    kind = "cross_encoder"
    # Three quarters of an hour on two cores that multiply bfloat16.
    steps = 1000
    learning_rate = LEARNING_RATE
    made_with: ClassVar = {
        "rank": RANK,
        "most_tokens": MAX_TOKENS,
        "others": OTHERS,
        **queries.MADE_WITH,
    }
    about = _ABOUT
    failures = _FAILURES

    def new(self, device: str) -> CrossEncoder:
        return new_cross_encoder(device)

    def batches(self, pool: Pool, near: Indices, seed: int) -> Queries:
        return Queries(pool, near, seed)

    def examine(self, task: CrossEncoder, parts: Parts, folder: Path) -> str:
        return examine(task, parts.calibration, folder, name=self.name)

    def settings(self, parts: Parts, steps: int) -> Mapping[str, str]:
        return {
            "begins with": f"the matrices of `{READER}`",
            "steps": f"{steps:,} of {queries.STEP_QUERIES} queries, each with its own passage, "
            f"{queries.LIKE} like it, and {OTHERS} of other queries",
            "queries": queries.STYLES,
            "rank": str(RANK),
            "optimiser": f"AdamW, highest learning rate {LEARNING_RATE:g}, cosine, gradient norm 1",
            "query and passage": f"{MAX_TOKENS} tokens at most",
        }
