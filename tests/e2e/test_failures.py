"""Processes are killed in the middle: nothing acknowledged is lost, no answer is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from support.system import System, eventually

FACTS = [
    {"id": f"fact-{n}", "text": f"The lighthouse number {n} was painted in colour {n * 7}."}
    for n in range(40)
]


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of this module's own, to break."""
    with System(tmp_path_factory.mktemp("fragile")) as system:
        system.index(*FACTS)
        yield system


def post(system: System, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return system.client.post(path, json=body, headers=headers)


def question() -> dict[str, Any]:
    """A question that nobody has asked before: one that is in the cache needs no embedder."""
    return {"query": f"Which colour has the lighthouse number 7? {uuid4().hex}"}


def answers_in_full(system: System) -> bool:
    """Whether every part takes part in an answer. `/health` may still show what was."""
    try:
        response = post(system, "/query", question())
    except httpx.TransportError:
        return False
    return response.status_code == 200 and response.json()["degraded"] == []


def recovered(system: System) -> None:
    eventually(lambda: answers_in_full(system), "answers in full again")


def refused(response: httpx.Response, reason: str) -> bool:
    """Whether it is the 503 of that reason, with the time to come back after."""
    problem = response.json()
    assert (response.status_code, problem["reason"]) == (503, reason)
    return int(response.headers["retry-after"]) >= 1


def test_without_the_reranker_the_order_of_retrieval_stays(fragile: System) -> None:
    ask = question()
    retrieved = post(fragile, "/search", ask | {"rerank": False}).json()["sources"]
    with fragile.gone("reranker_worker"):
        response = post(fragile, "/query", ask)
    assert response.status_code == 200
    in_order_of_retrieval(response.json(), retrieved)
    recovered(fragile)


def test_a_reranker_that_is_too_slow_is_done_without(fragile: System) -> None:
    ask = question()
    retrieved = post(fragile, "/search", ask | {"rerank": False}).json()["sources"]
    with fragile.hung("reranker_worker"):
        # It is waited for RERANK_TIMEOUT_SECONDS, of the 30 s that a request has.
        response = post(fragile, "/query", ask)
    assert response.status_code == 200
    in_order_of_retrieval(response.json(), retrieved)
    recovered(fragile)


def in_order_of_retrieval(answer: dict[str, Any], retrieved: list[dict[str, Any]]) -> None:
    assert answer["degraded"] == ["rerank"]
    assert answer["answer"]
    # /search marks no answer.
    unmarked = [{**source, "spans": None} for source in answer["sources"]]
    assert unmarked == [{**source, "spans": None} for source in retrieved]
    assert all(source["scores"]["rerank"] is None for source in answer["sources"])


def test_without_the_embedder_words_alone_are_searched(fragile: System) -> None:
    with fragile.gone("embedder_worker"):
        by_words_alone(post(fragile, "/search", question()))
        assert refused(
            post(fragile, "/search", question() | {"mode": "dense"}), "EMBEDDER_UNAVAILABLE"
        )
        assert post(fragile, "/search", question() | {"mode": "sparse"}).json()["degraded"] == []
        assert refused(
            post(fragile, "/index", {"documents": [{"id": "unheard", "text": "Not now."}]}),
            "EMBEDDER_UNAVAILABLE",
        )
    recovered(fragile)
    assert fragile.client.get("/documents/unheard").status_code == 404


def test_an_embedder_that_hangs_leaves_time_for_words(fragile: System) -> None:
    with fragile.hung("embedder_worker"):
        # Half of what is left is the most that a stage with a fallback may take.
        words = question() | {"rerank": False}
        by_words_alone(post(fragile, "/search", words, **{"X-Request-Timeout": "4"}))
        dense = question() | {"mode": "dense"}
        late = post(fragile, "/search", dense, **{"X-Request-Timeout": "1"})
    assert (late.status_code, late.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
    recovered(fragile)


def by_words_alone(response: httpx.Response) -> None:
    assert response.status_code == 200
    answer = response.json()
    assert answer["degraded"] == ["dense"]
    assert answer["sources"][0]["document_id"] == "fact-7"
    for source in answer["sources"]:
        assert source["scores"]["dense"] is None
        assert source["scores"]["sparse"] > 0


def test_without_the_generator_the_sources_are_still_to_be_had(fragile: System) -> None:
    with fragile.gone("generator_worker"):
        assert refused(post(fragile, "/query", question()), "GENERATOR_UNAVAILABLE")
        found = post(fragile, "/search", question()).json()
    assert found["degraded"] == []
    assert found["sources"]
    recovered(fragile)


@pytest.mark.parametrize(
    "module", ["embedder_worker", "reranker_worker", "generator_worker", "gateway.search.child"]
)
def test_killed_in_the_middle_nothing_acknowledged_is_lost_and_no_answer_is_wrong(
    fragile: System, module: str
) -> None:
    acknowledged: list[str] = []
    wrong: list[str] = []
    over = threading.Event()

    def write() -> None:
        for n in range(1000):
            if over.is_set():
                return
            name = f"{module}-{n}"
            response = post(
                fragile, "/index", {"documents": [{"id": name, "text": f"Entry {n} of {module}."}]}
            )
            if response.status_code == 200:
                acknowledged.append(name)
            elif response.status_code not in (502, 503, 504):
                wrong.append(response.text)

    def ask() -> None:
        while not over.is_set():
            response = post(fragile, "/query", question())
            if response.status_code == 200:
                if "colour 49" not in response.json()["answer"] + str(response.json()["sources"]):
                    wrong.append(response.text)
            elif response.status_code not in (502, 503, 504):
                wrong.append(response.text)

    threads = [threading.Thread(target=write), threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) >= 3, "writing has begun")
    fragile.kill(module)
    before = len(acknowledged)
    eventually(lambda: len(acknowledged) >= before + 3, "writing goes on by itself")
    over.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    recovered(fragile)
    for name in acknowledged:
        document = fragile.client.get(f"/documents/{name}")
        assert document.status_code == 200, name
        assert len(document.json()["chunks"]) == 1


def test_the_gateway_itself_killed_comes_back_with_everything_it_acknowledged(
    fragile: System,
) -> None:
    fragile.index({"id": "before-the-fall", "text": "Acknowledged before the gateway fell."})
    fragile.kill("gateway")
    recovered(fragile)
    assert fragile.client.get("/documents/before-the-fall").status_code == 200


def test_a_job_goes_on_when_its_gateway_is_killed(fragile: System) -> None:
    documents = [
        {"id": f"log/{n}", "text": f"Entry {n} of the keeper's log. " + f"Wind force {n}. " * 25}
        for n in range(400)
    ]
    body = {"documents": documents, "collection": "logs"}
    job_id = post(fragile, "/index?wait=false", body).json()["job_id"]

    def indexed() -> int:
        answer = fragile.client.get("/documents?limit=1000&collection=logs")
        return len(answer.json()["documents"]) if answer.status_code == 200 else 0

    eventually(lambda: indexed() >= 10, "some documents are indexed")
    assert fragile.client.get(f"/jobs/{job_id}").json()["state"] == "running"
    fragile.kill("gateway")
    recovered(fragile)

    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = fragile.client.get(f"/jobs/{job_id}").json()
        return None if job["state"] in ("queued", "running") else job

    job = eventually(ended, "the job has ended", timeout_s=120)
    assert job is not None
    assert (job["state"], job["progress"]) == ("succeeded", {"done": 400, "total": 400})
    assert [one["id"] for one in job["results"]] == [one["id"] for one in documents]
    assert indexed() == 400


def test_stopped_and_started_again_everything_is_there(tmp_path: Path) -> None:
    with System(tmp_path) as first:
        first.index({"id": "kept", "text": "What was written stays written."})
    with System(tmp_path) as second:
        assert second.client.get("/documents/kept").status_code == 200
        found = post(second, "/search", {"query": "what stays written"}).json()["sources"]
        assert [source["document_id"] for source in found] == ["kept"]


def test_a_second_system_on_the_same_folder_is_told_why_it_cannot_start(fragile: System) -> None:
    with pytest.raises(AssertionError, match="DATA_DIR"):
        System(fragile.data_dir)
    assert answers_in_full(fragile)
