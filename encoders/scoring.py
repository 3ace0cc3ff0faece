"""What scores passages against a query, whatever kind of model does it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final

from encoders.blueprint import Kind
from encoders.encoder import EncoderModel, Floats, open_encoder
from encoders.location import ModelFiles, locate
from encoders.options import Runtime
from encoders.tokenizing import Tokens

# Heads that read a pair of texts, by what transformers calls them.
_PAIR_HEADS: Final = ("ForSequenceClassification", "ForCausalLM")


@dataclass(slots=True, eq=False)
class Query:
    """A query shared by pairs, whose batches run in several threads.

    states: float32 [content tokens, dimension], once computed, with one number more where the model
        says how much each token counts; read and set under the lock.
    """

    tokens: Tokens
    states: Floats | None = None
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One row of a batch: a passage (or both texts together), and the query it belongs to."""

    tokens: Tokens
    query: Query


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query with its passages, tokenised.

    truncated: positions of passages of which something was cut; all when the query was.
    tokens: that the model will read, padding left out.
    query_truncated: whether the query was cut; where pairs are read together, never.
    """

    pairs: list[Pair]
    truncated: list[int]
    tokens: int
    query_truncated: bool = False


class PairScorer(EncoderModel, ABC):
    """A model that is loaded. `prepare` is for any threads, `score` for `streams`."""

    # How scores are made: "cross_encoder" or "late_interaction".
    engine: str

    @abstractmethod
    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Tokenises. Thread-safe."""

    @abstractmethod
    def score(self, batch: Sequence[Pair]) -> list[float]:
        """One padded batch of pairs, of any queries: scores in 0..1."""


def load_pair_scorer(name: str, runtime: Runtime) -> PairScorer:
    """Loads a model with the engine that is right for it.

    A model with a head that reads pairs is a cross-encoder; of an embedding model
    the token states are compared (late interaction). An adapter says which it was trained for.

    Raises ModelUnusableError, with a message for people.
    """
    from encoders.cross_encoder import CrossEncoderScorer
    from encoders.late_interaction import LateInteraction

    kind = engine_of(locate(name))
    encoder = open_encoder(name, kind, runtime)
    return CrossEncoderScorer(encoder) if kind == "cross_encoder" else LateInteraction(encoder)


def engine_of(files: ModelFiles) -> Kind:
    """Which engine the model in these files is for.

    Raises ModelUnusableError for an adapter that scores nothing.
    """
    if files.adapter is not None:
        if files.adapter.kind == "cross_encoder":
            return "cross_encoder"
        files.require("late_interaction")
        return "late_interaction"
    saved_as = _read_json(files.folder / "config_sentence_transformers.json").get("model_type")
    architectures = _read_json(files.folder / "config.json").get("architectures") or [""]
    if saved_as is not None:
        return "cross_encoder" if saved_as == "CrossEncoder" else "late_interaction"
    # Saved before models said what they are: cross-encoders listed no modules then, and a
    # bi-encoder may be built on a transformer with any head.
    listed = (files.folder / "modules.json").is_file()
    reads_pairs = not listed and str(architectures[0]).endswith(_PAIR_HEADS)
    return "cross_encoder" if reads_pairs else "late_interaction"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content
