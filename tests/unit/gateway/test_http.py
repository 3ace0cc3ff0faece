"""The routes through the whole middleware: what is answered, refused, kept and logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from support.gateway import marked
from support.http import Site

from gateway.metrics import GatewayMetrics
from gateway.problems import PROBLEMS, problem
from gateway.search.types import Chunking
from runtime.answers import NO_ANSWER
from runtime.errors import INTERNAL_MESSAGE, Reason, ServiceError

QUERY = {"query": "why?"}


def check_problem(response: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["reason"] == reason
    assert body["type"] == "/problems/" + reason.lower().replace("_", "-")
    assert body["instance"] == response.headers["x-request-id"]
    assert body["status"] == status
    assert ("retry-after" in response.headers) == (status == 503)
    return body


async def test_an_answer_has_the_shape_of_the_contract() -> None:
    site = Site()
    site.parts.generator.pieces = ("Because ", "of [1].", marked((0, 8, 9)))
    site.parts.reranker.values = (0.1, 0.05, 0.01)
    async with site.client() as client:
        response = await client.post("/query", json=QUERY)
    assert response.status_code == 200
    body = response.json()
    assert body["answer"] == "Because of [1]."
    assert set(body) == {
        "answer", "sources", "latency_ms", "cache_hit", "timings_ms", "degraded", "usage",
        "model", "request_id",
    }  # fmt: skip
    assert body["model"]["generator"] == "extractive:MiniLM"
    assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 3}
    assert set(body["timings_ms"]) == {"embed", "search", "rerank", "generate"}
    assert sum(body["timings_ms"].values()) <= body["latency_ms"]
    assert body["sources"][0] == {
        "id": "a#0",
        "document_id": "a",
        "chunk": 0,
        "text": "text of a",
        "score": body["sources"][0]["score"],
        "scores": {"dense": 0.9, "sparse": None, "rerank": 0.1},
        "metadata": {"title": "A"},
        "spans": [{"start": 8, "end": 9}],
    }
    assert [source["spans"] for source in body["sources"][1:]] == [[], []]
    assert body["request_id"] == response.headers["x-request-id"]


async def test_a_search_has_no_generation_fields() -> None:
    async with Site().client() as client:
        body = (await client.post("/search", json=QUERY | {"rerank": False})).json()
    assert set(body) == {
        "sources", "latency_ms", "cache_hit", "timings_ms", "degraded", "request_id",
    }  # fmt: skip
    assert set(body["timings_ms"]) == {"embed", "search", "rerank"}
    assert "spans" not in body["sources"][0]


@pytest.mark.parametrize("top_k", [51, 200])
async def test_search_gives_more_than_query(top_k: int) -> None:
    async with Site().client() as client:
        assert (await client.post("/search", json=QUERY | {"top_k": top_k})).status_code == 200
        refused = await client.post("/query", json=QUERY | {"top_k": top_k})
    check_problem(refused, 422, "INVALID_ARGUMENT")


async def test_nothing_found_is_an_answer() -> None:
    site = Site()
    site.store.hits = ()
    async with site.client() as client:
        body = (await client.post("/query", json=QUERY)).json()
    assert (body["answer"], body["sources"]) == (NO_ANSWER, [])
    assert body["model"]["generator"] is None


async def test_all_faults_of_a_request_are_named() -> None:
    site = Site()
    documents = [
        {"text": "fine"},
        {"text": "", "id": "a\nb"},
        {"metadata": []},
        {"text": " "},
        {"text": "x", "nonsense": 1},
    ]
    async with site.client() as client:
        response = await client.post("/index", json={"documents": documents, "chunk_size": 1})
    faults = check_problem(response, 422, "INVALID_ARGUMENT")["errors"]
    assert [fault["field"] for fault in faults] == [
        "documents[1].text",
        "documents[1].id",
        "documents[2].text",
        "documents[2].metadata",
        "documents[3].text",
        "documents[4].nonsense",
        "chunk_size",
    ]
    assert "regex" not in response.text
    assert site.indexer.calls == []


@pytest.mark.parametrize("document_id", [".", ".."])
async def test_an_id_that_no_url_reaches_is_refused(document_id: str) -> None:
    site = Site()
    documents = [{"id": "...", "text": "x"}, {"id": document_id, "text": "x"}]
    async with site.client() as client:
        response = await client.post("/index", json={"documents": documents})
    (fault,) = check_problem(response, 422, "INVALID_ARGUMENT")["errors"]
    assert fault["field"] == "documents[1].id"
    assert "clients resolve these in a URL" in fault["message"]
    assert site.indexer.calls == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_path_without_an_id_says_so(method: str) -> None:
    """Which is what clients make of /documents/. too."""
    async with Site().client() as client:
        response = await client.request(method, "/documents/")
        (fault,) = check_problem(response, 422, "INVALID_ARGUMENT")["errors"]
        assert fault["field"] == "id"
        assert fault["message"].startswith("The path names no document.")
        kept = await client.request(method, "/documents/a%2F..%2Fb")
    assert check_problem(kept, 404, "DOCUMENT_NOT_FOUND")["detail"].count("'a/../b'") == 1


async def test_an_index_request_reaches_the_indexer_whole() -> None:
    site = Site()
    documents = [{"id": "a/b", "text": "x", "metadata": {"n": 1}}, {"text": "y"}, {"text": "z"}]
    async with site.client() as client:
        response = await client.post("/index", json={"documents": documents, "chunk_size": 100})
    body = response.json()
    assert body["indexed"] == 3
    assert body["chunks"] == 3
    (call,) = site.indexer.calls
    assert call["chunking"] == Chunking(100, 50)
    assert [one.id for one in call["documents"]] == [one["id"] for one in body["results"]]
    assert call["documents"][0].metadata == {"n": 1}
    assert call["deadline"].remaining_s() > 40
    # UUIDv5 of the text: the same text is the same document, for ever.
    assert body["results"][1]["id"] == "45673232-8ced-5831-88c0-42f63de6aa5e"


@pytest.mark.parametrize(
    ("documents", "field"),
    [
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "documents[1].id"),
        ([{"text": "x"}, {"text": "y"}, {"text": "x"}], "documents[2].text"),
    ],
)
async def test_the_same_document_twice_is_refused(documents: list[Any], field: str) -> None:
    async with Site().client() as client:
        response = await client.post("/index", json={"documents": documents})
    (fault,) = check_problem(response, 422, "INVALID_ARGUMENT")["errors"]
    assert fault["field"] == field


async def test_only_documents_may_be_large() -> None:
    large = QUERY | {"filter": {"a": "x" * (1 << 20)}}
    async with Site().client() as client:
        check_problem(await client.post("/search", json=large), 413, "BODY_TOO_LARGE")
        documents = [{"text": "x" * (1 << 20)}]
        assert (await client.post("/index", json={"documents": documents})).status_code == 200


async def test_a_body_is_not_kept_beside_what_is_made_of_it() -> None:
    site = Site()
    kept: list[deque[bytes]] = []

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        await site.app(scope, receive, send)
        kept.append(scope["exchange"].body)

    transport = httpx.ASGITransport(spy)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.post("/search", json=QUERY)).status_code == 200
    assert kept == [deque()]


@pytest.mark.parametrize(
    ("chunking", "words"),
    [
        ({"chunk_size": 64, "overlap": 64}, "(64), got 64"),
        ({"overlap": 512}, "(512), got 512"),  # the collection's own chunk size
    ],
)
async def test_overlap_is_checked_against_the_chunk_size_that_counts(
    chunking: dict[str, int], words: str
) -> None:
    async with Site().client() as client:
        body = {"documents": [{"text": "x"}], **chunking}
        answer = await client.post("/index", json=body)
        (fault,) = check_problem(answer, 422, "INVALID_ARGUMENT")["errors"]
    assert fault == {"field": "overlap", "message": f"Expected less than `chunk_size` {words}"}


async def test_documents_are_listed_shown_and_deleted() -> None:
    async with Site().client() as client:
        page = (await client.get("/documents", params={"filter": '{"n": 1}', "limit": 3})).json()
        assert page["documents"][0]["id"] == "there/it is"
        assert page["next_cursor"] is None
        for path in ("/documents/there/it%20is", "/documents/there%2Fit%20is"):
            shown = (await client.get(path)).json()
            assert shown["text"] == "text"
            assert shown["chunks"] == [{"chunk": 0, "text": "text"}]
        deleted = await client.delete("/documents/there/it is")
        assert deleted.json() == {"deleted": True, "chunks": 1}
        check_problem(await client.get("/documents/not"), 404, "DOCUMENT_NOT_FOUND")
        check_problem(await client.delete("/documents/not"), 404, "DOCUMENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/query", "POST"),
        ("PUT", "/documents/x", "DELETE, GET, HEAD"),
        ("PUT", "/documents", "DELETE, GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_there_are(method: str, path: str, allowed: str) -> None:
    async with Site().client() as client:
        response = await client.request(method, path)
    check_problem(response, 405, "METHOD_NOT_ALLOWED")
    assert sorted(response.headers["allow"].split(", ")) == allowed.split(", ")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/embeddings", "/jobs/", "/query/", "/documents/", "/collections/"]
)
async def test_what_is_not_there_is_404(path: str) -> None:
    async with Site().client() as client:
        response = await client.get(path)
    assert response.status_code in (404, 422)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "url",
    [
        "/documents?limit=0",
        "/documents?limit=1001",
        "/documents?limit=x",
        "/documents?limit=1&limit=2",
        "/documents?filter=[]",
        "/documents?filter={",
        "/documents?filter={%22a%22:{%22gte%22:true}}",
        "/documents?unknown=1",
        "/documents?collection=A",
        "/documents/there?x=1",
        "/documents/" + "x" * 257,
        "/documents/a%01b",
    ],
)
async def test_parameters_out_of_range_are_422(url: str) -> None:
    async with Site().client() as client:
        problem_document = check_problem(await client.get(url), 422, "INVALID_ARGUMENT")
    assert problem_document["errors"]


async def test_a_query_string_where_none_is_taken_is_422() -> None:
    async with Site().client() as client:
        check_problem(await client.post("/query?wait=false", json=QUERY), 422, "INVALID_ARGUMENT")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "json"])
async def test_other_content_types_are_415(kind: str) -> None:
    async with Site().client() as client:
        response = await client.post(
            "/query", content=json.dumps(QUERY), headers={"Content-Type": kind}
        )
    check_problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Encoding": "gzip"}, "`Content-Encoding: gzip`"),
        ({"Content-Encoding": "x" * 100}, f"`Content-Encoding: {'x' * 64}`"),
        ({"Content-Type": "application/json; charset=utf-16"}, "charset `utf-16`"),
        ({"Content-Type": 'application/json;v=1; Charset="latin1"'}, "charset `latin1`"),
    ],
)
@pytest.mark.parametrize("path", ["/query", "/index"])
async def test_a_body_that_is_encoded_is_415(
    path: str, headers: dict[str, str], words: str
) -> None:
    async with Site().client() as client:
        response = await client.post(
            path, content=b"\x1f\x8b", headers={"Content-Type": "application/json"} | headers
        )
    assert words in check_problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")["detail"]
    assert response.headers.get("accept-encoding") == (
        "identity" if "Content-Encoding" in headers else None
    )


async def test_a_body_that_is_encoded_as_nothing_is_taken() -> None:
    async with Site().client() as client:
        response = await client.post("/query", json=QUERY, headers={"Content-Encoding": "Identity"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        'application/json;Charset="UTF-8"',
        "application/ld+json",
    ],
)
async def test_every_way_to_say_json_is_taken(kind: str) -> None:
    async with Site().client() as client:
        response = await client.post(
            "/query", content=json.dumps(QUERY), headers={"Content-Type": kind}
        )
    assert response.status_code == 200


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_has_its_status_and_is_counted(reason: Reason) -> None:
    site = Site()
    site.store.error = ServiceError(reason, "The words for people.")
    async with site.client() as client:
        response = await client.post("/search", json=QUERY)
    body = check_problem(response, PROBLEMS[reason][0], reason.value)
    assert body["detail"] == "The words for people."
    sample = site.parts.registry.get_sample_value("rag_errors_total", {"type": reason.value})
    assert sample == 1


async def test_what_nobody_foresaw_is_500_without_a_word_of_the_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    site.store.error = RuntimeError("/secret/path")
    async with site.client() as client:
        response = await client.post("/search", json=QUERY)
    check_problem(response, 500, "INTERNAL")
    assert "secret" not in response.text
    assert "RuntimeError: /secret/path" in caplog.text


async def test_an_error_of_the_framework_that_nobody_foresaw_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    site.store.error = HTTPException(418, "secret")
    async with site.client() as client:
        response = await client.post("/search", json=QUERY)
    assert check_problem(response, 500, "INTERNAL")["detail"] == INTERNAL_MESSAGE
    assert "418: secret" in caplog.text


def test_retry_after_is_whole_seconds_and_never_none() -> None:
    for given, told in ((None, "1"), (0.01, "1"), (2.2, "3")):
        _, headers = problem(ServiceError(Reason.QUEUE_FULL, "full", given), "id")
        assert headers["Retry-After"] == told


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic one", 401),
        ("one", 401),
        ("Bearer one", 200),
        ("bearer two", 200),
    ],
)
async def test_with_keys_only_their_holders_may_call(header: str | None, status: int) -> None:
    async with Site(keys=("one", "two")).client() as client:
        headers = {} if header is None else {"Authorization": header}
        response = await client.post("/search", json=QUERY, headers=headers)
        assert response.status_code == status
        if status == 401:
            check_problem(response, 401, "UNAUTHORIZED")
            assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/health/live", "/metrics", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        home = await client.get("/")
        assert (home.status_code, home.headers["location"]) == (307, "/docs")
        assert (await client.get("/documents")).status_code == 401


async def test_one_request_too_many_is_503_and_probes_pass() -> None:
    site = Site(most=1)
    site.store.gate.clear()
    async with site.client() as client:
        inside = asyncio.create_task(client.post("/search", json=QUERY))
        while not site.store.calls:
            await asyncio.sleep(0)
        check_problem(await client.post("/search", json=QUERY), 503, "OVERLOADED")
        assert (await client.get("/health/live")).status_code == 200
        assert "rag_active_requests 1.0" in (await client.get("/metrics")).text
        site.store.gate.set()
        assert (await inside).status_code == 200
        assert (await client.post("/search", json=QUERY)).status_code == 200


async def test_while_draining_new_requests_are_503_and_old_ones_finish() -> None:
    site = Site()
    site.store.gate.clear()
    async with site.client() as client:
        inside = asyncio.create_task(client.post("/search", json=QUERY))
        while not site.store.calls:
            await asyncio.sleep(0)
        site.health.drain()
        site.admission.close()
        check_problem(await client.post("/search", json=QUERY), 503, "DRAINING")
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        site.store.gate.set()
        assert (await inside).status_code == 200
        await asyncio.wait_for(site.admission.wait_empty(), 5)


async def test_what_the_drain_cuts_off_is_told_to_ask_another() -> None:
    site = Site()
    site.store.gate.clear()
    async with site.client() as client:
        inside = asyncio.create_task(client.post("/search", json=QUERY))
        while not site.store.calls:
            await asyncio.sleep(0)
        site.admission.close()
        site.admission.cut_off()
        check_problem(await inside, 503, "DRAINING")
    assert site.store.cancelled.is_set()
    assert site.admission.inside() == 0


@pytest.mark.parametrize(("budget", "header"), [(0.1, None), (30, "0.1")])
async def test_the_budget_is_the_settings_or_the_callers_if_shorter(
    budget: float, header: str | None
) -> None:
    site = Site(budget_s=budget)
    site.store.gate.clear()
    headers = {} if header is None else {"X-Request-Timeout": header}
    async with site.client() as client:
        response = await client.post("/search", json=QUERY, headers=headers)
    check_problem(response, 504, "DEADLINE_EXCEEDED")
    assert site.store.cancelled.is_set()


async def test_a_caller_cannot_lengthen_the_budget() -> None:
    site = Site(budget_s=0.1)
    site.store.gate.clear()
    async with site.client() as client:
        response = await client.post("/search", json=QUERY, headers={"X-Request-Timeout": "99"})
    check_problem(response, 504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("given", ["abc-1.2:3/4", "0af7651916cd43dd8448eb211c80319c"])
async def test_a_sane_request_id_is_kept(given: str) -> None:
    async with Site().client() as client:
        response = await client.get("/nowhere", headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, '"', "é".encode()])
async def test_another_request_id_is_replaced(given: str | bytes) -> None:
    async with Site().client() as client:
        response = await client.get("/nowhere", headers={"X-Request-ID": given})
    assert len(response.headers["x-request-id"]) == 32


def line_of(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = [one for one in caplog.records if one.name == "gateway.requests"]
    return record


async def test_each_request_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with Site().client() as client:
        await client.post("/query", json={"query": "w" * 300}, headers={"traceparent": trace})
    line = vars(line_of(caplog))
    assert line["query"] == "w" * 200
    assert (line["status"], line["sources"], line["cache_hit"]) == (200, 3, False)
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["latency_ms"] > 0
    assert line["request_id"]


async def test_queries_are_not_logged_when_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Site(log_queries=False).client() as client:
        await client.post("/query", json=QUERY)
    assert vars(line_of(caplog))["query"] is None


async def test_secrets_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Site(keys=("very-secret",)).client() as client:
        await client.post("/search", json=QUERY, headers={"Authorization": "Bearer very-secret"})
    assert not any("very-secret" in str(vars(record)) for record in caplog.records)


async def test_only_questions_are_queries() -> None:
    site = Site()
    async with site.client() as client:
        await client.post("/query", json=QUERY)
        await client.post("/search", json=QUERY)
    assert site.parts.registry.get_sample_value("rag_queries_total") == 1
    assert site.parts.registry.get_sample_value("rag_query_duration_seconds_count") == 1


async def test_every_series_is_there_from_the_first_scrape(registry: CollectorRegistry) -> None:
    GatewayMetrics(registry)
    for name, labels in (
        ("rag_queries_total", {}),
        ("rag_query_duration_seconds_bucket", {"le": "0.1"}),
        ("rag_cache_hits_total", {"tier": "memory"}),
        ("rag_cache_hits_total", {"tier": "redis"}),
        ("rag_cache_misses_total", {}),
        ("rag_active_requests", {}),
        ("rag_component_up", {"component": "embedder"}),
        ("rag_stage_duration_seconds_count", {"stage": "rerank"}),
        *(("rag_errors_total", {"type": reason.value}) for reason in PROBLEMS),
    ):
        assert registry.get_sample_value(name, labels) == 0, (name, labels)
