"""How the store finds its way among many vectors."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Quantization = Literal["none", "int8"]


class Tuning(msgspec.Struct, frozen=True, array_like=True):
    """Small copies of the dense vectors, and a graph over them (HNSW, Malkov and Yashunin 2016).

    It belongs to the gateway that opens a store, not to the store: a generation is searched by
    it at once, and laid out by it when it is optimised.

    40,000 chunks of 384 dimensions, CPU time of a search and of optimising: each compared with
    all 4.5 ms and none, by int8 copies 0.9 ms and 1.6 s; recall@10 of both 1.000.

    from_vectors: vectors from which on a part of the embedded store gets copies and graph when
        it is optimised. 0: never. A server decides that by itself.
    quantization: int8 makes copies of a quarter of the size, kept in memory. They are searched
        for RESCORED times as many as asked for, which the vectors themselves rank.
    m: edges of a vector in the graph; 0: the embedded store has none, a server its own default.
    ef_construct: candidates for the edges.
    ef: candidates that a search in the graph keeps, at least as many as it asks for.
    """

    from_vectors: int = 20_000
    quantization: Quantization = "int8"
    m: int = 0
    ef_construct: int = 100
    ef: int = 128


USUAL: Final = Tuning()
# int8 alone mistakes the order of near neighbours: recall@10 is .973 at 1.0, 1.000 at 2.0.
RESCORED: Final = 2.0
# Share of all values that int8 tells apart; those outside are cut off.
QUANTILE: Final = 0.99
