"""What bodies of POST /index do to the gateway's memory, and to everybody else's requests.

A gigabyte of documents in many requests, four at a time, with an embedder that costs nothing:
the gateway's resident memory must end where it was after the first part. Then bodies that are
made to be large in memory. Meanwhile /health/live is asked over and over: it needs nothing but
a turn of the event loop, so that the time it takes is about how long the loop was held. The
client shares the machine's cores, and its interpreter with the embedder: times are upper bounds.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import string
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import uvloop

from bench import free_embedder, worker
from bench.load import read_answer
from bench.memory import medians
from bench.options import Options
from bench.processes import PeakMemory, rss_mib
from bench.report import Report, Table, Target, number
from bench.stats import percentile

MEBIBYTE: Final = 1 << 20
TOTAL_BYTES: Final = 1 << 30
QUICK_BYTES: Final = 96 * MEBIBYTE
DOCUMENT_CHARACTERS: Final = 100_000
DOCUMENTS: Final = 80  # in a body: 8 MB
CLIENTS: Final = 4
# The largest there are: what is measured is the gateway, not the store.
CHUNKING: Final = {"chunk_size": 8192, "overlap": 0}
SEED: Final = 4
PARTS: Final = 5
PAUSE_S: Final = 0.005
IDLE_S: Final = 3.0
MOST_GROWTH: Final = 1.15
MOST_PAUSE_MS: Final = 50.0
# A body of MAX_BODY_BYTES as it came, and as much again for what is made of it.
MOST_HOSTILE_MIB: Final = 2 * 32.0
HOSTILE_BYTES: Final = 30 * MEBIBYTE


@dataclass(slots=True)
class Watched:
    """rss_mib: over time; pauses_ms: of the event loop, about."""

    rss_mib: list[float] = field(default_factory=list)
    pauses_ms: list[float] = field(default_factory=list)

    def at(self, percent: float) -> float:
        """A percentile of the pauses, ms."""
        return percentile(self.pauses_ms, percent)

    def figures(self) -> dict[str, float]:
        """Median, 99th percentile and longest pause, ms."""
        return {"p50": self.at(50), "p99": self.at(99), "longest": self.at(100)}

    def pauses(self) -> tuple[str, ...]:
        """The same for a table."""
        return tuple(number(value) for value in self.figures().values())


@dataclass(frozen=True, slots=True)
class Sent:
    """The load: bytes of documents, and the statuses of the answers."""

    total: int
    took_s: float
    statuses: list[int]


@dataclass(frozen=True, slots=True)
class Hostile:
    """One body, and what it did. grown_mib: resident memory at its peak less that before."""

    name: str
    bytes_: int
    status: int
    took_s: float
    grown_mib: float
    watched: Watched


def run(options: Options) -> Report:
    """Sends TOTAL_BYTES, then the hostile bodies; QUICK_BYTES when quick."""
    total = QUICK_BYTES if options.quick else TOTAL_BYTES
    with (
        free_embedder.serving() as target,
        worker.running(
            "gateway", embedder_target=target, server_host=worker.LOOPBACK, server_port=0
        ) as gateway,
    ):
        port = urlsplit(gateway.metrics_url).port
        assert port is not None
        address = (worker.LOOPBACK, port)
        ready_mib = rss_mib(gateway.pid)
        with _watching(gateway.pid, address) as idle:
            time.sleep(IDLE_S)
        with _watching(gateway.pid, address) as loaded:
            started_s = time.perf_counter()
            statuses = uvloop.run(_send(address, total))
            sent = Sent(total, time.perf_counter() - started_s, statuses)
        hostile = [_one_hostile(gateway, address, name) for name in HOSTILE]
    return _report(sent, ready_mib, idle, loaded, hostile)


@contextmanager
def _watching(pid: int, address: tuple[str, int]) -> Iterator[Watched]:
    """Looks at memory and event loop from a thread until the block ends."""
    watched = Watched()
    done = threading.Event()

    def watch() -> None:
        connection = http.client.HTTPConnection(*address, timeout=60)
        while not done.wait(PAUSE_S):
            asked_s = time.perf_counter()
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            watched.pauses_ms.append((time.perf_counter() - asked_s) * 1000)
            watched.rss_mib.append(rss_mib(pid))
        connection.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        done.set()
        thread.join()


async def _send(address: tuple[str, int], total: int) -> list[int]:
    """Sends bodies of about `total` bytes together; the statuses of the answers."""
    rng = random.Random(SEED)
    words = [
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 10))) for _ in range(9999)
    ]
    text = " ".join(rng.choices(words, k=1_000_000)).encode()
    each = max(1, round(total / CLIENTS / (DOCUMENTS * DOCUMENT_CHARACTERS)))

    async def client(name: int) -> list[int]:
        reader, writer = await asyncio.open_connection(*address, limit=16 * MEBIBYTE)
        statuses = []
        for _ in range(each):
            writer.write(_request(address, _body(text, name, rng)))
            await writer.drain()
            status, _ = await read_answer(reader)
            statuses.append(status)
        writer.close()
        return statuses

    found = await asyncio.gather(*(client(name) for name in range(CLIENTS)))
    return [status for one in found for status in one]


def _body(text: bytes, client: int, rng: random.Random) -> bytes:
    """Documents that replace those of the client's body before: the store stays as it is."""
    documents = []
    for number_ in range(DOCUMENTS):
        start = rng.randrange(len(text) - DOCUMENT_CHARACTERS)
        part = text[start : start + DOCUMENT_CHARACTERS]
        documents.append(b'{"id":"%d/%d","text":"%s"}' % (client, number_, part))
    chunking = b",".join(b'"%s":%d' % (name.encode(), size) for name, size in CHUNKING.items())
    return b'{"documents":[%s],%s}' % (b",".join(documents), chunking)


