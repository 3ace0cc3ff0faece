"""Processes are killed in the middle: nothing acknowledged is lost, no answer is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.system import System, eventually

FACTS = [
    {"id": f"fact-{n}", "text": f"The lighthouse number {n} was painted in colour {n * 7}."}
    for n in range(40)
]
QUESTION = {"query": "Which colour has the lighthouse number 7?"}


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of this module's own, to break."""
    with System(tmp_path_factory.mktemp("fragile")) as system:
        system.index(*FACTS)
        yield system


def healthy(system: System) -> bool:
    try:
        return bool(system.client.get("/health").json()["status"] == "healthy")
    except httpx.TransportError:
        return False


def post(system: System, path: str, body: dict[str, Any]) -> httpx.Response:
    return system.client.post(path, json=body)


def test_without_the_reranker_the_order_of_retrieval_stays(fragile: System) -> None:
    whole = post(fragile, "/search", QUESTION | {"rerank": False}).json()
    with killed(fragile, "reranker_worker"):
        response = post(fragile, "/query", QUESTION)
        assert response.status_code == 200
        answer = response.json()
        if answer["degraded"]:  # it may have been back already
            assert answer["degraded"] == ["rerank"]
            assert [s["id"] for s in answer["sources"]] == [s["id"] for s in whole["sources"]]


def test_without_the_embedder_words_alone_are_searched(fragile: System) -> None:
    body = {"query": "lighthouse number 11 without a vector", "rerank": False}
    with killed(fragile, "embedder_worker"):
        answer = post(fragile, "/search", body)
        dense = post(fragile, "/search", body | {"mode": "dense"})
        assert answer.status_code == 200
        assert answer.json()["sources"]
        assert answer.json()["degraded"] in ([], ["dense"])
        if answer.json()["degraded"]:
            assert all(source["scores"]["dense"] is None for source in answer.json()["sources"])
        assert dense.status_code in (200, 503)
        if dense.status_code == 503:
            assert dense.json()["reason"] == "EMBEDDER_UNAVAILABLE"
            assert int(dense.headers["retry-after"]) >= 1


def test_without_the_generator_the_sources_are_still_to_be_had(fragile: System) -> None:
    with killed(fragile, "generator_worker"):
        answer = post(fragile, "/query", QUESTION)
        assert answer.status_code in (200, 503)
        if answer.status_code == 503:
            assert answer.json()["reason"] == "GENERATOR_UNAVAILABLE"
            assert int(answer.headers["retry-after"]) >= 1
        assert post(fragile, "/search", QUESTION).json()["sources"]


class killed:
    """Inside the block the worker is dead or coming back; after it everything is healthy again."""

    def __init__(self, system: System, module: str) -> None:
        self._system, self._module = system, module

    def __enter__(self) -> None:
        self._system.kill(self._module)

    def __exit__(self, *_: object) -> None:
        eventually(
            lambda: healthy(self._system) and bool(self._system.pid(self._module)),
            f"healthy again after {self._module} was killed",
        )


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
            response = post(fragile, "/query", QUESTION)
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
    eventually(lambda: healthy(fragile), "healthy again")
    for name in acknowledged:
        document = fragile.client.get(f"/documents/{name}")
        assert document.status_code == 200, name
        assert len(document.json()["chunks"]) == 1


def test_the_gateway_itself_killed_comes_back_with_everything_it_acknowledged(
    fragile: System,
) -> None:
    fragile.index({"id": "before-the-fall", "text": "Acknowledged before the gateway fell."})
    fragile.kill("gateway")
    eventually(lambda: healthy(fragile), "healthy again")
    assert fragile.client.get("/documents/before-the-fall").status_code == 200


def test_stopped_and_started_again_everything_is_there(tmp_path: Path) -> None:
    with System(tmp_path) as first:
        first.index({"id": "kept", "text": "What was written stays written."})
    with System(tmp_path) as second:
        assert second.client.get("/documents/kept").status_code == 200
        found = post(second, "/search", {"query": "what stays written"}).json()["sources"]
        assert [source["document_id"] for source in found] == ["kept"]


def test_a_second_system_on_the_same_folder_is_told_why_it_cannot_start(
    tmp_path: Path,
) -> None:
    with System(tmp_path), pytest.raises(AssertionError, match="DATA_DIR"):
        System(tmp_path)
