"""Both adapters of the store, side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.store import ADAPTERS, a_plan, open_points

from gateway.search.points import Points
from gateway.search.search import Search


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The in-memory client says that it has no payload indexes and compares with every vector:
    # it needs no more.
    indexes = "ignore:Payload indexes have no effect in the local Qdrant:UserWarning"
    exact = "ignore:Local mode performs exact:UserWarning"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(indexes))
            item.add_marker(pytest.mark.filterwarnings(exact))


@pytest.fixture(params=ADAPTERS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Points, str]]:
    """A started adapter, and the name of a collection it does not have yet."""
    async with open_points(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
async def search(store: tuple[Points, str]) -> AsyncIterator[Search]:
    """A started `Search` on each adapter, with an index on `team` and `year`."""
    points, collection = store
    search = Search(points, a_plan(collection, team="keyword", year="integer"))
    await search.start()
    yield search
    await search.aclose()
