"""The store's process is killed, orphaned and locked out; no acknowledged document is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import gone
from support.store import (
    COLLECTION,
    DIMENSION,
    a_plan,
    embedded_search,
    process_of,
    put,
    soon,
    until_back,
    vector_of,
)

from gateway.search import ids, wire
from gateway.search.embedded import EmbeddedPoints
from gateway.search.points import FolderInUse
from gateway.search.search import Search
from gateway.search.sweep import sweep
from gateway.search.types import Chunking
from gateway.search.versions import NewChunk, NewVersion
from gateway.text import text_sha256
from runtime.errors import Reason, ServiceError

KILLS = 20
WRITERS = 4


def version(document_id: str, number: int, chunks: int) -> NewVersion:
    """A version whose every part names the document and the version."""
    texts = [f"{document_id} version {number} chunk {at} of {chunks}" for at in range(chunks)]
    whole = "\n".join(texts)
    made = [
        NewChunk(text, text_sha256(text), wire.pack(vector_of(text).tolist()), False)
        for text in texts
    ]
    return NewVersion(
        document_id, whole, {"number": number}, text_sha256(whole), Chunking(512, 50), made
    )


class Ledger:
    """What writers were told: document → numbers that may be there now (None: no document)."""

    def __init__(self) -> None:
        self.possible: dict[str, set[int | None]] = {}

    async def put(self, search: Search, new: NewVersion) -> None:
        number = new.metadata["number"]
        before = self.possible.setdefault(new.document_id, {None})
        before.add(number)
        await put(search, COLLECTION, new)
        self.possible[new.document_id] = {number}

    async def delete(self, search: Search, document_id: str) -> None:
        self.possible.setdefault(document_id, {None}).add(None)
        await search.delete_document(COLLECTION, document_id, soon())
        self.possible[document_id] = {None}


async def test_no_acknowledged_write_is_lost_to_kills(tmp_path: Path) -> None:
    ledger = Ledger()
    dice = random.Random(20)
    async with embedded_search(tmp_path) as search:
        stopping = asyncio.Event()

        async def write(writer: int) -> None:
            mine = random.Random(writer)
            number = 0
            while not stopping.is_set():
                number += 1
                document_id = f"w{writer} d{mine.randrange(5)}"
                try:
                    if mine.random() < 0.2:
                        await ledger.delete(search, document_id)
                    else:
                        new = version(document_id, number, mine.randrange(1, 90))
                        await ledger.put(search, new)
                except ServiceError as error:
                    if error.reason is not Reason.VECTOR_DB_UNAVAILABLE:
                        raise
                    await until_back(search)

        writers = [asyncio.create_task(write(writer)) for writer in range(WRITERS)]
        for _ in range(KILLS):
            # At random points of the writers' work, not to wait for anything.
            await asyncio.sleep(dice.uniform(0.02, 0.25))
            process = process_of(search).pid
            if process is not None:
                os.kill(process, signal.SIGKILL)
            await until_back(search)
        stopping.set()
        await asyncio.gather(*writers)

    async with embedded_search(tmp_path) as search:
        await check(search, ledger)
        await sweep(search._points, COLLECTION, orphan_age_s=-1)
        await check(search, ledger)
        await nothing_besides(search)


async def check(search: Search, ledger: Ledger) -> None:
    """Each document is there as one of those its writers were told of, once and whole."""
    for document_id, possible in ledger.possible.items():
        document = await search.get_document(COLLECTION, document_id, soon())
        number = None if document is None else document.metadata["number"]
        assert number in possible, document_id
        if document is None:
            continue
        expected = version(document_id, document.metadata["number"], len(document.chunks))
        assert document.text == expected.text
        assert [chunk.text for chunk in document.chunks] == [c.text for c in expected.chunks]
        last = expected.chunks[-1].text
        hits = await search.nearest(
            COLLECTION,
            text=last,
            vector=vector_of(last),
            mode="hybrid",
            filter=None,
            limit=50,
            deadline=soon(),
        )
        assert hits[0].text == last
        mine = [hit.chunk_id for hit in hits if hit.document_id == document_id]
        assert len(mine) == len(set(mine))
        assert {h.metadata["number"] for h in hits if h.document_id == document_id} == {number}


async def nothing_besides(search: Search) -> None:
    """After a sweep there are exactly the points that the records name."""
    expected = {ids.STAMP_ID}
    present: set[str] = set()
    start_id: str | None = None
    while True:
        part = await search._points.scroll(
            COLLECTION, wire.Selection(), 500, soon(), start_id=start_id
        )
        for point in part.points:
            present.add(point.id)
            if point.payload["kind"] in ("record", "tombstone"):
                record = point.payload
                expected.add(point.id)
                if record["kind"] == "record":
                    expected.update(
                        ids.version_ids(record["document_id"], record["version"], record["chunks"])
                    )
        start_id = part.next_id
        if start_id is None:
            break
    assert present == expected


async def test_calls_in_flight_fail_as_unavailable_and_the_next_succeed(tmp_path: Path) -> None:
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", 1, 3))
        process = process_of(search).pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)  # calls are sent, and cannot be answered
        calls = [
            asyncio.create_task(search.get_document(COLLECTION, "a", soon())) for _ in range(5)
        ]
        await asyncio.sleep(0)
        os.kill(process, signal.SIGKILL)
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, ServiceError)
            assert outcome.reason is Reason.VECTOR_DB_UNAVAILABLE
            assert outcome.retry_after_s is not None
        await until_back(search)
        assert await search.get_document(COLLECTION, "a", soon()) is not None
        assert not search.broken


async def test_what_was_acknowledged_is_in_the_log_alone_if_need_be(tmp_path: Path) -> None:
    """A power cut: of the segments nothing since the last flush, of the log what was synced."""
    async with embedded_search(tmp_path / "a") as search:
        await put(search, COLLECTION, version("before", 1, 2))
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # closed, so flushed
    async with embedded_search(tmp_path / "a") as search:
        await put(search, COLLECTION, version("after", 1, 70))
        await put(search, COLLECTION, version("before", 2, 3))
        generation = Path("store") / COLLECTION / "1"
        shutil.rmtree(tmp_path / "b" / generation / "wal")
        shutil.copytree(tmp_path / "a" / generation / "wal", tmp_path / "b" / generation / "wal")
    async with embedded_search(tmp_path / "b") as search:
        for document_id, number, chunks in (("before", 2, 3), ("after", 1, 70)):
            document = await search.get_document(COLLECTION, document_id, soon())
            assert document is not None
            assert document.metadata == {"number": number}
            assert len(document.chunks) == chunks


async def test_a_folder_in_use_is_one_clear_line(tmp_path: Path) -> None:
    async with embedded_search(tmp_path) as holder:
        await put(holder, COLLECTION, version("before", 1, 3))
        with pytest.raises(FolderInUse, match="DATA_DIR: another process uses the data folder"):
            async with embedded_search(tmp_path):
                pytest.fail("two processes hold one folder")
        # The holder has noticed nothing: what it writes and flushes from here on is there.
        await put(holder, COLLECTION, version("after", 1, 3))
    async with embedded_search(tmp_path) as search:
        for document_id in ("before", "after"):
            assert await search.get_document(COLLECTION, document_id, soon()) is not None


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", 1, 3))
        stamp = await search.stamp(COLLECTION, soon())
    search = Search(EmbeddedPoints(tmp_path), a_plan(COLLECTION, team="keyword"))
    await search.start()
    document = await search.get_document(COLLECTION, "a", soon())
    assert document is not None
    assert len(document.chunks) == 3
    assert (await search.stamp(COLLECTION, soon())).chunking == stamp.chunking
    await search.aclose()


async def test_a_wrong_dimension_at_the_first_start_does_not_decide_for_good(
    tmp_path: Path,
) -> None:
    for dimension in (7, 9):
        wrong = Search(EmbeddedPoints(tmp_path), replace(a_plan(), dimension=dimension))
        await wrong.start()
        assert (await wrong.stamp(COLLECTION, soon())).dimension == dimension
        await wrong.aclose()
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", 1, 3))
    folder = tmp_path / "store" / COLLECTION
    assert len([entry for entry in folder.iterdir() if entry.is_dir()]) == 1


async def test_what_holds_documents_keeps_its_dimension(tmp_path: Path) -> None:
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", 1, 3))
        dimension = (await search.stamp(COLLECTION, soon())).dimension
    other = Search(EmbeddedPoints(tmp_path), replace(a_plan(), dimension=dimension + 1))
    await other.start()
    assert (await other.stamp(COLLECTION, soon())).dimension == dimension
    assert await other.get_document(COLLECTION, "a", soon()) is not None
    await other.aclose()


async def test_a_long_page_comes_in_many_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 documents with all the metadata they may have would be one of 36 MiB."""
    async with embedded_search(tmp_path) as search:
        for at in range(80):
            new = version(f"d{at}", 1, 0)
            await put(search, COLLECTION, replace(new, metadata={"n": [1.5] * 4000}))
        monkeypatch.setattr(wire, "FRAME_BYTES", 70 * 36_000)
        page = await search.list_documents(
            COLLECTION, limit=1000, cursor=None, filter=None, deadline=soon()
        )
    assert len(page.documents) == 80


GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from support.store import COLLECTION, embedded_search
from gateway.search.embedded import EmbeddedPoints

async def main():
    async with embedded_search(Path(sys.argv[1])) as search:
        print(json.dumps(search._points.process(COLLECTION).pid), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_process_leaves_with_its_gateway_and_the_folder_is_free(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}:{root / 'protos'}"},
    )
    assert gateway.stdout is not None
    store = json.loads(await asyncio.to_thread(gateway.stdout.readline))
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    started_s = time.monotonic()
    async with embedded_search(tmp_path) as search:
        assert time.monotonic() - started_s < 10
        assert (await search.stamp(COLLECTION, soon())).dimension == DIMENSION
        async with asyncio.timeout(10):
            while not gone(store):
                await asyncio.sleep(0.02)
