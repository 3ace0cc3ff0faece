"""Small models made on the spot, and one cache of exports for a whole test run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from encoders.location import locate

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

TEXTS = [
    "How does Rust ensure memory safety?",
    "a",
    "Ownership is a set of rules that govern how a Rust program manages memory.",
    "Größe, naïveté, 東京, 🦀 and other things that are not ASCII",
    "borrow checker " * 40,
    "word " * 600,  # longer than the model reads
]


@cache
def exports() -> Path:
    """A cache folder of this run's own: an export takes 7 s, and each is made once."""
    folder = Path(tempfile.mkdtemp(prefix="exports-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def tiny_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A sentence-transformers model with prefixes that its pooling leaves out, not normalised."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    _save(BertModel(BertConfig(**_SIZES)), folder / "base")
    transformer = Transformer(str(folder / "base"), max_seq_length=48)
    pooling = Pooling(32, pooling_mode="mean", include_prompt=False)
    model = SentenceTransformer(
        modules=[transformer, pooling],
        prompts={"query": "the question is: ", "document": "passage: "},
        device="cpu",
    )
    model.save_pretrained(str(folder / "tiny-encoder"), create_model_card=False)
    return folder / "tiny-encoder"


def tiny_cross_encoder(folder: Path, *, labels: int = 1, **saved: Any) -> Path:
    """A cross-encoder as sentence-transformers saves one, its weights random.

    saved: what else it is made with, such as its prompts.
    """
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    # Weights far larger than usual, so that the scores of random ones differ visibly.
    config = BertConfig(**_SIZES, num_labels=labels, initializer_range=0.3)
    model = BertForSequenceClassification(config)
    _save(model, folder / "base")
    base = str(folder / "base")
    cross_encoder = CrossEncoder(base, device="cpu", local_files_only=True, **saved)
    cross_encoder.save_pretrained(str(folder / "tiny-cross-encoder"), create_model_card=False)
    return folder / "tiny-cross-encoder"


_SIZES = {
    "vocab_size": 30522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def _save(model: object, folder: Path) -> None:
    from transformers import AutoTokenizer

    model.save_pretrained(folder)  # type: ignore[attr-defined]
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM).folder, model_max_length=64)
    tokenizer.save_pretrained(folder)


def tiny_transformer(folder: Path, family: str) -> Path:
    """A model with mean pooling: "roberta" counts positions from 2, "modernbert" has windows."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

    torch.manual_seed(2)
    sizes = _SIZES | {"initializer_range": 0.3}
    if family == "roberta":
        _save(RobertaModel(RobertaConfig(**sizes, pad_token_id=1)), folder / "base")
    else:
        windows = {"local_attention": 8, "global_attn_every_n_layers": 2, "initializer_range": 0.3}
        config = ModernBertConfig(**_SIZES | windows | {"pad_token_id": 0})
        _save(ModernBertModel(config), folder / "base")
    transformer = Transformer(str(folder / "base"), max_seq_length=48)
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean")], device="cpu")
    model.save_pretrained(str(folder / f"tiny-{family}"), create_model_card=False)
    return folder / f"tiny-{family}"
