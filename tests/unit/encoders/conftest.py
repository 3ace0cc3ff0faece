"""What tests of models share."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from encoders.blueprint import Kind
from encoders.export import make_export
from encoders.location import ModelFiles


@pytest.fixture
def exports_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has torch: a child takes 5 s to load it (`test_exports` has one)."""

    def export(files: ModelFiles, kind: Kind, cache_dir: Path, _: Event) -> None:
        make_export(files, kind, cache_dir)

    monkeypatch.setattr("encoders.export_cache._export_in_child", export)
