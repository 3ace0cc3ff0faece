"""Models as one torch module each: arrays of a padded batch in, one float32 tensor out.

This file imports torch and sentence-transformers (2 to 6 s): import it inside the
function that needs it. The transformer runs in the precision it was cast to; what
follows it (pooling, normalising, activation) in float32, which costs nothing and
keeps bfloat16 vectors within cosine 0.9999 of float32 ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from encoders.adapters import Head, merge
from encoders.blueprint import Blueprint, Kind, Prompt
from encoders.encoder import Floats
from encoders.loading import load, require_complete
from encoders.location import ModelFiles, ModelUnusableError
from encoders.prompts import pair_prompt, prompts_of
from encoders.scoring import engine_of

# For a model that names no limit: what most encoders were trained for.
_DEFAULT_MAX_TOKENS: Final = 512


class Graph(nn.Module):
    """A transformer and what makes an answer of its output.

    reads_token_states: whether the answer is made of the states of all tokens alone.
    """

    reads_token_states = True

    def __init__(self, transformer: Any, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.transformer = transformer
        self.inputs = inputs

    @property
    def max_tokens(self) -> int:
        """Longest row, special tokens included."""
        return _max_tokens(self.transformer)

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return int(self.transformer.model.get_input_embeddings().num_embeddings)

    def forward(self, *arrays: Tensor) -> Tensor:
        """The answer to a padded batch; `arrays` are what `inputs` names, [n, length] each."""
        return self.answer(self.transform(arrays))

    def answer(self, features: dict[str, Any]) -> Tensor:
        """What is made of the transformer's output, the inputs beside it."""
        raise NotImplementedError

    def directions(self, answer: Tensor) -> Tensor:
        """Of an answer what two ways to compute it are compared by: their cosine."""
        return answer

    def cast(self, dtype: torch.dtype) -> Graph:
        """Runs the transformer, and it alone, in `dtype`. Returns itself."""
        self.transformer.to(dtype)
        return self

    def transform(self, arrays: tuple[Tensor, ...]) -> dict[str, Any]:
        named = dict(zip(self.inputs, arrays, strict=True))
        own = {key: named[key] for key in named if key not in ("pooling_mask", "content_mask")}
        features: dict[str, Any] = self.transformer(own)
        return {**features, **named}


class EmbeddingGraph(Graph):
    """Token ids → one vector per text, by the model's own pooling: float32 [n, dimension]."""

    def __init__(self, model: SentenceTransformer, inputs: tuple[str, ...]) -> None:
        super().__init__(model[0], inputs)
        self.heads = nn.ModuleList(list(model)[1:])

    def answer(self, features: dict[str, Any]) -> Tensor:
        if "pooling_mask" in features:
            features["attention_mask"] = features["pooling_mask"]
        features["token_embeddings"] = features["token_embeddings"].float()
        for head in self.heads:
            features = head(features)
        embedding: Tensor = features["sentence_embedding"]
        return embedding.float()


class TokenStatesGraph(Graph):
    """Token ids → the last hidden states, each of length 1: float32 [n, length, dimension].

    With weights, behind each state how much its token counts in a query: one number more.
    """

    word_weights: Tensor | None

    def __init__(
        self,
        model: SentenceTransformer,
        inputs: tuple[str, ...],
        word_weights: Floats | None = None,
    ) -> None:
        super().__init__(model[0], inputs)
        column = None if word_weights is None else torch.from_numpy(word_weights)[:, None]
        self.register_buffer("word_weights", column)

    def answer(self, features: dict[str, Any]) -> Tensor:
        states: Tensor = features["token_embeddings"].float()
        directions = nn.functional.normalize(states, dim=-1)
        if self.word_weights is None:
            return directions
        weights = nn.functional.embedding(features["input_ids"], self.word_weights)
        return torch.cat((directions, weights), dim=-1)

    def directions(self, answer: Tensor) -> Tensor:
        """Without the weights: the same however it is computed, and ten times as long."""
        return answer if self.word_weights is None else answer[..., :-1]


class ScoreGraph(Graph):
    """Token ids of pairs → the model's score after its activation: float32 [n]."""

    reads_token_states = False

    def __init__(self, model: CrossEncoder, inputs: tuple[str, ...]) -> None:
        super().__init__(model[0], inputs)
        self.heads = nn.ModuleList(list(model)[1:])
        self.activation = _activation(model)

    def answer(self, features: dict[str, Any]) -> Tensor:
        for head in self.heads:
            features = head(features)
        scores: Tensor = self.activation(features["scores"].float())
        return scores.reshape(-1)


class FirstTokenGraph(Graph):
    """Token ids of pairs → the sigmoid of a head over the first token's state: float32 [n]."""

    reads_token_states = False

    def __init__(self, transformer: Any, head: Head, inputs: tuple[str, ...]) -> None:
        super().__init__(transformer, inputs)
        self.head = _linear(head)

    def answer(self, features: dict[str, Any]) -> Tensor:
        states: Tensor = features["token_embeddings"][:, 0]
        return torch.sigmoid(self.head(states.float())).reshape(-1)


class SpanGraph(Graph):
    """Token ids of pairs → logits that an answer begins, ends there: float32 [n, length, 2]."""

    def __init__(self, transformer: Any, head: Head, inputs: tuple[str, ...]) -> None:
        super().__init__(transformer, inputs)
        self.head = _linear(head)

    def answer(self, features: dict[str, Any]) -> Tensor:
        states: Tensor = features["token_embeddings"]
        logits: Tensor = self.head(states.float())
        return logits


