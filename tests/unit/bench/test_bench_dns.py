"""The name server of the replicas' measurement, without gRPC."""

from __future__ import annotations

import socket
import struct

import pytest

from bench.dns import answer, serving

ZONE = {"embedder.test": ("127.0.0.1", "127.0.0.2"), "empty.test": ()}


def query(name: str, kind: int = 1, identity: int = 7) -> bytes:
    """A query as a resolver writes it: recursion desired, one question."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + kind.to_bytes(2)
        + b"\0\1"
    )


def read(message: bytes, asked: bytes) -> tuple[int, list[str]]:
    """Response code and addresses; the rest must be as in the question."""
    identity, flags, questions, answers, authorities, more = struct.unpack_from("!6H", message)
    assert (identity, questions, authorities, more) == (7, 1, 0, 0)
    assert flags & 0x8000  # a response
    assert message[12 : len(asked)] == asked[12:]
    records = message[len(asked) :]
    assert len(records) == 16 * answers
    addresses = []
    for start in range(0, len(records), 16):
        name, kind, family, ttl_s, length = struct.unpack_from("!3HIH", records, start)
        assert (name, kind, family, ttl_s, length) == (0xC00C, 1, 1, 0, 4)
        addresses.append(socket.inet_ntoa(records[start + 12 : start + 16]))
    return flags & 0xF, addresses


@pytest.mark.parametrize("name", ["embedder.test", "Embedder.TEST"])
def test_a_name_has_all_its_addresses(name: str) -> None:
    asked = query(name)
    assert read(answer(asked, ZONE), asked) == (0, ["127.0.0.1", "127.0.0.2"])


def test_a_name_without_addresses_of_that_type_exists_all_the_same() -> None:
    for asked in (query("empty.test"), query("embedder.test", kind=28)):  # 28: AAAA
        assert read(answer(asked, ZONE), asked) == (0, [])


def test_a_name_that_is_not_there_is_said_not_to_exist() -> None:
    asked = query("embedder.test.cluster.local")
    assert read(answer(asked, ZONE), asked) == (3, [])


def test_what_follows_the_question_is_ignored() -> None:
    asked = query("embedder.test")
    edns = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    assert read(answer(asked + edns, ZONE), asked)[1] == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize(
    "wrong", [b"", query("embedder.test")[:-2], query("embedder.test")[:20], b"\0" * 12]
)
def test_nonsense_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|question|name"):
        answer(wrong, ZONE)


def test_answers_follow_the_zone() -> None:
    asked = query("embedder.test")
    with serving() as names, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", names.port))
        assert names.target("embedder.test", 50051).endswith(f":{names.port}/embedder.test:50051")
        for addresses in ((), ("127.0.0.3",), ("127.0.0.3", "127.0.0.4")):
            names.zone["embedder.test"] = addresses
            client.send(asked)
            assert read(client.recv(512), asked) == (0, list(addresses))
