"""Generations in the embedded store: processes and files come, go, and survive kills."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import qdrant_edge as edge
from support.processes import gone
from support.store import COLLECTION, CONFIG, a_stamp, soon

from gateway.search import ids, wire
from gateway.search.embedded import EmbeddedPoints
from gateway.search.points import Generations, at
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

ROOT = Path(__file__).parents[3]
SURROUNDINGS = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'protos'}"}

MAIN = "import gateway.search.child as child; child.main()"
DIES_AT_THE_RENAME = """
import os, sys
sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), 9))
"""
OPTIMISES_FOR_EVER = f"""
import time
from pathlib import Path
import gateway.search.child as child
def optimize(self):
    Path({{begun!r}}).write_text("")
    time.sleep(600)
child.Engine.optimize = optimize
{MAIN}
"""
OWNER = """
import asyncio, sys
from pathlib import Path
from support.store import CONFIG, soon
import gateway.search.process as process
from gateway.search.embedded import EmbeddedPoints
process.COMMAND = ("-c", sys.argv[2])

async def main():
    points = EmbeddedPoints(Path(sys.argv[1]))
    await points.start()
    await points.create("documents", CONFIG, soon())
    print(points.process("documents").pid, flush=True)
    await points.optimize("documents", soon())

asyncio.run(main())
"""


@pytest.fixture
async def points(tmp_path: Path) -> AsyncIterator[EmbeddedPoints]:
    """A store with a collection of one generation."""
    points = EmbeddedPoints(tmp_path)
    await points.start()
    await points.create(COLLECTION, CONFIG, soon())
    await points.swap(COLLECTION, a_stamp(), None, soon())
    yield points
    await points.aclose()


def folder(tmp_path: Path) -> Path:
    return tmp_path / "store" / COLLECTION


async def stamped(points: EmbeddedPoints, address: str) -> bool:
    return bool(await points.retrieve(address, [ids.STAMP_ID], soon()))


def indexed(directory: Path) -> set[str]:
    """The fields with an index in a generation that no process has open."""
    shard = edge.EdgeShard.load(str(directory))
    try:
        return set(shard.info().payload_schema)
    finally:
        shard.close()


def pid(points: EmbeddedPoints, address: str) -> int:
    process = points.process(address)
    assert process is not None
    assert process.pid is not None
    return process.pid


def test_a_kill_at_any_step_of_a_change_leaves_the_old_or_the_new_state_whole(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "support.store_kills", str(tmp_path)],
        env=SURROUNDINGS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout)
    assert tried["switch"] >= 2
    assert min(tried.values()) >= 2
    assert sum(tried.values()) > 30


async def test_a_process_killed_while_it_makes_a_generation_leaves_none(
    points: EmbeddedPoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("gateway.search.process.COMMAND", ("-c", f"{DIES_AT_THE_RENAME}\n{MAIN}"))
        with pytest.raises(ServiceError) as caught:
            await points.create_generation(COLLECTION, 2, CONFIG, soon())
        assert caught.value.reason is Reason.VECTOR_DB_UNAVAILABLE
    assert await points.generations(COLLECTION, soon()) == Generations(1, ())
    assert (folder(tmp_path) / "2.new").exists()
    await points.create_generation(COLLECTION, 2, CONFIG, soon())
    assert await points.generations(COLLECTION, soon()) == Generations(1, (2,))
    assert not (folder(tmp_path) / "2.new").exists()
    assert await points.count(at(COLLECTION, 2), wire.Selection(), soon()) == 0


async def back(points: EmbeddedPoints, address: str) -> bool:
    """Whether the generation answers again, with what was written."""
    try:
        assert await stamped(points, address)
    except ServiceError as error:
        if error.reason is not Reason.VECTOR_DB_UNAVAILABLE:
            raise
        return False
    return True


async def test_each_generation_has_a_process_that_comes_back_by_itself(
    points: EmbeddedPoints,
) -> None:
    await points.create_generation(COLLECTION, 2, CONFIG, soon())
    await points.swap(at(COLLECTION, 2), a_stamp(), None, soon())
    old = {address: pid(points, address) for address in (COLLECTION, at(COLLECTION, 2))}
    assert len(set(old.values())) == 2
    for process in old.values():
        os.kill(process, signal.SIGKILL)
    async with asyncio.timeout(30):
        for address in old:
            while not await back(points, address):
                await asyncio.sleep(0.02)


async def test_a_dropped_generation_leaves_neither_process_nor_file(
    points: EmbeddedPoints, tmp_path: Path
) -> None:
    await points.create_generation(COLLECTION, 2, CONFIG, soon())
    await points.switch(COLLECTION, 2, soon())
    old = pid(points, at(COLLECTION, 1))
    await points.drop_generation(COLLECTION, 1, soon())
    assert gone(old)
    present = {entry.name for entry in folder(tmp_path).iterdir()}
    assert present == {"current.json", "2", "2.lock"}
    await points.drop(COLLECTION, soon())
    assert list((tmp_path / "store").iterdir()) == []


async def test_a_generation_has_its_indexes_before_anything_is_written(
    points: EmbeddedPoints, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, indexes={"kind": "keyword", "year": "integer"})
    await points.create_generation(COLLECTION, 2, config, soon())
    await points._pool.close(folder(tmp_path) / "2")
    assert indexed(folder(tmp_path) / "2") == {"kind", "year"}
    # What a later start asks for, every generation gets.
    config = msgspec.structs.replace(CONFIG, indexes={"kind": "keyword", "team": "keyword"})
    await points.create(COLLECTION, config, soon())
    for address in (at(COLLECTION, 1), at(COLLECTION, 2)):
        await points.count(address, wire.Selection(), soon())
    await points.aclose()
    for generation in ("1", "2"):
        assert indexed(folder(tmp_path) / generation) == {"kind", "team"}


async def test_a_change_is_finished_though_its_caller_leaves(points: EmbeddedPoints) -> None:
    leaving = asyncio.create_task(points.create_generation(COLLECTION, 2, CONFIG, soon()))
    await asyncio.sleep(0)
    leaving.cancel()
    # The next change comes after it.
    await points.switch(COLLECTION, 2, soon())
    assert await points.generations(COLLECTION, soon()) == Generations(2, (1,))


async def test_a_change_that_is_asked_for_too_late_is_not_begun(points: EmbeddedPoints) -> None:
    with pytest.raises(ServiceError) as caught:
        await points.create_generation(COLLECTION, 2, CONFIG, Deadline.after(-1))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    await points.drop_generation(COLLECTION, 3, soon())  # a change later
    assert await points.generations(COLLECTION, soon()) == Generations(1, ())


async def test_a_pointer_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    points = EmbeddedPoints(tmp_path)
    await points.start()
    await points.create(COLLECTION, CONFIG, soon())
    await points.swap(COLLECTION, a_stamp(), None, soon())
    await points.aclose()
    pointer = folder(tmp_path) / "current.json"
    read = json.loads(pointer.read_bytes())
    pointer.write_text(json.dumps({"live": 1, "next": None, "config": read["config"]}))
    again = EmbeddedPoints(tmp_path)
    await again.start()
    assert await again.generations(COLLECTION, soon()) == Generations(1, ())
    assert await stamped(again, COLLECTION)
    await again.aclose()


@pytest.mark.parametrize("damage", ["missing", "damaged"])
async def test_without_its_pointer_a_collection_is_neither_replaced_nor_removed(
    points: EmbeddedPoints, tmp_path: Path, damage: str
) -> None:
    await points.aclose()
    pointer = folder(tmp_path) / "current.json"
    kept = pointer.read_bytes()
    pointer.unlink()
    if damage == "damaged":
        pointer.write_bytes(kept[:-3])
    other = EmbeddedPoints(tmp_path)
    with pytest.raises(ServiceError, match=f"current.json of the collection .* is {damage}"):
        await other.start()
        await other.create(COLLECTION, CONFIG, soon())
    await other.aclose()
    pointer.write_bytes(kept)
    again = EmbeddedPoints(tmp_path)
    await again.start()
    assert await stamped(again, COLLECTION)
    await again.aclose()


async def test_what_is_not_the_stores_own_stays(points: EmbeddedPoints, tmp_path: Path) -> None:
    await points.create_generation(COLLECTION, 2, CONFIG, soon())
    await points.aclose()
    (folder(tmp_path) / "1.backup").mkdir()
    (folder(tmp_path) / "3").mkdir()
    (folder(tmp_path) / "4.new").mkdir()
    copy = tmp_path / "store" / f"{COLLECTION}.copy"
    shutil.copytree(folder(tmp_path), copy, ignore=lambda *_: ["1", "2"])
    again = EmbeddedPoints(tmp_path)
    await again.start()
    assert await again.collections(soon()) == [COLLECTION]
    await again.aclose()
    assert (copy / "3").is_dir()
    present = {entry.name for entry in folder(tmp_path).iterdir()}
    assert present == {"current.json", "1", "1.lock", "2", "2.lock", "1.backup"}


async def test_a_process_that_optimises_is_not_taken_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.search.process.PING_PAUSE_S", 0.01)
    monkeypatch.setattr("gateway.search.process.HANG_S", 0.3)
    points = EmbeddedPoints(tmp_path)
    await points.start()
    await points.create(COLLECTION, CONFIG, soon())
    await points.swap(COLLECTION, a_stamp(), None, soon())
    process = points.process(COLLECTION)
    assert process is not None
    connection = process._connection
    assert connection is not None
    os.kill(connection.process.pid, signal.SIGSTOP)  # so that it takes long
    optimizing = asyncio.create_task(points.optimize(COLLECTION, soon()))
    await asyncio.sleep(0)
    calls = connection._last_id
    async with asyncio.timeout(30):
        while connection._last_id < calls + 3:  # asked thrice for a sign of life
            await asyncio.sleep(0.02)
    os.kill(connection.process.pid, signal.SIGCONT)
    await optimizing
    assert await stamped(points, COLLECTION)
    assert not connection.process.returncode
    await points.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do it")
async def test_a_process_that_optimises_dies_with_its_gateway(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), OPTIMISES_FOR_EVER.format(begun=str(begun))],
        env=SURROUNDINGS,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        child = int(await asyncio.to_thread(owner.stdout.readline))
        async with asyncio.timeout(30):
            while not begun.exists():
                await asyncio.sleep(0.02)
            owner.kill()
            while not gone(child):
                await asyncio.sleep(0.02)
