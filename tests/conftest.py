"""Fixtures that every kind of test may use."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry


@pytest.fixture
def registry() -> CollectorRegistry:
    """A metrics registry of the test's own."""
    return CollectorRegistry()
