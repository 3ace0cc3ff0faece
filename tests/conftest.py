"""Fixtures that every kind of test may use, and the rule that CI skips nothing."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from prometheus_client import CollectorRegistry
from support.surroundings import bare


@pytest.fixture(scope="session", autouse=True)
def _bare_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no process that one starts, reads the developer's settings or `.env`."""
    with bare(tmp_path_factory.mktemp("empty")):
        yield


@pytest.fixture
def registry() -> CollectorRegistry:
    """A metrics registry of the test's own."""
    return CollectorRegistry()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where `CI` is set a skipped test is a failed one: what it needs is to be installed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
