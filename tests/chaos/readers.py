"""Readers of documents that nobody writes: every answer holds each chunk exactly once."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import httpx
from chaos import texts
from chaos.checks import MOST_HITS, uncovered
from chaos.ledger import Content
from chaos.processes import Cluster

TIMEOUT_S: Final = 60.0
MOST_PAUSE_S: Final = 0.03


class Reader:
    """Asks for one of `documents` after the other, by their words and by their vectors.

    answered: how many searches gave something; failed: what became of the others;
    torn: answers that hold a document otherwise than whole, in one way of cutting it.
    """

    def __init__(self, seed: int, cluster: Cluster, documents: dict[str, Content]) -> None:
        self._rng = random.Random(f"{seed} reader")
        self._cluster = cluster
        self._documents = documents
        self.answered = 0
        self.failed: list[str] = []
        self.torn: list[str] = []

    async def run(self, over: asyncio.Event) -> None:
        """Reads until it is `over`."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while not over.is_set():
                await self._cluster.gateway.listening.wait()
                await self._read(client)
                await asyncio.sleep(self._rng.uniform(0, MOST_PAUSE_S))

    async def _read(self, client: httpx.AsyncClient) -> None:
        document_id = self._rng.choice(sorted(self._documents))
        ask = {
            "query": texts.token(document_id),
            "mode": self._rng.choice(("sparse", "dense", "hybrid")),
            "top_k": MOST_HITS,
            "rerank": False,
            "filter": {"doc": document_id},
        }
        try:
            response = await client.post(f"{self._cluster.url}/search", json=ask)
        except httpx.TransportError as error:
            self.failed.append(type(error).__name__)
            return
        if response.status_code != 200:
            self.failed.append(f"{response.status_code} {response.json()['reason']}")
            return
        self.answered += 1
        answer = response.json()
        if "dense" in answer["degraded"]:
            self.failed.append(f"{ask['mode']} without the dense stage")
        hits = sorted((hit["chunk"], hit["text"]) for hit in answer["sources"])
        ordinals = [ordinal for ordinal, _ in hits]
        gap = uncovered(self._documents[document_id].text, [text for _, text in hits])
        if ordinals != list(range(len(hits))) or gap is not None:
            self.torn.append(f"{ask['mode']} search for {document_id}: chunks {ordinals}, {gap}")
