"""The words of the store: points, conditions, and the frames to the store's process.

A frame is a 32-bit little-endian length and that many bytes of MessagePack.
This module imports next to nothing of the gateway, so that the store's process stays small.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from gateway.search.tuning import USUAL, Tuning

# The largest frame: 1,024 passages of 8,192 four-byte characters, with metadata of 16 KiB as
# JSON, which are 36 KiB here if all are short floats: 69 MiB. Whoever sends more is broken.
FRAME_BYTES: Final = 128 * 1024 * 1024
LENGTH_BYTES: Final = 4

DENSE: Final = "dense"
SPARSE: Final = "bm25"

IndexKind = Literal["keyword", "integer", "float", "bool", "datetime"]


class Match(msgspec.Struct, frozen=True, array_like=True, tag="match"):
    """The payload field `key` equals `value`, or is a list that holds it."""

    key: str
    value: str | int | bool


class AnyOf(msgspec.Struct, frozen=True, array_like=True, tag="any"):
    """The payload field `key` equals one of `values`, or is a list that holds one."""

    key: str
    values: tuple[str, ...]


class Between(msgspec.Struct, frozen=True, array_like=True, tag="between"):
    """The payload field `key` is a number within the bounds, or is a list that holds one.

    None leaves a bound open; of `gt` and `gte`, and of `lt` and `lte`, one at most is given.
    """

    key: str
    gte: float | None = None
    lte: float | None = None
    gt: float | None = None
    lt: float | None = None


class Times(msgspec.Struct, frozen=True, array_like=True, tag="times"):
    """As `Between`, of times: RFC 3339, with an offset. Compared as instants."""

    key: str
    gte: str | None = None
    lte: str | None = None
    gt: str | None = None
    lt: str | None = None


class Not(msgspec.Struct, frozen=True, array_like=True, tag="not"):
    """What does not meet `condition`."""

    condition: Condition


class And(msgspec.Struct, frozen=True, array_like=True, tag="and"):
    """What meets all of `conditions`; all does if there are none."""

    conditions: tuple[Condition, ...]


class Or(msgspec.Struct, frozen=True, array_like=True, tag="or"):
    """What meets one of `conditions`; nothing does if there are none."""

    conditions: tuple[Condition, ...]


FieldCondition = Match | AnyOf | Between | Times
Condition = Match | AnyOf | Between | Times | Not | And | Or


class Selection(msgspec.Struct, frozen=True, array_like=True):
    """Points that meet all of `must`, are among `ids` (None: any) and not among `without`."""

    must: tuple[Condition, ...] = ()
    ids: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One point. A point without `dense` and `text` is payload alone.

    dense: little-endian float32.
    text: what the sparse vector is made of; never stored by itself, never read back.
    """

    id: str
    payload: dict[str, Any]
    dense: bytes | None = None
    text: str | None = None


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """A chunk found; the fields are those of `types.Hit`."""

    document_id: str
    ordinal: int
    text: str
    metadata: dict[str, Any]
    score: float
    dense: float | None
    sparse: float | None


class Found(msgspec.Struct, frozen=True, array_like=True):
    """Passages best first, and the ids of chunks left out because no record names them."""

    passages: list[Passage]
    stale: list[str]


class Slice(msgspec.Struct, frozen=True, array_like=True):
    """Points in the order of their ids, and the id the next slice begins with."""

    points: list[Point]
    next_id: str | None


class Config(msgspec.Struct, frozen=True, array_like=True):
    """What the points of a generation are made with.

    indexes: payload field → kind of index.
    """

    dimension: int
    k1: float
    b: float
    average_tokens: float
    language: str
    indexes: dict[str, IndexKind]


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Loads the generation at `path`; `create` makes it if absent. The first call, once."""

    path: str
    config: Config
    create: bool = False
    tuning: Tuning = USUAL


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Answers when the process turns."""


class Upsert(msgspec.Struct, frozen=True, array_like=True, tag="upsert"):
    """Writes points, whatever was there."""

    points: list[Point]


class Swap(msgspec.Struct, frozen=True, array_like=True, tag="swap"):
    """Writes one point only if the stored `seq` is this one, or (None) if it is absent."""

    point: Point
    seq: int | None


class Advance(msgspec.Struct, frozen=True, array_like=True, tag="advance"):
    """Writes one point, whose `seq` is this one, if it is absent or its stored `seq` is lower."""

    point: Point
    seq: int


class SetPayload(msgspec.Struct, frozen=True, array_like=True, tag="set"):
    """Overwrites some payload fields of one point that exists."""

    id: str
    payload: dict[str, Any]


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Removes the points selected."""

    selection: Selection


class Optimize(msgspec.Struct, frozen=True, array_like=True, tag="optimize"):
    """Merges and indexes the segments; nothing else is answered until that is done."""


class Query(msgspec.Struct, frozen=True, array_like=True, tag="query"):
    """Nearest chunks by vector, by words, or by both fused.

    vector: little-endian float32; None leaves the dense stage out.
    text: None leaves the sparse stage out.
    prefetch: passages of each stage that enter the fusion, at least `limit`.
    """

    vector: bytes | None
    text: str | None
    selection: Selection
    limit: int
    prefetch: int
    fusion_k: int


class Retrieve(msgspec.Struct, frozen=True, array_like=True, tag="retrieve"):
    """The points with these ids that exist, in any order; `fields` None: all."""

    ids: list[str]
    fields: list[str] | None = None
    vectors: bool = False


class Scroll(msgspec.Struct, frozen=True, array_like=True, tag="scroll"):
    """Points in the order of their ids, from `start_id` on."""

    selection: Selection
    limit: int
    start_id: str | None = None
    fields: list[str] | None = None


class Count(msgspec.Struct, frozen=True, array_like=True, tag="count"):
    """How many points are selected, exactly."""

    selection: Selection


Read = Ping | Query | Retrieve | Scroll | Count
Change = Upsert | Swap | Advance | SetPayload | Delete
Write = Change | Optimize
Call = Open | Read | Write


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One call. `expires_at_s` is on the monotonic clock, which processes share."""

    id: int
    expires_at_s: float
    call: (
        Open
        | Ping
        | Upsert
        | Swap
        | Advance
        | SetPayload
        | Delete
        | Optimize
        | Query
        | Retrieve
        | Scroll
        | Count
    )


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The answer to the request of the same id: a result, or why there is none."""

    id: int
    fault: Literal["", "locked", "expired", "failed"]
    result: msgspec.Raw


def pack(vector: Sequence[float]) -> bytes:
    """A vector as little-endian float32."""
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(vector: bytes) -> list[float]:
    """The numbers of a packed vector."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def frame(body: bytes) -> bytes:
    """`body` with its length before it. Raises ValueError for one over FRAME_BYTES."""
    if len(body) > FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes; at most {FRAME_BYTES} are sent")
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


class Unframer:
    """Cuts a stream of bytes back into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completed. Raises ValueError for one over FRAME_BYTES."""
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + LENGTH_BYTES], "little")
            if length > FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes; at most {FRAME_BYTES} are read")
            end = start + LENGTH_BYTES + length
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[start + LENGTH_BYTES : end]))
            start = end
        if start:
            del buffer[:start]
        return frames
