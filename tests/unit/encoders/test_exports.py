"""Exports on disk: found, shared, damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from support.models import MINILM, exports

from encoders import export, export_cache
from encoders.embedding import load_embedding_model
from encoders.export import cache_key, make_export
from encoders.identity import fingerprint
from encoders.location import ModelFiles, ModelUnusableError, locate
from encoders.options import Runtime

FILES = locate(MINILM)
KEY = cache_key(fingerprint(FILES, kind="embedding"))


@pytest.fixture(scope="module")
def made() -> Path:
    """A folder that holds the whole export."""
    load(Runtime("openvino", cache_dir=exports()))
    return exports()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def load(runtime: Runtime) -> None:
    model = load_embedding_model(MINILM, runtime)
    assert model.encode(["a text"]).shape == (1, 384)


class Making:
    """Stands for the child that exports: copies an export that was made; `calls` counts."""

    def __init__(self, source: Path) -> None:
        self.calls = 0
        self.begun = Event()
        self.go_on = Event()
        self.go_on.set()
        self._source = source

    def __call__(self, files: ModelFiles, kind: str, cache_dir: Path, stopped: Event) -> None:
        self.calls += 1
        self.begun.set()
        assert self.go_on.wait(30)
        shutil.copytree(self._source / KEY, cache_dir / KEY)


@pytest.fixture
def making(made: Path, monkeypatch: pytest.MonkeyPatch) -> Making:
    stand_in = Making(made)
    monkeypatch.setattr(export_cache, "_export_in_child", stand_in)
    return stand_in


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "model.bin", 1000)


def cut_blueprint(folder: Path) -> None:
    os.truncate(folder / "blueprint.json", 1000)


@pytest.mark.parametrize("damage", [cut_weights, cut_blueprint])
def test_a_damaged_export_is_made_anew(
    damage: Callable[[Path], None], making: Making, made: Path, cache: Path
) -> None:
    shutil.copytree(made / KEY, cache / KEY)
    damage(cache / KEY)
    load(Runtime("openvino", cache_dir=cache))
    load(Runtime("openvino", cache_dir=cache))
    assert making.calls == 1
    assert [path.name for path in cache.glob("*/")] == [KEY]


def test_an_export_made_beforehand_is_read_where_it_lies(
    making: Making, made: Path, cache: Path
) -> None:
    load(Runtime("openvino", cache_dir=cache, exports_dir=made))
    assert making.calls == 0
    assert list(cache.iterdir()) == []


def test_a_damaged_export_made_beforehand_is_left_alone(
    making: Making, made: Path, cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / KEY, tmp_path / "baked" / KEY)
    cut_weights(tmp_path / "baked" / KEY)
    load(Runtime("openvino", cache_dir=cache, exports_dir=tmp_path / "baked"))
    assert making.calls == 1
    assert (tmp_path / "baked" / KEY / "model.bin").stat().st_size == 1000


class Noticed(Event):
    """Says, by `waited`, when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.set()
        return super().wait(timeout)


def test_workers_that_start_together_make_one_export(making: Making, cache: Path) -> None:
    making.go_on.clear()
    second = Noticed()
    with ThreadPoolExecutor(2) as workers:
        loads = [workers.submit(load, Runtime("openvino", cache_dir=cache))]
        assert making.begun.wait(30)
        loads.append(workers.submit(load, Runtime("openvino", cache_dir=cache, stopped=second)))
        waited = second.waited.wait(30)
        making.go_on.set()
        for done in loads:
            done.result()
    assert waited
    assert making.calls == 1


def test_who_waits_for_the_export_of_another_stops_when_told(making: Making, cache: Path) -> None:
    making.go_on.clear()
    stopped = Noticed()
    with ThreadPoolExecutor(2) as workers:
        first = workers.submit(load, Runtime("openvino", cache_dir=cache))
        assert making.begun.wait(30)
        second = workers.submit(load, Runtime("openvino", cache_dir=cache, stopped=stopped))
        assert stopped.waited.wait(30)
        stopped.set()
        with pytest.raises(ModelUnusableError, match="stopped"):
            second.result(30)
        making.go_on.set()
        first.result()


def test_an_export_is_on_the_disk_before_it_can_be_found(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.rename

    def write(files: ModelFiles, kind: str, folder: Path) -> None:
        for name in ("model.bin", "blueprint.json"):
            (folder / name).write_text("content")

    def recorded_sync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def recorded_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(export, "_write", write)
    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    make_export(FILES, "embedding", cache)
    assert sorted(events[:3]) == ["blueprint.json", "export", "model.bin"]
    assert events[3:] == ["rename", "cache"]
