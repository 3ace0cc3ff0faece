"""Bad input over real HTTP: a clear problem that names the field, and nothing indexed."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from support.system import System

JSON = {"Content-Type": "application/json"}
GOOD = {"id": "good", "text": "A good document beside a bad one."}
MEBIBYTE = 1024 * 1024


def check_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    reason = problem["reason"]
    assert re.fullmatch(r"[A-Z][A-Z_]+", reason)
    assert problem["type"] == "/problems/" + reason.lower().replace("_", "-")
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.headers["x-request-id"]
    assert not re.search(r"Traceback|\.py|/usr|/home|127\.0\.0\.1", response.text)
    return problem


DEEP = '{"a": ' * 50_000 + "1" + "}" * 50_000


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/query", b"{", JSON, 400),
        ("/query", b"", JSON, 400),
        ("/query", b'{"query": "\xff\xfe"}', JSON, 400),
        ("/query", DEEP.encode(), JSON, 400),
        ("/query", b'{"query": "\\ud800"}', JSON, 400),
        ("/index", b'{"documents": [{"text": "\\udfff"}]}', JSON, 400),
        ("/query", b"query=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("/query", b'{"query": "x"}', {}, 415),
        ("/nowhere", b"{}", JSON, 404),
        ("/reindex", b'{"collection": "nowhere"}', JSON, 404),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_read(
    system: System, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    check_problem(system.client.post(path, content=body, headers=headers), status)


def test_a_method_that_is_not_there_is_a_problem_too(system: System) -> None:
    response = system.client.get("/query")
    check_problem(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "   \n"}, "query"),
        ({"query": "x" * 8193}, "query"),
        ({"query": 7}, "query"),
        ({"query": "nul \x00"}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "top_k": 51}, "top_k"),
        ({"query": "x", "top_k": "5"}, "top_k"),
        ({"query": "x", "top_k": True}, "top_k"),
        ({"query": "x", "temperature": 2.1}, "temperature"),
        ({"query": "x", "max_tokens": 0}, "max_tokens"),
        ({"query": "x", "mode": "fuzzy"}, "mode"),
        ({"query": "x", "stream": "yes"}, "stream"),
        ({"query": "x", "unknown": 1}, "unknown"),
        ({"query": "x", "collection": "UPPER"}, "collection"),
        ({"query": "x", "filter": []}, "filter"),
        ({"query": "x", "filter": {"year": {"above": 2000}}}, "filter.year.above"),
        ({"query": "x", "filter": {"not": {"a": [1]}}}, "filter.not.a"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_query_out_of_range_names_its_field(
    system: System, body: dict[str, Any], field: str
) -> None:
    problem = check_problem(system.client.post("/query", json=body), 422)
    assert [error["field"] for error in problem["errors"]] == [field]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"level": value}
    return value


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({}, "documents[1].text"),
        ({"text": ""}, "documents[1].text"),
        ({"text": "x" * 2_000_001}, "documents[1].text"),
        ({"text": "nul \x00"}, "documents[1].text"),
        ({"text": 5}, "documents[1].text"),
        ({"text": "x", "id": ""}, "documents[1].id"),
        ({"text": "x", "id": "x" * 257}, "documents[1].id"),
        ({"text": "x", "id": "line\nbreak"}, "documents[1].id"),
        ({"text": "x", "id": "good"}, "documents[1].id"),
        ({"text": "x", "metadata": [1]}, "documents[1].metadata"),
        ({"text": "x", "metadata": {"a": "x" * 16_385}}, "documents[1].metadata"),
        ({"text": "x", "metadata": deep(6)}, "documents[1].metadata"),
        ({"text": "x", "metdata": {}}, "documents[1].metdata"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_one_bad_document_is_named_and_nothing_is_indexed(
    system: System, bad: dict[str, Any], field: str
) -> None:
    response = system.client.post("/index", json={"documents": [GOOD, bad]})
    problem = check_problem(response, 422)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert system.client.get("/documents/good").status_code == 404


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"documents": []}, "documents"),
        ({"documents": [{"text": str(n)} for n in range(1001)]}, "documents"),
        ({"documents": {}}, "documents"),
        ({"documents": [GOOD], "chunk_size": 63}, "chunk_size"),
        ({"documents": [GOOD], "chunk_size": 8193}, "chunk_size"),
        ({"documents": [GOOD], "chunk_size": 100, "overlap": 100}, "overlap"),
        ({"documents": [GOOD], "overlap": -1}, "overlap"),
        ({"documents": [GOOD], "collection": "a/b"}, "collection"),
        ({"documents": [GOOD], "wait": False}, "wait"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_an_index_request_out_of_range_names_its_field(
    system: System, fields: dict[str, Any], field: str
) -> None:
    problem = check_problem(system.client.post("/index", json=fields), 422)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert system.client.get("/documents/good").status_code == 404


def test_a_body_over_the_limit_is_413_with_or_without_its_length(system: System) -> None:
    body = b"x" * (50 * MEBIBYTE)

    def pieces() -> Any:
        for start in range(0, len(body), MEBIBYTE):
            yield body[start : start + MEBIBYTE]

    for content in (body, pieces()):
        try:
            response = system.client.post("/index", content=content, headers=JSON)
        except httpx.WriteError:
            continue  # refused while we were still sending, before the answer could be read
        check_problem(response, 413)
    assert system.client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/documents/absent", 404),
        ("DELETE", "/documents/absent", 404),
        ("GET", "/documents?collection=absent", 404),
        ("GET", "/documents?limit=0", 422),
        ("GET", "/documents?limit=x", 422),
        ("GET", "/documents?cursor=nonsense", 422),
        ("GET", "/documents?filter=nonsense", 422),
        ("GET", "/documents?unknown=1", 422),
    ],
)
def test_documents_that_cannot_be_had(system: System, method: str, path: str, status: int) -> None:
    check_problem(system.client.request(method, path), status)


@pytest.mark.parametrize("budget", ["0", "-1", "soon", "nan"])
def test_a_budget_that_is_no_time_is_refused(system: System, budget: str) -> None:
    response = system.client.post(
        "/query", json={"query": "x"}, headers={"X-Request-Timeout": budget}
    )
    problem = check_problem(response, 422)
    assert problem["errors"][0]["field"] == "X-Request-Timeout"


def test_a_sane_request_id_is_kept_and_another_is_replaced(system: System) -> None:
    kept = system.client.get("/documents/absent", headers={"X-Request-ID": "abc-123"})
    assert kept.headers["x-request-id"] == "abc-123"
    replaced = system.client.get("/documents/absent", headers={"X-Request-ID": "x" * 500})
    assert 0 < len(replaced.headers["x-request-id"]) <= 128
