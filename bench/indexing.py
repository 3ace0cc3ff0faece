"""What it takes to index a book, beside the embedder alone on the same texts.

Each round starts a fresh system, indexes the book, then sends the same chunks straight to the
embedder: the two take turns, round by round. Seconds are medians of the rounds. The embedder's
CPU time stands beside them: unlike the seconds, it hardly moves with the machine's other work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
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
    rounds = []
    for _ in range(options.rounds(ROUNDS)):
        with system.running() as running:
            rounds.append(uvloop.run(_round(running, book)))
    return _report(book, rounds)


async def _round(running: system.System, book: tuple[Document, ...]) -> dict[str, Any]:
    async with connected(running.url) as api:
        with PeakMemory(running.pids) as memory:
            cpu = CpuMeter(running.pids)
            started_s = time.perf_counter()
            answer = await api.index(book, chunk_size=CHUNK_SIZE, overlap=OVERLAP)
            index_s = time.perf_counter() - started_s
            index_cpu_s = cpu.spent_s()
        texts = [text for document in book for text in await api.chunks(document.id)]
    assert answer["chunks"] == len(texts)
    cpu = CpuMeter(running.pids)
    embedded = await embed_all(running.embedder_target, texts)
    return {
        "start_s": running.start_s,
        "index_s": index_s,
        "embed_s": embedded.seconds,
        "chunks": len(texts),
        "tokens": embedded.tokens,
        "index_cpu_s": index_cpu_s,
        "embed_cpu_s": cpu.spent_s()["embedder"],
        "rss_before_mib": memory.before_mib,
        "rss_peak_mib": memory.peak_mib,
    }


def _report(book: tuple[Document, ...], rounds: list[dict[str, Any]]) -> Report:
    def median(read: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(read(one) for one in rounds)

    index_s, embed_s = median(lambda one: one["index_s"]), median(lambda one: one["embed_s"])
    start_s = median(lambda one: one["start_s"])
    chunks, tokens = rounds[0]["chunks"], rounds[0]["tokens"]
    ways = (
        ("POST /index", index_s, median(lambda one: one["index_cpu_s"]["embedder"])),
        ("embedder alone", embed_s, median(lambda one: one["embed_cpu_s"])),
    )
    speed = Table(
        f"The Rust book: {len(book)} documents, {chunks:,} chunks, {tokens:,} tokens "
        f"(median of {len(rounds)} rounds)",
        ("", "seconds", "documents/s", "chunks/s", "tokens/s", "CPU s of the embedder"),
        [
            (
                name,
                number(took_s),
                *(number(count / took_s) for count in (len(book), chunks, tokens)),
                number(cpu_s),
            )
            for name, took_s, cpu_s in ways
        ],
    )
    costs = Table(
        "Processes while indexing (MiB and CPU: median; at most: largest of all rounds)",
        ("process", "RSS before", "RSS at most", "CPU s"),
        [
            (
                name,
                number(statistics.median(one["rss_before_mib"][name] for one in rounds)),
                number(max(one["rss_peak_mib"][name] for one in rounds)),
                number(statistics.median(one["index_cpu_s"][name] for one in rounds)),
            )
            for name in PROCESSES
            if name in rounds[0]["index_cpu_s"]
        ],
    )
    start = Table(
        "From the command to ready",
        ("", "seconds"),
        [("an empty data folder, the model exported before", number(start_s))],
    )
    share = Target(
        "speed of /index over the embedder's alone", embed_s / index_s, 0.8, at_most=False
    )
    return Report({"rounds": rounds}, [speed, costs, start], [share])