def _linear(head: Head) -> nn.Linear:
    linear = nn.Linear(head.weight.shape[1], len(head.bias))
    linear.load_state_dict(
        {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
    )
    return linear


def _activation(model: CrossEncoder) -> Callable[[Tensor], Tensor]:
    """Sigmoid for one label, whatever activation the model brings: scores are in 0..1."""
    activation = model.activation_fn
    # A model trained with raw logits (MS MARCO's) brings Identity: the sigmoid is monotonic,
    # so the order stays the model's own.
    return activation if isinstance(activation, nn.Sigmoid) else nn.Sigmoid()


def build(files: ModelFiles, kind: Kind) -> tuple[Blueprint, Graph]:
    """Loads a model from its folder, in float32, without the network.

    Raises ModelUnusableError for a model that this program cannot run, naming why.
    """
    # It would draw "Loading weights" into the log.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    files.require(kind)
    if kind == "embedding" and engine_of(files) == "cross_encoder":
        raise ModelUnusableError(f"{files.name} scores pairs of texts: it is for RERANKER_MODEL")
    if kind == "cross_encoder" and files.adapter is None:
        return _build_cross_encoder(files)
    model = load(files, SentenceTransformer)
    transformer = _transformer(model, files, reads_token_states=True)
    adapter = merge(files, transformer.model)
    if adapter is not None and adapter.head is not None:
        return _build_over_pairs(kind, transformer, adapter.head)
    states = kind == "late_interaction"
    prompts = prompts_of(model, transformer)
    excludes_prompt = any(prompt.excluded_tokens for prompt in prompts.values())
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    if excludes_prompt and not states:
        inputs = (*inputs, "pooling_mask")
    dimension = model.get_embedding_dimension()
    blueprint = Blueprint(
        kind=kind,
        inputs=inputs,
        dimension=int(transformer.get_embedding_dimension() if states else dimension or 0),
        normalised=states or type(model[-1]).__name__ == "Normalize",
        max_tokens=_max_tokens(transformer),
        pad_id=_pad_id(transformer),
        prompts=prompts,
        tokenizer=transformer.tokenizer.backend_tokenizer.to_str(),
    )
    weights = None if adapter is None else adapter.word_weights
    graph = TokenStatesGraph(model, inputs, weights) if states else EmbeddingGraph(model, inputs)
    return blueprint, graph.eval()


def _build_over_pairs(kind: Kind, transformer: Any, head: Head) -> tuple[Blueprint, Graph]:
    """Of an adapter that reads two texts together. The base's prefixes are not for such rows."""
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    scores = kind == "cross_encoder"
    blueprint = Blueprint(
        kind=kind,
        inputs=inputs,
        dimension=0,
        normalised=False,
        max_tokens=_max_tokens(transformer),
        pad_id=_pad_id(transformer),
        prompts={"query": Prompt()} if scores else {},
        tokenizer=transformer.tokenizer.backend_tokenizer.to_str(),
    )
    graph = FirstTokenGraph if scores else SpanGraph
    return blueprint, graph(transformer, head, inputs).eval()


def _build_cross_encoder(files: ModelFiles) -> tuple[Blueprint, Graph]:
    model = load(files, CrossEncoder)
    if model.num_labels != 1:
        raise ModelUnusableError(
            f"{files.name} gives {model.num_labels} labels a pair; one is needed"
        )
    transformer = _transformer(model, files, reads_token_states=False)
    if any(isinstance(module, LogitScore) for module in model) and not _lists_modules(files):
        raise ModelUnusableError(
            f"{files.name} is a language model that does not say by which words it scores"
        )
    takes_types = "token_type_ids" in transformer.tokenizer.model_input_names
    inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if takes_types else ()))
    blueprint = Blueprint(
        kind="cross_encoder",
        inputs=inputs,
        dimension=0,
        normalised=False,
        max_tokens=_max_tokens(transformer),
        pad_id=_pad_id(transformer),
        prompts={"query": pair_prompt(model, files)},
        tokenizer=transformer.tokenizer.backend_tokenizer.to_str(),
    )
    return blueprint, ScoreGraph(model, inputs).eval()


def _lists_modules(files: ModelFiles) -> bool:
    return (files.folder / "modules.json").is_file()


def _transformer(model: nn.Sequential, files: ModelFiles, *, reads_token_states: bool) -> Any:
    """The first module, if it is one this program can feed."""
    first = model[0]
    if not isinstance(first, Transformer):
        raise ModelUnusableError(
            f"{files.name} begins with {type(first).__name__}, not a transformer"
        )
    if getattr(first.tokenizer, "backend_tokenizer", None) is None:
        raise ModelUnusableError(f"{files.name} has no tokenizer of the Rust kind (tokenizer.json)")
    if "message" in first.modality_config:
        raise ModelUnusableError(f"{files.name} reads chat messages, not plain texts")
    require_complete(first, files, reads_token_states=reads_token_states)
    return first


def _max_tokens(transformer: Any) -> int:
    limit = transformer.max_seq_length
    positions = getattr(transformer.config, "max_position_embeddings", None) or 0
    # Of RoBERTa's 514 positions a text has 512, whatever its tokenizer says.
    readable = positions - first_position(transformer.model) if positions > 0 else None
    # Tokenizers without a limit of their own say 1e30.
    known = [value for value in (limit, readable) if value and value < 1_000_000]
    return int(min(known)) if known else _DEFAULT_MAX_TOKENS


def first_position(model: nn.Module) -> int:
    """The number of a row's first position: RoBERTa and its kin count from `padding_idx` + 1.

    The rule is sentence-transformers' (`Transformer._infer_flatten_position_offset`).
    """
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        table = getattr(module, "position_embeddings", None)
        if isinstance(padding, int) and isinstance(table, nn.Embedding):
            return padding + 1
    return 0


def _pad_id(transformer: Any) -> int:
    return int(transformer.tokenizer.pad_token_id or 0)
