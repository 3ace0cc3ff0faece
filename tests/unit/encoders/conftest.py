"""What tests of models share."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from support.adapters import tiny_adapter
from support.models import tiny_encoder

from encoders.blueprint import Kind
from encoders.export import make_export
from encoders.location import ModelFiles


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def scorer(base: Path, tmp_path: Path) -> Path:
    return tiny_adapter(tmp_path / "scorer.safetensors", base, "late_interaction")


@pytest.fixture
def exports_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has torch: a child takes 5 s to load it (`test_exports` has one)."""

    def export(files: ModelFiles, kind: Kind, cache_dir: Path, _: Event) -> None:
        make_export(files, kind, cache_dir)

    monkeypatch.setattr("encoders.export_cache._export_in_child", export)
