"""`python -m support.store_kills <folder>`: kills the owner of an embedded store at every step.

Each change of the generations is made again and again, by a fresh process that is killed
before its first change of the disk, its second, and so on until the change comes to its end.
After each kill the store is opened again, and must be as it was before the change or after it,
whole, with nothing left over. The processes are forks of this one: nothing is imported anew.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from support.store import COLLECTION, CONFIG, soon

from gateway.search import wire
from gateway.search.embedded import EmbeddedPoints
from gateway.search.points import Generations, at

MARK = "11111111-1111-4111-8111-111111111111"
OTHER = "another"
# Audit events of a change of the disk. Of those in the same removal of a directory only some
# are tried: they do not differ.
STEPS = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"})
IN_A_REMOVAL = frozenset({"os.remove", "os.rmdir"})
REMOVALS_TRIED = 16
KILLED = -signal.SIGKILL

Change = Callable[[EmbeddedPoints], Awaitable[None]]
# What there may be: collection → its generations, and the mark in the live one.
State = dict[str, tuple[Generations, str | None]]


class Killer:
    """Kills this process before its next change of the disk, or the one after, and so on."""

    def __init__(self, step: int) -> None:
        self._left = step
        self._removals = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if not (writing or event in STEPS):
            return
        if event in IN_A_REMOVAL:
            self._removals += 1
            if self._removals % REMOVALS_TRIED != 1:
                return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def opened(folder: Path) -> EmbeddedPoints:
    """The store, started."""
    points = EmbeddedPoints(folder)
    await points.start()
    return points


async def mark(points: EmbeddedPoints, address: str) -> str | None:
    """What the generation's one point says."""
    found = await points.retrieve(address, [MARK], soon())
    return found[0].payload["mark"] if found else None


def files(directory: Path) -> dict[str, tuple[int, int]]:
    """Each file under it with its size and the time of its last change."""
    found = {path: path.stat() for path in directory.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(directory)): (about.st_size, about.st_mtime_ns)
        for path, about in found.items()
    }


async def state(points: EmbeddedPoints, folder: Path, template: Path, *, thorough: bool) -> State:
    """What there is. Files that nobody touched say what they said, and need no process to."""
    there: State = {}
    for name in await points.collections(soon()):
        generations = await points.generations(name, soon())
        part = Path("store") / name / str(generations.live)
        as_before = (template / part).is_dir() and files(folder / part) == files(template / part)
        said = str(generations.live)
        if thorough or not as_before:
            said = await mark(points, name)
        there[name] = (generations, said)
    return there


async def a_template(folder: Path) -> None:
    """A collection with generations 1, live, and 2; each is marked with its number."""
    points = await opened(folder)
    await points.create(COLLECTION, CONFIG, soon())
    await points.create_generation(COLLECTION, 2, CONFIG, soon())
    for generation in (1, 2):
        point = wire.Point(MARK, {"mark": str(generation)})
        await points.upsert(at(COLLECTION, generation), [point], soon())
    await points.aclose()


def forked(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs `work` in a process of its own; its exit code, negative for a signal."""
    process = os.fork()
    if process == 0:
        try:
            asyncio.run(work())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


async def change_and_die(folder: Path, change: Change, step: int) -> None:
    points = await opened(folder)
    Killer(step)
    await change(points)
    await points.aclose()


async def look(folder: Path, template: Path, allowed: list[State], *, thorough: bool) -> None:
    """Opens the store that a kill left; raises for what may not be.

    thorough: reads a point of every generation, with a process each.
    """
    points = await opened(folder)
    found = await state(points, folder, template, thorough=thorough)
    assert found in allowed, found
    for name, (generations, _) in found.items() if thorough else ():
        for generation in generations.others:
            assert await mark(points, at(name, generation)) in (None, str(generation))
    await points.aclose()
    expected = {
        f"{name}/{generation}"
        for name, (generations, _) in found.items()
        for generation in (generations.live, *generations.others)
    }
    root = folder / "store"
    present = {f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if path.is_dir()}
    assert present == expected, present
    names = {path.name for path in root.iterdir()}
    assert names == set(found), names
    beside = {path.name for path in root.glob("*/*") if path.is_file()}
    locks = {f"{part.split('/')[1]}.lock" for part in expected}
    assert beside <= {"current.json"} | locks, beside


BEFORE: State = {COLLECTION: (Generations(1, (2,)), "1")}
CHANGES: dict[str, tuple[Change, list[State]]] = {
    "create": (
        lambda points: points.create(OTHER, CONFIG, soon()),
        [BEFORE, {**BEFORE, OTHER: (Generations(1, ()), None)}],
    ),
    "create_generation": (
        lambda points: points.create_generation(COLLECTION, 3, CONFIG, soon()),
        [BEFORE, {COLLECTION: (Generations(1, (2, 3)), "1")}],
    ),
    "create_generation again": (
        lambda points: points.create_generation(COLLECTION, 2, CONFIG, soon()),
        [BEFORE, {COLLECTION: (Generations(1, ()), "1")}],
    ),
    "switch": (
        lambda points: points.switch(COLLECTION, 2, soon()),
        [BEFORE, {COLLECTION: (Generations(2, (1,)), "2")}],
    ),
    "drop_generation": (
        lambda points: points.drop_generation(COLLECTION, 2, soon()),
        [BEFORE, {COLLECTION: (Generations(1, ()), "1")}],
    ),
    "drop": (lambda points: points.drop(COLLECTION, soon()), [BEFORE, {}]),
}


def main(folder: Path) -> None:
    """Prints how many steps of each change were tried."""
    template, victim = folder / "template", folder / "victim"
    assert forked(functools.partial(a_template, template)) == 0
    tried: dict[str, int] = {}
    for name, (change, allowed) in CHANGES.items():
        step, outcome = 0, KILLED
        while outcome == KILLED:
            step += 1
            shutil.rmtree(victim, ignore_errors=True)
            # The engine's files are full of holes, which `shutil` would fill.
            subprocess.run(["cp", "-a", str(template), str(victim)], check=True)
            outcome = forked(functools.partial(change_and_die, victim, change, step))
            assert outcome in (KILLED, 0), f"{name}, step {step}"
            seen = forked(functools.partial(look, victim, template, allowed, thorough=outcome == 0))
            assert seen == 0, f"{name}, step {step}"
        tried[name] = step - 1
    print(json.dumps(tried))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
