"""The filters that docs/api.md shows, sent over HTTP to a gateway and its store."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway_process import ROOT, running

FIELDS = "team,year:integer,draft:bool,published:datetime,tags,author.name"
ROW = re.compile(r"\| `(\{.*?\})` \| ([^|]*)\|")


def guide() -> tuple[dict[str, dict[str, Any]], list[tuple[dict[str, Any], set[str]]]]:
    """The documents of the section on filters, and each filter with what it finds."""
    text = (ROOT / "docs" / "api.md").read_text().partition("### Filters")[2].partition("\n### ")[0]
    fence = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert fence is not None
    rows = [
        (json.loads(match[1]), {name.strip() for name in match[2].split(",") if name.strip()})
        for match in ROW.finditer(text)
    ]
    return json.loads(fence[1]), rows


async def found(client: httpx.AsyncClient, raw: dict[str, Any]) -> list[set[str]]:
    """What each route that takes a filter finds."""
    question = {"query": "which document?", "filter": raw}
    searched = await client.post("/search", json=question)
    queried = await client.post("/query", json=question)
    listed = await client.get("/documents", params={"filter": json.dumps(raw)})
    return [
        {source["document_id"] for source in searched.json()["sources"]},
        {source["document_id"] for source in queried.json()["sources"]},
        {document["id"] for document in listed.json()["documents"]},
    ]


@pytest.mark.parametrize("fields", ["", FIELDS], ids=["without indexes", "with indexes"])
async def test_every_filter_of_the_guide_finds_what_it_says(fields: str, tmp_path: Path) -> None:
    documents, rows = guide()
    assert len(rows) > 10
    async with (
        running(tmp_path, FILTER_FIELDS=fields) as site,
        site.gateway.client() as client,
    ):
        body = [
            {"id": name, "text": f"The document {name}.", "metadata": metadata}
            for name, metadata in documents.items()
        ]
        (await client.post("/index", json={"documents": body})).raise_for_status()
        for raw, names in rows:
            assert await found(client, raw) == [names] * 3, raw

        everything = await client.delete("/documents", params={"filter": "{}"})
        assert everything.status_code == 422
        drafts = {"filter": '{"draft": true}'}
        deleted = await client.delete("/documents", params=drafts)
        assert deleted.json() == {"deleted": 1, "chunks": 1}
        assert await found(client, {}) == [{"handbook", "minutes"}] * 3
        deleted = await client.delete("/documents", params=drafts)
        assert deleted.json() == {"deleted": 0, "chunks": 0}

        refused = await client.post(
            "/search", json={"query": "x", "filter": {"year": {"gte": "2024-01-01"}}}
        )
        assert refused.status_code == (422 if fields else 200)
        if fields:
            assert refused.json()["errors"][0]["field"] == "filter.year"
