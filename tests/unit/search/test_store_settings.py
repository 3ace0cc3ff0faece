"""What the store reads from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.search.settings import StoreSettings


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("no-env-file"))


def test_filter_fields_have_kinds() -> None:
    settings = StoreSettings(filter_fields="team, year:integer,a.b:float , draft:bool")
    assert settings.indexed_fields() == {
        "team": "keyword",
        "year": "integer",
        "a.b": "float",
        "draft": "bool",
    }
    assert StoreSettings().indexed_fields() == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"filter_fields": "team:tree"},
        {"filter_fields": "a b"},
        {"filter_fields": "a[0]"},
        {"filter_fields": "a,b:float,a:integer"},
        {"filter_fields": "a,or"},
        {"qdrant_url": "localhost:6333"},
        {"qdrant_collection": "Documents"},
        {"qdrant_collection": "x" * 64},
        {"vector_dim": 0},
        {"bm25_language": "klingon"},
        {"qdrant_grpc_port": 70_000},
    ],
)
def test_faults_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StoreSettings.model_validate(wrong)


def test_the_stores_process_imports_little() -> None:
    """It is started beside every gateway: no gRPC, no NumPy, no HTTP client."""
    code = (
        "import sys, gateway.search.child; "
        "print([m for m in ('grpc', 'numpy', 'pydantic', 'httpx') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert found.stdout.strip() == "[]"
