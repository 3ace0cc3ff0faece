"""Writes what the adapters in encoders/trained give for the texts of the self-check.

In float32, by torch, into encoders/golden: a worker whose backend gives something else does not
serve. To be run after an adapter has changed; the file of the one it replaces goes by hand.

    .venv/bin/python scripts/golden.py
"""

from __future__ import annotations

import numpy as np

from encoders.location import locate, trained
from encoders.options import Runtime
from encoders.reading import load_passage_reader
from encoders.scoring import load_pair_scorer
from encoders.self_check import GOLDEN, LONGER, QUESTION, SENTENCE, logits_of

_REFERENCE = Runtime("torch", "fp32", threads=1)


def main() -> None:
    """The command line."""
    for name in trained():
        fingerprint, found = _reads(name) if _is_reader(name) else _scores(name)
        np.save(GOLDEN / f"{fingerprint}.npy", found)
        print(f"{name}: encoders/golden/{fingerprint}.npy")


def _is_reader(name: str) -> bool:
    adapter = locate(name).adapter
    return adapter is not None and adapter.kind == "reader"


def _reads(name: str) -> tuple[str, np.ndarray]:
    reader = load_passage_reader(name, _REFERENCE)
    (read,) = reader.read(reader.prepare(QUESTION, [SENTENCE]))
    return reader.identity.fingerprint, logits_of(read)


def _scores(name: str) -> tuple[str, np.ndarray]:
    scorer = load_pair_scorer(name, _REFERENCE)
    scores = scorer.score(scorer.prepare(QUESTION, [SENTENCE, LONGER]).pairs)
    return scorer.identity.fingerprint, np.array(scores, np.float32)


if __name__ == "__main__":
    main()
