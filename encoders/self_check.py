"""Whether a model that was just loaded computes what it should: part of being ready."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from encoders.embedding import EmbeddingModel
from encoders.encoder import EncoderModel, Floats
from encoders.options import Precision
from encoders.reading import PassageReader, Read
from encoders.scoring import PairScorer

# By fingerprint: what SentenceTransformer.encode gives in float32 for SENTENCE, the scores of
# SENTENCE and LONGER for QUESTION by its token embeddings, and what a reader of QUESTION reads in
# SENTENCE. Those of adapters are written by scripts/golden.py.
GOLDEN: Final = Path(__file__).parent / "golden"
SENTENCE: Final = "The quick brown fox jumps over the lazy dog."
QUESTION: Final = "What does the fox jump over?"
# Beside it in a batch, so that SENTENCE is padded.
LONGER: Final = "Ownership is a set of rules that govern how a program manages memory. " * 4

# Least cosine to the float32 vector. bfloat16 has 8 bits: 0.9999 was measured.
_LEAST_COSINE: Final[Mapping[Precision, float]] = MappingProxyType({"fp32": 0.99999, "bf16": 0.999})
# Largest difference of scores in 0..1; bfloat16 was measured within 0.001.
_SCORE_TOLERANCE: Final[Mapping[Precision, float]] = MappingProxyType({"fp32": 1e-3, "bf16": 0.01})
# Largest difference of a logit; these go to about 10, and bfloat16 was measured within 0.09.
_LOGIT_TOLERANCE: Final[Mapping[Precision, float]] = MappingProxyType({"fp32": 0.01, "bf16": 0.5})
_NORM_TOLERANCE: Final = 1e-3


class SelfCheckFailedError(RuntimeError):
    """The model loads, and computes something else than it should. It must not serve."""


def check_embedding(model: EmbeddingModel) -> None:
    """Compares vectors with each other and, for a model that is known, with a stored one.

    Raises SelfCheckFailedError.
    """
    short, long = model.tokenize([SENTENCE, LONGER], "passage")
    alone = model.embed([short])
    together = model.embed([short, long])
    _require_shape(model, alone, together)
    least = _LEAST_COSINE[model.precision]
    if _cosine(alone[0], together[0]) < least:
        raise SelfCheckFailedError("a text's vector depends on what else is in its batch")
    if _cosine(together[0], together[1]) > 0.99:  # these two have nothing in common
        raise SelfCheckFailedError("texts that differ have the same vector")
    stored = GOLDEN / f"{model.identity.fingerprint}.npy"
    if stored.is_file():
        cosine = _cosine(alone[0], np.load(stored, allow_pickle=False))
        if cosine < least:
            raise SelfCheckFailedError(f"cosine to the stored vector is {cosine:.5f}")


def check_scoring(scorer: PairScorer) -> None:
    """Compares scores with each other and, for a model that is known, with stored ones.

    Raises SelfCheckFailedError.
    """
    pairs = scorer.prepare(QUESTION, [SENTENCE, LONGER]).pairs
    together = np.array(scorer.score(pairs), np.float32)
    alone = np.array(scorer.score(scorer.prepare(QUESTION, [SENTENCE]).pairs), np.float32)
    if together.shape != (2,) or not ((together >= 0) & (together <= 1)).all():
        raise SelfCheckFailedError("scores are not in 0..1, one a pair")
    tolerance = _SCORE_TOLERANCE[scorer.precision]
    if abs(alone[0] - together[0]) > tolerance:
        raise SelfCheckFailedError("a pair's score depends on what else is in its batch")
    _require_stored(scorer, together, tolerance, "a score")


def check_reading(reader: PassageReader) -> None:
    """Compares the readings of a passage alone, beside a longer one and, for a reader that is
    known, as stored.

    Raises SelfCheckFailedError.
    """
    short, long = reader.prepare(QUESTION, [SENTENCE, LONGER])
    (alone,), (together, _) = reader.read([short]), reader.read([short, long])
    tolerance = _LOGIT_TOLERANCE[reader.precision]
    if np.abs(logits_of(alone) - logits_of(together)).max() > tolerance:
        raise SelfCheckFailedError("what is read in a passage depends on what else is in its batch")
    if np.ptp(alone.begins) == 0 or np.ptp(alone.ends) == 0:
        raise SelfCheckFailedError("every token of a passage is the same to the reader")
    _require_stored(reader, logits_of(alone), tolerance, "a logit")


def logits_of(read: Read) -> Floats:
    """All of a reading in one row, as it is stored: float32 [2 * passage tokens + 1]."""
    return np.concatenate((read.begins, read.ends, [read.nothing]), dtype=np.float32)


def _require_stored(model: EncoderModel, found: Floats, tolerance: float, what: str) -> None:
    """Compares with what is stored for a model that is known."""
    stored = GOLDEN / f"{model.identity.fingerprint}.npy"
    if stored.is_file():
        error = float(np.abs(found - np.load(stored, allow_pickle=False)).max())
        if not error <= tolerance:
            raise SelfCheckFailedError(f"{what} is {error:.4f} off the stored one")


def _require_shape(model: EmbeddingModel, alone: Floats, together: Floats) -> None:
    dimension = model.identity.dimension
    if alone.shape != (1, dimension) or together.shape != (2, dimension):
        raise SelfCheckFailedError(f"vectors are not {dimension} numbers each")
    norms = np.linalg.norm(together, axis=1)
    if not (norms > 0).all():
        raise SelfCheckFailedError("a vector is zero")
    if model.normalised and not np.allclose(norms, 1, atol=_NORM_TOLERANCE):
        raise SelfCheckFailedError("vectors are not of length 1")


def _cosine(one: Floats, other: Floats) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
