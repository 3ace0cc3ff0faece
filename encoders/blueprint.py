"""What must be known of a model to run it without the libraries it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# embedding: texts → one vector each.
# late_interaction: texts → one unit vector per token, and behind it the weight of its word where
#   the model has such.
# cross_encoder: pairs of texts → one score each.
# reader: pairs of question and passage → two logits per token: an answer begins, ends there.
Kind = Literal["embedding", "late_interaction", "cross_encoder", "reader"]
InputType = Literal["query", "passage"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prefix a model was trained with for one input type.

    excluded_tokens: how many tokens of it the pooling leaves out; mostly 0.
    """

    text: str = ""
    excluded_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Everything but the weights.

    inputs: names of the arrays of `tokenizing.pad` that the graph takes, in order.
    dimension: length of a vector; 0 for scores and for a reader.
    normalised: whether vectors have length 1.
    prompts: of an embedding model for both types, of a cross-encoder for the query alone,
        of a reader none.
    tokenizer: the `tokenizer.json`, as text.
    """

    kind: Kind
    inputs: tuple[str, ...]
    dimension: int
    normalised: bool
    max_tokens: int
    pad_id: int
    prompts: Mapping[InputType, Prompt]
    tokenizer: str
