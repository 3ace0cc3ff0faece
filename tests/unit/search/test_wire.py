"""Frames between the gateway and the store's process."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.schemas import MAX_METADATA_BYTES
from gateway.search import wire


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(1, 50))
def test_frames_survive_any_cutting_of_the_stream(bodies: list[bytes], step: int) -> None:
    stream = b"".join(wire.frame(body) for body in bodies)
    unframer = wire.Unframer()
    received: list[bytes] = []
    for at in range(0, len(stream), step):
        received += unframer.feed(stream[at : at + step])
    assert received == bodies


def test_a_frame_too_large_is_neither_sent_nor_read() -> None:
    with pytest.raises(ValueError, match="at most"):
        wire.frame(bytes(wire.FRAME_BYTES + 1))
    with pytest.raises(ValueError, match="at most"):
        wire.Unframer().feed(b"\xff\xff\xff\xff")


def test_the_largest_document_fits_a_frame() -> None:
    point = wire.Point("id", {"text": "\U0001f600" * 2_000_000})
    request = wire.Request(1, 0.0, wire.Upsert([point]))
    assert len(wire.frame(msgspec.msgpack.encode(request))) < wire.FRAME_BYTES


def test_the_largest_answer_fits_a_frame() -> None:
    metadata = {"n": [1.5] * 4090}
    assert len(msgspec.json.encode(metadata)) > 0.99 * MAX_METADATA_BYTES
    passage = wire.Passage("x" * 256, 1, "\U0001f600" * 8192, metadata, 1.0, 1.0, 1.0)
    reply = (1, "", wire.Found([passage] * 1024, []))
    assert len(wire.frame(msgspec.msgpack.encode(reply))) < wire.FRAME_BYTES


@pytest.mark.parametrize(
    "call",
    [
        wire.Ping(),
        wire.Swap(wire.Point("id", {"a": [1, 2.5, None, True, "x"]}), None),
        wire.Swap(wire.Point("id", {}), 3),
        wire.Delete(wire.Selection((wire.Match("a", True), wire.Between("b", 1.0, None)), ("x",))),
        wire.Query(b"\x00\x00\x80\x3f", None, wire.Selection(), 5, 50, 10),
        wire.Retrieve(["a"], ["text"], vectors=True),
    ],
)
def test_calls_survive_the_wire(call: wire.Call) -> None:
    body = msgspec.msgpack.encode(wire.Request(7, 1.5, call))
    request = msgspec.msgpack.decode(body, type=wire.Request)
    assert request == wire.Request(7, 1.5, call)
    assert type(request.call) is type(call)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_vectors_survive_packing(vector: list[float]) -> None:
    assert wire.unpack(wire.pack(vector)) == vector
