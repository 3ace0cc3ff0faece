"""The filter language at every route that takes it, and deleting by it."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from support.http import Site

from gateway.search.filters import AnyOf, Equals, Filter, Not, NumberRange, Or

RAW = {
    "team": {"any": ["docs", "web"]},
    "year": {"gte": 2020},
    "not": {"draft": True},
    "or": [{"a.b": 1}, {"c": "x"}],
}
PARSED = Filter(
    (
        AnyOf("team", ("docs", "web")),
        NumberRange("year", gte=2020.0),
        Not(Filter((Equals("draft", True),))),
        Or((Filter((Equals("a.b", 1),)), Filter((Equals("c", "x"),)))),
    )
)


async def asked(client: httpx.AsyncClient, route: str, raw: Any) -> httpx.Response:
    """The filter, sent to one of the routes that take one."""
    method, path = route.split()
    if method == "POST":
        body = {"query": "why?", "filter": raw, "stream": path == "/query"}
        if path == "/search":
            del body["stream"]
        return await client.post(path, json=body)
    return await client.request(method, path, params={"filter": json.dumps(raw)})


ROUTES = ["POST /search", "POST /query", "GET /documents", "DELETE /documents"]


@pytest.mark.parametrize("route", ROUTES)
async def test_the_whole_language_reaches_the_store(route: str) -> None:
    site = Site()
    async with site.client() as client:
        assert (await asked(client, route, RAW)).status_code == 200
    assert site.store.calls[-1]["where"] == PARSED


@pytest.mark.parametrize("route", ROUTES)
async def test_a_wrong_filter_is_refused_by_its_place_before_any_work(route: str) -> None:
    site = Site()
    async with site.client() as client:
        response = await asked(client, route, {"or": [{"a": 1}, {"year": {"gte": "soon"}}]})
    assert response.status_code == 422
    [fault] = response.json()["errors"]
    assert fault["field"] == "filter.or[1].year.gte"
    assert "RFC 3339" in fault["message"]
    assert response.json()["detail"] == f"{fault['field']}: {fault['message']}"
    assert site.store.calls == []


@pytest.mark.parametrize("route", ["POST /search", "POST /query", "GET /documents"])
async def test_an_empty_filter_is_none(route: str) -> None:
    site = Site()
    async with site.client() as client:
        assert (await asked(client, route, {})).status_code == 200
    assert site.store.calls[-1]["where"] is None


async def test_deleting_by_a_filter_counts() -> None:
    site = Site()
    async with site.client() as client:
        response = await client.delete(
            "/documents", params={"filter": '{"n": 1}', "collection": "other"}
        )
    assert (response.status_code, response.json()) == (200, {"deleted": 2, "chunks": 5})
    call = site.store.calls[-1]
    assert (call["collection"], call["where"]) == ("other", Filter((Equals("n", 1),)))


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("", "filter", "Required"),
        ("filter=", "filter", "an object as JSON"),
        ("filter=[]", "filter", "an object as JSON"),
        ("filter={}", "filter", "every document would be deleted"),
        ("filter={%22n%22:1}&limit=3", "limit", "Unknown"),
        ("filter={%22n%22:NaN}", "filter", "an object as JSON"),
        ("filter={%22n%22:null}", "filter.n", "got null"),
    ],
)
async def test_deleting_everything_by_mistake_is_refused(
    query: str, field: str, words: str
) -> None:
    site = Site()
    async with site.client() as client:
        response = await client.delete(f"/documents?{query}")
    assert response.status_code == 422
    [fault] = response.json()["errors"]
    assert fault["field"] == field
    assert words in fault["message"]
    assert site.store.calls == []


async def test_deleting_many_has_the_time_of_indexing() -> None:
    site = Site(budget_s=5, index_budget_s=500)
    async with site.client() as client:
        await client.delete("/documents", params={"filter": '{"n": 1}'})
        (left_s,) = [site.store.calls[-1]["deadline"].at_s - time.monotonic()]
        assert left_s > 400