def _request(address: tuple[str, int], body: bytes) -> bytes:
    head = (
        f"POST /index HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _filled(before: bytes, filler: bytes, after: bytes = b"") -> bytes:
    """A body of HOSTILE_BYTES; not JSON where `after` is left out."""
    return before + filler * ((HOSTILE_BYTES - len(before)) // len(filler)) + after


def _dense() -> bytes:
    metadata = b'{"a":[%s]}' % b",".join([b"1"] * 8000)
    documents = (
        b'{"id":"%d","text":"%s","metadata":%s}' % (n, b"word " * 2000, metadata)
        for n in range(1000)
    )
    return b'{"documents":[%s],"chunk_size":8192}' % b",".join(documents)


# What it is made of → the body. Most end in the middle: that is found last.
HOSTILE: Final[dict[str, Callable[[], bytes]]] = {
    "tiny documents": lambda: _filled(b'{"documents":[', b'{"text":"a"},'),
    "numbers in metadata": lambda: _filled(b'{"documents":[{"text":"a","metadata":{"a":[', b"1,"),
    "deep metadata": lambda: _filled(b'{"documents":[{"text":"a","metadata":{"a":', b"["),
    "empty objects": lambda: _filled(b'{"documents":[{"text":"a","metadata":{"a":[', b"{},"),
    "escapes": lambda: _filled(b'{"documents":[{"text":"', b"\\u0001", b'"}]}'),
    "a field of 30 MiB": lambda: _filled(b'{"documents":[],"collection":"', b"a", b'"}'),
    # Allowed, and the most that is: 1000 documents with all the metadata they may have.
    "dense metadata": _dense,
}


def _one_hostile(gateway: worker.Worker, address: tuple[str, int], name: str) -> Hostile:
    body = HOSTILE[name]()
    request = _request(address, body)

    async def send() -> int:
        reader, writer = await asyncio.open_connection(*address, limit=16 * MEBIBYTE)
        writer.write(request)
        status, _ = await read_answer(reader)
        writer.close()
        return status

    with PeakMemory({name: gateway.pid}) as memory, _watching(gateway.pid, address) as watched:
        started_s = time.perf_counter()
        status = uvloop.run(send())
        took_s = time.perf_counter() - started_s
    grown_mib = memory.peak_mib[name] - memory.before_mib[name]
    return Hostile(name, len(body), status, took_s, grown_mib, watched)


def _report(
    sent: Sent, ready_mib: float, idle: Watched, loaded: Watched, hostile: list[Hostile]
) -> Report:
    parts = medians(loaded.rss_mib, PARTS)
    memory = Table(
        f"RSS of the gateway over {sent.total / MEBIBYTE:,.0f} MiB of documents in "
        f"{len(sent.statuses)} requests, {number(sent.total / MEBIBYTE / sent.took_s)} MiB/s; MiB: "
        "when ready, and medians of each fifth of the time",
        ("", "ready", *(f"part {part + 1}" for part in range(PARTS)), "at most"),
        [
            (
                "gateway",
                number(ready_mib),
                *(number(part) for part in parts),
                number(max(loaded.rss_mib)),
            )
        ],
    )
    lag = Table(
        "GET /health/live meanwhile, ms",
        ("", "p50", "p99", "longest"),
        [("nothing else", *idle.pauses()), ("four bodies at a time", *loaded.pauses())],
    )
    bodies = Table(
        "Single bodies made to be large in memory",
        ("made of", "MiB", "status", "seconds", "RSS grew by, MiB", "p50 ms", "p99 ms", "longest"),
        [
            (
                one.name,
                number(one.bytes_ / MEBIBYTE),
                str(one.status),
                number(one.took_s),
                number(one.grown_mib),
                *one.watched.pauses(),
            )
            for one in hostile
        ],
    )
    figures = {
        "sent": asdict(sent),
        "ready_mib": ready_mib,
        "parts_mib": parts,
        "idle_ms": idle.figures(),
        "loaded_ms": loaded.figures(),
        "hostile": [
            {
                "name": one.name,
                "bytes": one.bytes_,
                "status": one.status,
                "seconds": one.took_s,
                "grown_mib": one.grown_mib,
                "pauses_ms": one.watched.figures(),
            }
            for one in hostile
        ],
    }
    wrong = [status for status in sent.statuses if status != HTTPStatus.OK]
    failures = [f"{len(wrong)} bodies were refused: {sorted(set(wrong))}"] if wrong else []
    return Report(figures, [memory, lag, bodies], _targets(parts, loaded, hostile), failures)


def _targets(parts: list[float], loaded: Watched, hostile: list[Hostile]) -> list[Target]:
    def at_most(name: str, value: float, limit: float) -> Target:
        return Target(name, value, limit, at_most=True)

    return [
        at_most("RSS in the last fifth over that in the first", parts[-1] / parts[0], MOST_GROWTH),
        at_most("p99 of /health/live under load, ms", loaded.at(99), MOST_PAUSE_MS),
        at_most(
            "RSS that one hostile body takes, MiB",
            max(one.grown_mib for one in hostile),
            MOST_HOSTILE_MIB,
        ),
        at_most(
            "p99 of /health/live under a hostile body, ms",
            max(one.watched.at(99) for one in hostile),
            MOST_PAUSE_MS,
        ),
    ]
