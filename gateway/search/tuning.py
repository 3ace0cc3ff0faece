"""How the store finds its way among many vectors."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Quantization = Literal["none", "int8"]


class Tuning(msgspec.Struct, frozen=True, array_like=True):
    """The graph over the dense vectors (HNSW, Malkov and Yashunin 2016), and small copies of them.

    It belongs to the gateway that opens a store, not to the store: a generation is searched by
    it at once, and laid out by it when it is made or optimised.

    from_vectors: vectors from which on a part of the embedded store gets a graph when it is
        optimised; fewer are compared one by one. 0: never. A server decides that by itself.
    m: edges of a vector. ef_construct: candidates for them.
    ef: candidates that a search keeps, at least as many as it asks for.
    quantization: int8 gives what has a graph a copy of a quarter of the size, in memory; it is
        searched for RESCORED times as many as asked for, which the vectors themselves rank.
    """

    from_vectors: int = 50_000
    m: int = 16
    ef_construct: int = 100
    ef: int = 128
    quantization: Quantization = "none"


USUAL: Final = Tuning()

# Of int8's own candidates, beside those asked for: it ranks neighbours that are nearly as near
# in another order.
RESCORED: Final = 2.0
# Share of a vector's values that int8 keeps apart; the outermost are cut.
QUANTILE: Final = 0.99
