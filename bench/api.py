"""The system's REST API as the measurements call it, where the client's own speed is no matter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx

from bench.datasets import Document

# Longer than INDEX_TIMEOUT_SECONDS: the gateway is the one to give up.
TIMEOUT_S: Final = 660.0
DOCUMENTS_A_REQUEST: Final = 500
# Done, and taken as a job.
SUCCESSES: Final = frozenset({200, 202})


class Api:
    """Calls that must succeed: any status not of SUCCESSES raises httpx.HTTPStatusError."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def index(self, documents: Sequence[Document], **chunking: int) -> dict[str, Any]:
        """POST /index; chunking: `chunk_size` and `overlap`, or nothing for the defaults."""
        rows = [
            {"id": document.id, "text": document.text, "metadata": document.metadata}
            for document in documents
        ]
        return await self._json("POST", "/index", json={"documents": rows} | chunking)

    async def index_all(self, documents: Sequence[Document], **chunking: int) -> int:
        """Indexes any number of documents; how many passages they were cut into."""
        chunks = 0
        for start in range(0, len(documents), DOCUMENTS_A_REQUEST):
            answer = await self.index(documents[start : start + DOCUMENTS_A_REQUEST], **chunking)
            chunks += answer["chunks"]
        return chunks

    async def search(self, **ask: Any) -> dict[str, Any]:
        """POST /search."""
        return await self._json("POST", "/search", json=ask)

    async def query(self, **ask: Any) -> dict[str, Any]:
        """POST /query."""
        return await self._json("POST", "/query", json=ask)

    async def chunks(self, document_id: str) -> list[str]:
        """The texts that a document was cut into."""
        document = await self._json("GET", f"/documents/{quote(document_id)}")
        return [chunk["text"] for chunk in document["chunks"]]

    async def text(self, document_id: str) -> str:
        """The source text of a document."""
        document = await self._json("GET", f"/documents/{quote(document_id, safe='')}")
        return str(document["text"])

    async def reindex(self, **ask: Any) -> str:
        """POST /reindex; the job's id."""
        return str((await self._json("POST", "/reindex", json=ask))["job_id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        """GET /jobs/{id}."""
        return await self._json("GET", f"/jobs/{job_id}")

    async def _json(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        response = await self._client.request(method, path, **how)
        if response.status_code not in SUCCESSES:
            raise httpx.HTTPStatusError(
                f"{method} {path}: {response.status_code} {response.text[:500]}",
                request=response.request,
                response=response,
            )
        answer: dict[str, Any] = response.json()
        return answer


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Api]:
    """A client of the system at `url`."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield Api(client)
