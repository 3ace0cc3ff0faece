"""One model for all storms."""

from __future__ import annotations

import os

import pytest
from chaos.model import small_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The embedder's settings, and VECTOR_DIM."""
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def seed() -> int:
    """Always the same draws, unless CHAOS_SEED says otherwise; a failure prints it."""
    return int(os.environ.get("CHAOS_SEED", "4"))
