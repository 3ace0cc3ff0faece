"""What it takes to index a book, beside the embedder alone on the same texts.

Each round starts a fresh system and lets the two take turns: alone, indexing, alone. What
indexing reaches of the embedder's own speed is measured against the mean of both neighbours.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

import uvloop

from bench import system
from bench.api import connected
from bench.datasets import Document, rust_book
from bench.embedding import embed_all
from bench.options import Options
from bench.processes import CpuMeter, PeakMemory
from bench.report import Report, Table, Target, number

ROUNDS: Final = 3
CHUNK_SIZE: Final = 512
OVERLAP: Final = 50
# The process names in the order of the tables.
PROCESSES: Final = ("gateway", "store", "embedder", "reranker", "generator")


def run(options: Options) -> Report:
    """Indexes the Rust book in fresh systems."""
    book = rust_book(options.data)
    texts = _chunk_texts(book)
    rounds = []
    for _ in range(options.rounds(ROUNDS)):
        with system.running() as running:
            rounds.append(uvloop.run(_round(running, book, texts)))
    return _report(book, rounds)


def _chunk_texts(book: tuple[Document, ...]) -> list[str]:
    """The texts that the gateway cuts the book into, by asking it."""
    with system.running() as running:
        return uvloop.run(_index_and_read(running, book))


async def _index_and_read(running: system.System, book: tuple[Document, ...]) -> list[str]:
    async with connected(running.url) as api:
        await api.index(book, chunk_size=CHUNK_SIZE, overlap=OVERLAP)
        return [text for document in book for text in await api.chunks(document.id)]


async def _round(
    running: system.System, book: tuple[Document, ...], texts: list[str]
) -> dict[str, Any]:
    before_s, tokens = await embed_all(running.embedder_target, texts)
    async with connected(running.url) as api:
        with PeakMemory(running.pids) as memory:
            cpu = CpuMeter(running.pids)
            started_s = time.perf_counter()
            answer = await api.index(book, chunk_size=CHUNK_SIZE, overlap=OVERLAP)
            index_s = time.perf_counter() - started_s
            cpu_s = cpu.spent_s()
    after_s, _ = await embed_all(running.embedder_target, texts)
    assert answer["chunks"] == len(texts)
    return {
        "start_s": running.start_s,
        "index_s": index_s,
        "embed_s": (before_s + after_s) / 2,
        "chunks": answer["chunks"],
        "tokens": tokens,
        "share_of_embedder": (before_s + after_s) / 2 / index_s,
        "cpu_s": cpu_s,
        "rss_before_mib": memory.before_mib,
        "rss_peak_mib": memory.peak_mib,
    }


def _report(book: tuple[Document, ...], rounds: list[dict[str, Any]]) -> Report:
    def median(key: str) -> float:
        return float(statistics.median(one[key] for one in rounds))

    chunks, tokens = rounds[0]["chunks"], rounds[0]["tokens"]
    speed = Table(
        f"The Rust book: {len(book)} documents, {chunks:,} chunks, {tokens:,} tokens "
        f"(median of {len(rounds)} rounds)",
        ("", "seconds", "documents/s", "chunks/s", "tokens/s"),
        [
            (name, number(took_s), *(number(n / took_s) for n in (len(book), chunks, tokens)))
            for name, took_s in (
                ("POST /index", median("index_s")),
                ("embedder alone", median("embed_s")),
            )
        ],
    )
    costs = Table(
        "Processes while indexing (RSS in MiB: median before, largest while; CPU: median)",
        ("process", "RSS before", "RSS at most", "CPU s"),
        [
            (
                name,
                number(statistics.median(one["rss_before_mib"][name] for one in rounds)),
                number(max(one["rss_peak_mib"][name] for one in rounds)),
                number(statistics.median(one["cpu_s"][name] for one in rounds)),
            )
            for name in PROCESSES
            if name in rounds[0]["cpu_s"]
        ],
    )
    start = Table(
        "From the command to ready",
        ("", "seconds"),
        [("model in the page cache, empty data folder", number(median("start_s")))],
    )
    share = Target(
        "speed of /index over the embedder's alone", median("share_of_embedder"), 0.8, at_most=False
    )
    return Report({"rounds": rounds}, [speed, costs, start], [share])
