"""The store's process does not start, hangs or fails: said, mended, and nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from support.store import (
    COLLECTION,
    DIMENSION,
    embedded_search,
    process_of,
    put,
    soon,
    until_back,
    version,
)

from gateway.search import ids, wire
from runtime.errors import Reason, ServiceError
from runtime.supervision import ResourceTaken

CONFIG = wire.Config(DIMENSION, 1.2, 0.75, 48.0, "english", {"kind": "keyword"})
Child = tuple[socket.socket, subprocess.Popen[str]]
GENERATION = Path("store") / COLLECTION / "1"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Starts again at once."""
    monkeypatch.setattr("gateway.search.process.FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr("gateway.search.process.MOST_BACKOFF_S", 0.05)
    return monkeypatch


async def test_a_store_that_cannot_start_is_broken_and_comes_back(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", "one", "two"))
        segments = tmp_path / "store" / COLLECTION / "1"
        process = process_of(search).pid
        assert process is not None
        segments.rename(tmp_path / "away")
        segments.write_text("not a folder")
        os.kill(process, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not search.broken:
                await asyncio.sleep(0.02)
        with pytest.raises(ServiceError) as caught:
            await search.ping()
        assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
        segments.unlink()
        (tmp_path / "away").rename(segments)
        await until_back(search)
        assert not search.broken
        assert await search.get_document(COLLECTION, "a", soon()) is not None


async def test_no_room_for_a_process_is_waited_out(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    def full(theirs: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", "one"))
        process = process_of(search).pid
        assert process is not None
        with hurried.context() as patch:
            patch.setattr("gateway.search.process._spawn", full)
            os.kill(process, signal.SIGKILL)
            async with asyncio.timeout(30):
                while not search.broken:
                    await asyncio.sleep(0.02)
        await until_back(search)
        assert not search.broken
        assert await search.get_document(COLLECTION, "a", soon()) is not None


async def test_a_process_that_hangs_is_killed_and_comes_back(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    hurried.setattr("gateway.search.process.PING_PAUSE_S", 0.05)
    hurried.setattr("gateway.search.process.HANG_S", 1.0)
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", "one"))
        process = process_of(search).pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        await until_back(search)
        assert process_of(search).pid != process
        assert await search.get_document(COLLECTION, "a", soon()) is not None


@pytest.mark.parametrize("taken", [".", "store"])
async def test_a_data_folder_that_is_a_file_is_one_clear_line(tmp_path: Path, taken: str) -> None:
    data_dir = tmp_path / "data"
    (data_dir / taken).parent.mkdir(parents=True, exist_ok=True)
    (data_dir / taken).write_text("not a folder")
    with pytest.raises(
        ResourceTaken, match=r"^DATA_DIR: .*cannot be written.*set another"
    ) as caught:
        async with embedded_search(data_dir):
            pytest.fail("a store in a file")
    assert str(tmp_path) not in str(caught.value)


async def test_a_data_folder_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:  # root, who may run this, may write anywhere
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("gateway.search.generations.TemporaryFile", refuse)
    with pytest.raises(ResourceTaken, match=r"^DATA_DIR: .*Read-only file system"):
        async with embedded_search(tmp_path):
            pytest.fail("a store on a medium that is read-only")


async def test_files_that_are_gone_are_not_replaced_by_an_empty_store(
    tmp_path: Path, hurried: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    async with embedded_search(tmp_path) as search:
        await put(search, COLLECTION, version("a", "one"))
        process = process_of(search).pid
        assert process is not None
        (tmp_path / GENERATION).rename(kept)
        os.kill(process, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not search.broken:
                await asyncio.sleep(0.02)
    with pytest.raises(ServiceError, match="files of the collection 'documents' are missing"):
        async with embedded_search(tmp_path):
            pytest.fail("an empty store instead of the one that is gone")
    assert not (tmp_path / GENERATION).exists()
    shutil.move(kept, tmp_path / GENERATION)
    async with embedded_search(tmp_path) as search:
        assert await search.get_document(COLLECTION, "a", soon()) is not None


async def test_a_new_stores_folders_outlive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", note)
    data_dir = tmp_path / "data"
    async with embedded_search(data_dir):
        for folder in (data_dir, data_dir / "store", data_dir / "store" / COLLECTION):
            assert folder.stat().st_ino in synced


async def test_a_signal_to_the_whole_group_leaves_the_store_to_its_gateway(tmp_path: Path) -> None:
    async with embedded_search(tmp_path) as search:
        process = process_of(search).pid
        assert process is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(process, number)
        await put(search, COLLECTION, version("a", "one"))
        assert process_of(search).pid == process


@contextmanager
def a_child(
    folder: Path, before: str = ""
) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """The store's process itself, after running `before`, with the generation made and open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import gateway.search.child as child\n{before}\nchild.main()",
                str(theirs.fileno()),
            ],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        theirs.close()
        with process:
            ours.settimeout(30)
            ours.sendall(asking(wire.Open(str(folder / "1"), CONFIG, create=True)))
            assert ours.recv(100)
            try:
                yield ours, process
            finally:
                process.kill()


def asking(call: wire.Call) -> bytes:
    expires_at_s = soon().at_s
    return wire.frame(msgspec.msgpack.encode(wire.Request(1, expires_at_s, call)))


def test_a_gateway_that_died_with_replies_unread_is_an_end_like_any_other(tmp_path: Path) -> None:
    with a_child(tmp_path) as (ours, process):
        ours.sendall(asking(wire.Ping()) * 10)
        assert ours.recv(1)  # the others are on their way, and are never read
        ours.close()
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")


def test_a_log_that_cannot_be_synced_ends_the_process(tmp_path: Path) -> None:
    fails = "def fails(self): raise RuntimeError('odd')\nchild.Engine.sync = fails"
    with a_child(tmp_path, fails) as (ours, process):
        ours.sendall(asking(wire.Upsert([wire.Point(ids.STAMP_ID, {})])))
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "odd" in errors
