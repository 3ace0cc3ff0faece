"""sentence-transformers, which our workers are measured against, as its users call it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.ceiling import Device, Precision
from bench.vectors import Floats
from encoders.machine import available_cpus


@dataclass(frozen=True, slots=True)
class Setting:
    """How its users run it; it sorts by length itself.

    precision: of the weights. batch: texts. attention: its name in transformers; empty leaves
        the choice to it.
    """

    precision: Precision
    batch: int
    attention: str = ""

    @property
    def name(self) -> str:
        """Such as "fp32, batch 32" or "bf16, batch 256, sdpa"."""
        attention = f", {self.attention}" if self.attention else ""
        return f"{self.precision}, batch {self.batch}{attention}"


@dataclass(frozen=True, slots=True)
class Computed:
    """values: [texts, dimension] or [pairs]; seconds: from the call to the result."""

    values: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class QueryPassages:
    """A query and the passages that are scored against it."""

    query: str
    passages: tuple[str, ...]


def sentence_transformer(
    folder: Path, setting: Setting, device: Device
) -> Callable[[Sequence[str]], Computed]:
    """`SentenceTransformer.encode` of the model in `folder`.

    Raises what it raises, such as ImportError where a package of the attention is missing.
    """
    loading = _loading(setting, device)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), **loading)

    def encode(texts: Sequence[str]) -> Computed:
        started_s = time.perf_counter()
        vectors = model.encode(
            list(texts), batch_size=setting.batch, convert_to_numpy=True, show_progress_bar=False
        )
        return Computed(vectors, time.perf_counter() - started_s)

    return encode


def cross_encoder(
    folder: Path, setting: Setting, device: Device, questions_a_call: int
) -> Callable[[Sequence[QueryPassages]], Computed]:
    """`CrossEncoder.predict` of the model in `folder`, of the pairs of so many questions a call.

    Raises what it raises, as above.
    """
    loading = _loading(setting, device)
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), **loading)

    def predict(questions: Sequence[QueryPassages]) -> Computed:
        started_s = time.perf_counter()
        scores = []
        for start in range(0, len(questions), questions_a_call):
            some = questions[start : start + questions_a_call]
            pairs = [(each.query, passage) for each in some for passage in each.passages]
            scores.append(model.predict(pairs, batch_size=setting.batch, show_progress_bar=False))
        return Computed(np.concatenate(scores), time.perf_counter() - started_s)

    return predict


def save_cross_encoder(folder: Path) -> Callable[[Path], None]:
    """Given the encoder in `folder`: a function that saves it with a head that scores pairs.

    Its one label is freshly drawn, with weights large enough that scores differ visibly: good
    for measuring speed, which does not depend on them, and for nothing else.
    """

    def save(target: Path) -> None:
        import torch
        from sentence_transformers import CrossEncoder
        from transformers import (
            AutoConfig,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )

        _be_quiet()  # that the head is new is known
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(folder, num_labels=1, initializer_range=0.3)
        model = AutoModelForSequenceClassification.from_pretrained(folder, config=config)
        model.save_pretrained(target / "base")
        AutoTokenizer.from_pretrained(folder).save_pretrained(target / "base")
        whole = CrossEncoder(str(target / "base"), device="cpu", local_files_only=True)
        whole.save_pretrained(str(target), create_model_card=False)

    return save


def _loading(setting: Setting, device: Device) -> dict[str, Any]:
    """How either is loaded; its threads are those that our worker takes.

    To be called before sentence_transformers is imported, which reads the environment then.
    """
    if setting.attention:
        os.environ["HF_HUB_OFFLINE"] = "1"  # it would look for a kernel of FlashAttention, long
    import torch

    _be_quiet()
    torch.set_num_threads(available_cpus())
    kwargs: dict[str, Any] = {
        "dtype": {"fp32": torch.float32, "bf16": torch.bfloat16}[setting.precision]
    }
    if setting.attention:
        kwargs["attn_implementation"] = setting.attention
    return {"device": device, "local_files_only": True, "model_kwargs": kwargs}


def _be_quiet() -> None:
    """No progress bars between the tables."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
