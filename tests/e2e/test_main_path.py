"""Index documents, ask questions, read the answers: the main job over real processes and models."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from support.system import System, eventually

from runtime.answers import NO_ANSWER

QUESTION = "How does Rust ensure memory safety?"


def post(system: System, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = system.client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/json")
    answer: dict[str, Any] = response.json()
    return answer


def test_a_question_is_answered_with_its_sources(system: System) -> None:
    answer = post(system, "/query", {"query": QUESTION, "top_k": 2})
    assert set(answer) == {
        "answer", "sources", "latency_ms", "cache_hit", "timings_ms", "degraded", "usage",
        "model", "request_id",
    }  # fmt: skip
    assert "ownership" in answer["answer"]
    cited = {int(number) for number in re.findall(r"\[(\d+)\]", answer["answer"])}
    assert cited
    assert cited <= {1, 2}
    best = answer["sources"][0]
    assert set(best) == {
        "id", "document_id", "chunk", "text", "score", "scores", "metadata", "spans",
    }  # fmt: skip
    (span,) = best["spans"]
    assert "ownership" in best["text"][span["start"] : span["end"]]
    assert best["document_id"] == "rust/ownership"
    assert best["id"] == "rust/ownership#0"
    assert best["metadata"] == {"language": "rust", "chapter": 4}
    assert set(best["scores"]) == {"dense", "sparse", "rerank"}
    assert all(isinstance(score, float) for score in best["scores"].values())
    scores = [source["score"] for source in answer["sources"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert set(answer["timings_ms"]) == {"embed", "search", "rerank", "generate"}
    assert sum(answer["timings_ms"].values()) <= answer["latency_ms"]
    assert answer["degraded"] == []
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens"}
    assert set(answer["model"]) == {"embedder", "reranker", "generator"}
    assert answer["model"]["embedder"].startswith("all-MiniLM-L6-v2@")


def test_the_second_time_the_question_is_not_embedded_again(system: System) -> None:
    body = {"query": "Who frees memory in Go?", "rerank": False}
    assert post(system, "/search", body)["cache_hit"] is False
    again = post(system, "/search", body | {"query": "  Who frees \n memory in  Go? "})
    assert again["cache_hit"] is True


def events(system: System, body: dict[str, Any]) -> list[tuple[str, Any]]:
    received = []
    with system.client.stream("POST", "/query", json=body | {"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                received.append((name, json.loads(line.removeprefix("data: "))))
    return received


def test_a_stream_is_the_same_answer_in_pieces(system: System) -> None:
    whole = post(system, "/query", {"query": QUESTION})
    (first, sources), *tokens, (last, done) = events(system, {"query": QUESTION})
    assert (first, last) == ("sources", "done")
    assert [source["id"] for source in sources] == [source["id"] for source in whole["sources"]]
    assert {name for name, _ in tokens} == {"token"}
    assert "".join(data["text"] for _, data in tokens) == whole["answer"] == done["answer"]
    assert set(done) == set(whole) - {"sources"} | {"spans"}
    assert done["spans"] == [source["spans"] for source in whole["sources"]]


def test_what_the_documents_do_not_say_is_not_answered(system: System) -> None:
    answer = post(system, "/query", {"query": "When did Emperor Nero die?"})
    assert answer["answer"] == NO_ANSWER


def test_nothing_found_is_an_answer_without_sources(system: System) -> None:
    answer = post(system, "/query", {"query": QUESTION, "filter": {"language": "cobol"}})
    assert answer["answer"] == NO_ANSWER
    assert answer["sources"] == []


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_every_mode_finds_and_filters(system: System, mode: str) -> None:
    body = {"query": "garbage collector memory", "mode": mode, "rerank": False}
    found = post(system, "/search", body)["sources"]
    assert {"go/garbage", "rust/ownership"} <= {source["document_id"] for source in found}
    for source in found[:2]:
        assert (source["scores"]["dense"] is None) == (mode == "sparse")
        assert (source["scores"]["sparse"] is None) == (mode == "dense")
        assert source["scores"]["rerank"] is None
    filtered = post(system, "/search", body | {"filter": {"language": "go", "chapter": 1}})
    assert [source["document_id"] for source in filtered["sources"]] == ["go/garbage"]


def test_the_life_of_a_document(system: System) -> None:
    document = {"id": "life/of a/döcument", "text": "Zebras are striped.", "metadata": {"n": 1}}
    path = "/documents/life/of%20a/d%C3%B6cument"

    def status(**change: Any) -> str:
        (result,) = system.index(document | change)["results"]
        assert result["id"] == document["id"]
        return str(result["status"])

    assert status() == "added"
    assert status() == "unchanged"
    assert status(metadata={"n": 2}) == "replaced"
    assert status(text="Zebras gallop.", metadata={"n": 2}) == "replaced"
    shown = system.client.get(path).json()
    assert shown["text"] == "Zebras gallop."
    assert shown["metadata"] == {"n": 2}
    assert len(shown["chunks"]) == 1
    listed = system.client.get("/documents", params={"limit": 1000}).json()["documents"]
    assert [entry["id"] for entry in listed].count(document["id"]) == 1
    found = post(system, "/search", {"query": "striped zebras"})["sources"]
    assert [s["text"] for s in found if s["document_id"] == document["id"]] == ["Zebras gallop."]

    assert system.client.delete(path).json() == {"deleted": True, "chunks": 1}
    assert system.client.get(path).status_code == 404
    assert system.client.delete(path).status_code == 404
    found = post(system, "/search", {"query": "striped zebras"})["sources"]
    assert document["id"] not in {source["document_id"] for source in found}


def test_documents_are_listed_page_by_page(system: System) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = system.client.get("/documents", params=params).json()
        seen += [document["id"] for document in page["documents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert {"rust/ownership", "rust/threads", "go/garbage"} <= set(seen)
    assert len(seen) == len(set(seen))


def test_health_and_its_parts(system: System) -> None:
    health = system.client.get("/health").json()
    assert health["status"] == "healthy"
    assert health["components"] == dict.fromkeys(
        ("vector_db", "cache", "embedder", "reranker", "generator"), "up"
    )
    assert system.client.get("/health/live").status_code == 200
    assert system.client.get("/health/ready").status_code == 200


def test_metrics_count_what_happened(system: System) -> None:
    def queries() -> float:
        text = system.client.get("/metrics").text
        found = re.search(r"^rag_queries_total (\S+)$", text, re.M)
        assert found
        return float(found[1])

    before = queries()
    post(system, "/query", {"query": QUESTION})
    assert queries() == before + 1


def test_the_api_describes_itself(system: System) -> None:
    description = system.client.get("/openapi.json").json()
    assert description["openapi"].startswith("3.1")
    assert {"/query", "/search", "/index", "/documents", "/documents/{id}", "/health"} <= set(
        description["paths"]
    )
    page = system.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)


def test_each_request_is_one_line_of_json(system: System) -> None:
    system.client.post(
        "/query", json={"query": QUESTION}, headers={"X-Request-ID": "the-line-of-this-request"}
    )

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in system.stdout if "the-line-of-this-request" in line]

    # It is written once the answer is sent, and read by another thread.
    eventually(lambda: bool(lines()), "the request's line is in the log", 10)
    (line,) = lines()
    assert line["query"] == QUESTION
    assert line["status"] == 200
    assert line["sources"] == 3
    assert {
        "timestamp",
        "level",
        "target",
        "message",
        "latency_ms",
        "cache_hit",
        "trace_id",
    } <= set(line)


def test_a_budget_too_small_is_a_504_problem(system: System) -> None:
    response: httpx.Response = system.client.post(
        "/query", json={"query": "never asked before"}, headers={"X-Request-Timeout": "0.001"}
    )
    assert response.status_code == 504
    assert response.json()["reason"] == "DEADLINE_EXCEEDED"
