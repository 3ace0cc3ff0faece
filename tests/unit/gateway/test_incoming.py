"""The body of POST /index: checked whole, decoded document by document, held no longer."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any

import pytest

from gateway.decoding import MAX_EXPLAINED_BYTES
from gateway.incoming import Incoming, read_documents
from gateway.problems import HttpError, HttpReason
from gateway.splitter import MAX_STRUCTURE_BYTES

# White space in the array, as much as makes a body a large one.
LARGE = b"[" + b" " * MAX_EXPLAINED_BYTES
SMALL = b"["
MANY = b",".join(b'{"text":"%d"}' % n for n in range(1001))


def parts(body: bytes, size: int = 10_000) -> deque[bytes]:
    return deque(body[start : start + size] for start in range(0, len(body), size))


async def read(body: bytes) -> Incoming:
    return await read_documents(parts(body))


async def test_documents_come_as_they_were_sent_each_once() -> None:
    sent = [
        {"id": f"d/{n}", "text": f'text [{n}] \\ " 語' * n, "metadata": {"n": [n, {"a": "}"}]}}
        for n in range(1, 200)
    ]
    body = json.dumps({"documents": sent, "chunk_size": 100, "collection": "c"}, indent=1).encode()
    incoming = await read(body)
    assert (incoming.ask.chunk_size, incoming.ask.overlap) == (100, None)
    assert incoming.ask.collection == "c"
    documents = incoming.documents
    assert len(documents) == len(sent)
    assert list(documents.characters) == [len(str(one["text"])) for one in sent]
    assert [{"id": d.id, "text": d.text, "metadata": d.metadata} for d in documents] == sent
    assert list(documents) == []


async def test_the_parts_of_the_body_are_let_go_of() -> None:
    body = parts(json.dumps({"documents": [{"text": "x" * 50_000}] * 1}).encode())
    incoming = await read_documents(body)
    assert not body
    (document,) = incoming.documents
    assert document.text == "x" * 50_000


@pytest.mark.parametrize("padding", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"documents": [{"text": "x"}, {"text": 1}]}', "documents[1].text"),
        (b'{"documents": [{"text": "x", "no": 1}]}', "documents[0].no"),
        (b'{"documents": [{"text": "x"}, {"text": "\\u0000"}]}', "documents[1].text"),
        (b'{"documents": [{"text": "x", "metadata": {"a": [[[[[]]]]]}}]}', "documents[0].metadata"),
        (b'{"documents": [{"text": "x"}, {"id": "a", "text": "x"}, {"text": "x"}]}',
         "documents[2].text"),
        (b'{"documents": [{"text": "x"}, 7]}', "documents[1]"),
        (b'{"documents": [], "chunk_size": 100}', "documents"),
        (b'{"documents": {"text": "x", "metadata": []}}', "documents"),
        (b'{"documents": [{"text": "x"}], "chunk_size": 1}', "chunk_size"),
        (b'{"documents": [{"text": "x"}], "no": {}}', "no"),
        (b'{"chunk_size": 100}', "documents"),
        (b'{"documents": [%s]}' % MANY, "documents"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_by_its_field(body: bytes, field: str, padding: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        await read(body.replace(b"[", padding, 1))
    assert caught.value.reason.value == "INVALID_ARGUMENT"
    told = [fault.field for fault in caught.value.errors]
    # Of a large body some faults are found before it is known which field they are in.
    assert told[0] == field or (told == [""] and padding == LARGE and b": {" in body)


@pytest.mark.parametrize("padding", [SMALL, LARGE])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"documents": [{"text": "x"}',
        b'{"documents": [{"text": "x"}]} 1',
        b'{"documents": [{"text": "x"},]}',
        b'{"documents": [{"text": "x"} {"text": "y"}]}',
        b'{"documents": [{"text": "x]}',
        b'{"documents": [{"text": "\xff"}]}',
        b'{"documents": [{"text": "x", "metadata": {"a": %s}}]}' % (b"[" * 30_000 + b"]" * 30_000),
    ],
)
async def test_what_is_not_json_is_refused(body: bytes, padding: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        await read(body.replace(b"[", padding, 1))
    assert caught.value.reason is HttpReason.MALFORMED_JSON


def hostile(name: str) -> bytes:
    """Bodies of 8 MiB that are small values and nothing else."""
    size = 8 << 20
    filler = {
        "tiny documents": b'{"text":"a"},',
        "no documents": b"{},",
        "numbers": b'{"text":"x","metadata":{"a":[' + b"1," * (size // 2),
        "deep": b'{"text":"x","metadata":{"a":' + b"[" * size,
        "objects": b'{"text":"x","metadata":{"a":[' + b"{}," * (size // 3),
        "strings": b'{"text":"x","metadata":{"a":[' + b'"",' * (size // 3),
        "keys": b'{"text":"x",' + b'"a":1,' * (size // 6),
        "arrays": b"[],",
        "white space": b" ",
    }[name]  # fmt: skip
    return b'{"documents":[' + filler * (size // len(filler))


@pytest.mark.parametrize(
    "name",
    ["tiny documents", "no documents", "numbers", "deep", "objects", "strings", "keys", "arrays",
     "white space"],
)  # fmt: skip
async def test_a_hostile_body_is_refused_before_it_becomes_objects(name: str) -> None:
    body = hostile(name)
    before = sys.getallocatedblocks()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sys.getallocatedblocks() - before)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    with pytest.raises(HttpError):
        await read_documents(parts(body, 65_536))
    watching.cancel()
    # A thousand documents, or the structure of one: not the millions of values that came.
    assert most < 4 * MAX_STRUCTURE_BYTES


async def test_others_have_their_turn_while_a_large_body_is_read() -> None:
    dense = {"a": [n % 10 for n in range(8_000)]}
    document: dict[str, Any] = {"text": "word " * 100, "metadata": dense}
    documents = [document | {"id": str(n)} for n in range(300)]
    body = parts(json.dumps({"documents": documents}).encode(), 65_536)
    turns: list[float] = []

    async def watch() -> None:
        while True:
            turns.append(time.perf_counter())
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    incoming = await read_documents(body)
    watching.cancel()
    assert len(incoming.documents) == 300
    # One in every few documents: it is not the number of turns that matters.
    assert len(turns) > 30
