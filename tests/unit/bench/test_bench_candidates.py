"""What a reranker is given: asked as a /query asks, each question of its own documents."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from bench import candidates, datasets
from bench.api import Api
from bench.datasets import Document, Question

OWN = {"question": 1}
COLLECTION = datasets.TestCollection(
    "made up",
    (Document("a", "Rome fell."), Document("b", "It fell in 476.", OWN)),
    (Question("0", "what?", {"a": 1}), Question("1", "when?", {"b": 1}, OWN)),
)


class System:
    """Finds both documents for whatever is asked, the first of them twice."""

    def __init__(self, degraded: list[str], found: int = 3) -> None:
        self._degraded = degraded
        self._found = found
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/index":
            return httpx.Response(200, json={"chunks": len(body["documents"])})
        self.asked.append(body)
        sources = [{"document_id": one, "text": f"of {one}"} for one in "aab"][: self._found]
        return httpx.Response(200, json={"sources": sources, "degraded": self._degraded})


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Any:
    async def retrieved(system: System) -> list[candidates.Candidates]:
        transport = httpx.MockTransport(system)
        monkeypatch.setattr(
            candidates,
            "connected",
            lambda url: _Connected(httpx.AsyncClient(base_url=url, transport=transport)),
        )
        return await candidates._ask("http://made.up", COLLECTION, 2)

    return retrieved


class _Connected:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __aenter__(self) -> Api:
        return Api(self._client)

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


async def test_each_question_is_asked_of_its_own_documents_in_retrievals_order(
    through: Any,
) -> None:
    system = System(["query_truncated"])  # which says something about the model alone
    found = await through(system)
    how = {"mode": "hybrid", "rerank": False, "top_k": candidates.DEPTH}
    assert system.asked == [{"query": "what?", **how}, {"query": "when?", **how, "filter": OWN}]
    assert [one.query for one in found] == ["what?", "when?"]
    assert [one.grades for one in found] == [{"a": 1}, {"b": 1}]
    # Two are reranked, the third stays behind them.
    assert (found[0].passages, found[0].documents, found[0].rest) == (
        ("of a", "of a"), ("a", "a"), ("b",),
    )  # fmt: skip


@pytest.mark.parametrize("system", [System(["embed"]), System([], found=0)])
async def test_what_was_found_without_a_stage_or_not_at_all_is_not_measured(
    through: Any, system: System
) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await through(system)
    assert raised.group_contains(RuntimeError, match="question 0")
