"""How late interaction is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from training import queries
from training.late_interaction import (
    MAX_TOKENS,
    RANK,
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
token that fits best (ColBERT's MaxSim), and a linear map of the query's token states says how much
each of them counts. Low-rank matrices for every linear map of the base's layers, added to its
weights when it is loaded."""
_FAILURES: Final = (
    "It knows English alone; other languages, code and tables were never read.",
    "It was trained on questions, keywords and sentences about Wikipedia's articles. What it does "
    "for other collections is in the figures: on some it changes little.",
    "Query and passage have at most 256 tokens each: the end of a longer one is not read.",
    "It compares tokens. That a passage says the opposite, or the same of somebody else, it hardly "
    "sees.",
)


class LateInteractionRecipe(Recipe[LateInteraction]):
    """Queries of several styles, and ColBERT's loss."""

    name = "late_interaction"
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

    def examine(self, task: LateInteraction, parts: Parts, folder: Path) -> str:
        return examine(task, parts.calibration, folder, name=self.name)

    def settings(self, parts: Parts, steps: int) -> Mapping[str, str]:
        return {
            "steps": f"{steps:,} of {queries.STEP_QUERIES} queries, each against its own passage, "
            f"{queries.LIKE} like it, and those of the other queries",
            "queries": queries.STYLES,
            "rank": str(RANK),
            "temperature": f"{TEMPERATURE:g}, of means of cosines",
            "optimiser": f"AdamW, highest learning rate {LEARNING_RATE:g}, cosine, gradient norm 1",
            "query, passage": f"{MAX_TOKENS} tokens each at most",
        }
