"""An embedder that speaks OpenAI's form of embeddings over HTTP, called as cheaply as can be."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from bench.embedding import TIMEOUT_S, Answer, Send
from bench.load import post, read_answer

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Refused(Exception):
    """An answer that is no 200."""


@asynccontextmanager
async def over_http(address: tuple[str, int], path: str, model: str) -> AsyncIterator[Send]:
    """Calls of the server at `address`, on connections kept alive, as many as there are calls.

    Vectors come as base64, the cheapest that such servers offer.
    """
    idle: list[Connection] = []
    opened: list[Connection] = []

    async def send(texts: Sequence[str], *, bulk: bool) -> Answer:
        body = {"model": model, "input": list(texts), "encoding_format": "base64"}
        if not idle:
            opened.append(await asyncio.open_connection(*address))
            idle.append(opened[-1])
        reader, writer = connection = idle.pop()
        writer.write(post(address, path, body))
        async with asyncio.timeout(TIMEOUT_S):
            status, content = await read_answer(reader)
        idle.append(connection)
        if status != 200:
            raise Refused(f"{status} {content[:200]!r}")
        return decode(content)

    try:
        yield send
    finally:
        for _, writer in opened:
            writer.close()


def decode(content: bytes) -> Answer:
    """The vectors of a body in OpenAI's form; usage counts characters in some, so no tokens."""
    answer: dict[str, Any] = msgspec.json.decode(content)
    rows = [base64.b64decode(row["embedding"]) for row in answer["data"]]
    return Answer(np.stack([np.frombuffer(row, "<f4") for row in rows]), 0)
