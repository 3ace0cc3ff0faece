"""Writers that index, replace and delete by chance, and never ask twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

import httpx
from chaos import texts
from chaos.ledger import Content, Ledger, Write
from chaos.processes import Cluster

TIMEOUT_S: Final = 60.0
# What a caller may be told while processes die; anything else is a fault.
REFUSALS: Final = frozenset({503, 504})
# Between two writes of one writer.
MOST_PAUSE_S: Final = 0.06
_ACTS: Final = {"fresh": 40, "edited": 20, "marked": 10, "again": 5, "several": 7, "delete": 18}


class Writer:
    """One client, which writes its documents one after the other.

    patient: it never gives a short time-out, and nothing may be refused.
    unexpected: answers that no death of a process explains.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        cluster: Cluster,
        ledger: Ledger,
        document_ids: Sequence[str],
    ) -> None:
        self._rng = random.Random(f"{seed} {name}")
        # Marks of two writers differ, and so do their texts.
        self._mark = self._rng.randrange(1, 1000) * 1_000_000
        self._cluster = cluster
        self._ledger = ledger
        self._ids = document_ids
        self.patient = False
        self._tried: dict[str, Content] = {}
        self.unexpected: list[str] = []

    async def run(self, over: asyncio.Event) -> None:
        """Writes until it is `over`; the write under way is finished."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while not over.is_set():
                await self._cluster.gateway.listening.wait()
                await self._write(client)
                await asyncio.sleep(self._rng.uniform(0, MOST_PAUSE_S))

    async def _write(self, client: httpx.AsyncClient) -> None:
        (act,) = self._rng.choices(list(_ACTS), list(_ACTS.values()))
        document_id = self._rng.choice(self._ids)
        impatience = self._impatience()
        if act == "delete":
            path = f"/documents/{quote(document_id, safe='')}"
            await self._send(client, {document_id: None}, "DELETE", path, **impatience)
            return
        several = act == "several"
        chosen = self._rng.sample(self._ids, min(3, len(self._ids))) if several else [document_id]
        made = {one: self._content(act, one) for one in chosen}
        # A request names one chunking.
        chunking = made[chosen[0]].chunking
        contents = {one: replace(content, chunking=chunking) for one, content in made.items()}
        self._tried |= contents
        documents = [
            {"id": one, "text": content.text, "metadata": texts.metadata(one, content.mark)}
            for one, content in contents.items()
        ]
        body: dict[str, Any] = {"documents": documents}
        if chunking is not None:
            body |= {"chunk_size": chunking.chunk_size, "overlap": chunking.overlap}
        await self._send(client, dict(contents), "POST", "/index", json=body, **impatience)

    def _content(self, act: str, document_id: str) -> Content:
        self._mark += 1
        before = self._tried.get(document_id)
        if before is None or act in ("fresh", "several"):
            return texts.fresh(self._rng, document_id, self._mark)
        if act == "edited":
            return texts.edited(self._rng, document_id, self._mark, before)
        return texts.marked(self._mark, before) if act == "marked" else before

    def _impatience(self) -> dict[str, Any]:
        """One caller in twenty gives the gateway little time, another leaves early."""
        drawn, short_s = self._rng.random(), self._rng.uniform(0.005, 0.2)
        if self.patient:
            return {}
        if drawn < 0.05:
            return {"headers": {"X-Request-Timeout": f"{short_s:.3f}"}}
        return {"timeout": short_s} if drawn < 0.1 else {}

    async def _send(
        self,
        client: httpx.AsyncClient,
        contents: dict[str, Content | None],
        method: str,
        path: str,
        **how: Any,
    ) -> None:
        """One request; whatever becomes of it goes into the ledger."""
        started_s = time.monotonic()
        try:
            response = await client.request(method, self._cluster.url + path, **how)
        except httpx.TransportError as error:
            acknowledged, answer = False, type(error).__name__
            if self.patient:
                self.unexpected.append(f"{method} {path}: {answer}")
        else:
            acknowledged, answer = self._judged(method, path, response)
        ended_s = time.monotonic()
        for document_id, content in contents.items():
            self._ledger.add(Write(document_id, content, started_s, ended_s, acknowledged, answer))

    def _judged(self, method: str, path: str, response: httpx.Response) -> tuple[bool, str]:
        """Whether it says that the write is done, and what it says."""
        reason = "" if response.status_code == 200 else response.json()["reason"]
        answer = f"{response.status_code} {reason}".strip()
        absent = method == "DELETE" and reason == "DOCUMENT_NOT_FOUND"
        if response.status_code == 200 or absent:
            return True, answer
        if self.patient or response.status_code not in REFUSALS:
            self.unexpected.append(f"{method} {path}: {response.status_code} {response.text}")
        return False, answer
