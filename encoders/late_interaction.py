"""Scores by late interaction: each token of the query finds the passage token that fits best.

ColBERT's MaxSim (Khattab and Zaharia, 2020) over the last hidden states of an embedding
model, as it is or with an adapter that was trained for it, without ColBERT's projection:

    s(q, p) = mean over query tokens i of max over passage tokens j of cos(q_i, p_j)
    score = (1 + s) / 2

A model that was trained for it may say how much each token of the query counts: the mean is
weighted then. Special tokens take no part on either side. The score is in 0..1 and grows with s.

MaxSim runs on the host, whatever ran the model: from a GPU every token's state is copied
(100 MB for 65,536 tokens of 384 floats), so there the copy and numpy take most of the time,
and a cross-encoder, of which one number a pair comes back, is the better choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np

from encoders.encoder import Floats
from encoders.scoring import Pair, PairScorer, Prepared, Query
from encoders.tokenizing import BoolArray

# Of a token in a query: all of them at 0 would have no mean.
_LEAST_WEIGHT: Final = np.float32(1e-6)


class LateInteraction(PairScorer):
    """Pairs to scores. The query's states are computed once, with the first of its pairs."""

    engine = "late_interaction"

    @property
    def description(self) -> str:
        """Such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads, late interaction"."""
        return f"{super().description}, late interaction"

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Tokenises. A query that must be cut counts as every passage cut. Thread-safe."""
        asked, *rows = self._encoder.tokenizer.encode([query, *passages])
        shared = Query(asked)
        return Prepared(
            pairs=[Pair(row, shared) for row in rows],
            truncated=[index for index, row in enumerate(rows) if row.truncated or asked.truncated],
            tokens=len(asked) + sum(len(row) for row in rows),
            query_truncated=asked.truncated,
        )

    def score(self, batch: Sequence[Pair]) -> list[float]:
        """One padded batch of pairs, of any queries: scores in 0..1."""
        states = self._encoder.run([pair.tokens for pair in batch])
        content = np.zeros(states.shape[:2], np.bool_)
        for row, pair in enumerate(batch):
            content[row, : len(pair.tokens)] = pair.tokens.content
        scores = np.empty(len(batch), np.float32)
        # After the passages: of the batches of one call that begin together on several
        # streams, the first to get here computes the query, and the others find it.
        for query, asked in self._query_states({pair.query for pair in batch}).items():
            rows = [row for row, pair in enumerate(batch) if pair.query is query]
            chosen = slice(None) if len(rows) == len(batch) else rows  # a slice copies nothing
            scores[chosen] = max_sim(*self._weighed(asked), states[chosen], content[chosen])
        if not np.isfinite(scores).all():
            raise FloatingPointError("the model gave states that are not finite")
        return scores.tolist()

    def _weighed(self, query: Floats) -> tuple[Floats, Floats | None]:
        """The query's directions, and how much each counts, if the model says so.

        Where it does, both lie side by side. In place of the weights stand zeros then, so that
        those of passages, which lie there too, take no part, and nothing large is copied.
        """
        dimension = self.identity.dimension
        if query.shape[1] == dimension:
            return query, None
        directions = query.copy()
        directions[:, dimension:] = 0
        return directions, np.maximum(query[:, dimension], _LEAST_WEIGHT)

    def _query_states(self, queries: set[Query]) -> dict[Query, Floats]:
        """Of each query, [content tokens, dimension]; those that nobody has computed yet are
        one padded run.
        """
        found: dict[Query, Floats] = {}
        with ExitStack() as held:
            # In one order, so that no two threads wait for each other.
            for query in sorted(queries, key=id):
                held.enter_context(query.lock)
            missing = [query for query in queries if query.states is None]
            if missing:
                states = self._encoder.run([query.tokens for query in missing])
                for query, rows in zip(missing, states, strict=True):
                    query.states = rows[: len(query.tokens)][query.tokens.content]
            for query in queries:
                if query.states is not None:
                    found[query] = query.states
        return found


def max_sim(query: Floats, weights: Floats | None, passages: Floats, content: BoolArray) -> Floats:
    """(1 + MaxSim) / 2, per passage: float32 [n].

    query: [query tokens, dimension], each row of length 1, or of that and zeros behind.
    weights: [query tokens], above 0; None counts all alike.
    passages: [n, tokens, dimension], each token's row of length 1 where the query has no zeros.
    content: [n, tokens], True where a token counts.

    0 where either side has no token that counts.
    """
    count, length, dimension = passages.shape
    if not len(query):
        return np.zeros(count, np.float32)
    cosines = (passages.reshape(-1, dimension) @ query.T).reshape(count, length, len(query))
    cosines[~content] = -1.0
    scores = (1.0 + np.average(cosines.max(axis=1), axis=1, weights=weights)) / 2
    clipped: Floats = np.clip(scores, 0.0, 1.0).astype(np.float32)
    return clipped
