"""What is stored, seen through the REST API, held against the ledger."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx
from chaos import texts
from chaos.ledger import Content, Ledger

from gateway.chunking import cut
from gateway.search.types import Chunking

TIMEOUT_S: Final = 60.0
DEFAULT_CHUNKING: Final = Chunking(512, 50)
# Small, so that there are several pages.
PAGE: Final = 7
MOST_HITS: Final = 200


class Unreadable(Exception):
    """The gateway did not answer though nobody harms it."""


@dataclass(slots=True)
class Checked:
    """Documents looked at, those that were there, chunks compared, and what was wrong."""

    documents: int = 0
    present: int = 0
    chunks: int = 0
    searches: int = 0
    faults: list[str] = field(default_factory=list)


async def check(
    url: str, ledger: Ledger, document_ids: Sequence[str], chunking: Chunking = DEFAULT_CHUNKING
) -> Checked:
    """Looks at every document, then settles the ledger on what was found.

    chunking: the collection's own, of documents that named none.
    Raises Unreadable when documents cannot be listed or searched.
    """
    checked = Checked()
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        listed = await _listed(client, document_ids, checked)
        for document_id in document_ids:
            checked.documents += 1
            try:
                found = await _document(client, document_id)
            except Unreadable as error:
                checked.faults.append(f"{document_id}: {error}; {_story(ledger, document_id)}")
                continue
            possible = ledger.possible(document_id)
            content = _match(found, possible)
            wrong = list(_faults(found, content, possible, listed.get(document_id), chunking))
            wrong += await _search_faults(client, document_id, found, checked)
            for fault in wrong:
                checked.faults.append(f"{document_id}: {fault}; {_story(ledger, document_id)}")
            if found is not None:
                checked.present += 1
                checked.chunks += len(found["chunks"])
            ledger.settle(document_id, content)
    return checked


async def _listed(
    client: httpx.AsyncClient, document_ids: Sequence[str], checked: Checked
) -> dict[str, Any]:
    """Documents by id as GET /documents lists them, a page at a time."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = _ok(await client.get("/documents", params={"limit": PAGE, **cursor}))
        items += page["documents"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    counts = Counter(item["id"] for item in items)
    checked.faults += [f"{one}: listed {n} times" for one, n in counts.items() if n > 1]
    checked.faults += [f"{one}: listed, never written" for one in counts.keys() - {*document_ids}]
    return {item["id"]: item for item in items}


async def _document(client: httpx.AsyncClient, document_id: str) -> dict[str, Any] | None:
    response = await client.get(f"/documents/{quote(document_id, safe='')}")
    if response.status_code == 404 and response.json()["reason"] == "DOCUMENT_NOT_FOUND":
        return None
    return _ok(response)


def _match(found: dict[str, Any] | None, possible: set[Content | None]) -> Content | None:
    """Which of the possible contents it is; None also stands for none of them."""
    if found is None:
        return None
    mark = found["metadata"].get("mark")
    for content in possible:
        if content is not None and (content.text, content.mark) == (found["text"], mark):
            return content
    return None


def _faults(
    found: dict[str, Any] | None,
    content: Content | None,
    possible: set[Content | None],
    listed: dict[str, Any] | None,
    chunking: Chunking,
) -> Iterator[str]:
    if found is None:
        if None not in possible:
            yield "lost"
        if listed is not None:
            yield "listed, but not there"
        return
    if content is None:
        yield f"holds mark {found['metadata'].get('mark')}, which it may not"
        return
    if listed is None:
        yield "not listed"
    elif (listed["chunks"], listed["metadata"], listed["content_sha256"]) != (
        len(found["chunks"]),
        found["metadata"],
        hashlib.sha256(found["text"].encode()).hexdigest(),
    ):
        yield "listed as another one"
    yield from _torn(found, content.chunking, chunking)


def _torn(found: dict[str, Any], own: Chunking | None, common: Chunking) -> Iterator[str]:
    """What is wrong with the chunks of a document."""
    chunks = [chunk["text"] for chunk in found["chunks"]]
    if [chunk["chunk"] for chunk in found["chunks"]] != list(range(len(chunks))):
        yield "chunks are missing or doubled"
    if (gap := uncovered(found["text"], chunks)) is not None:
        yield f"torn: {gap}"
    allowed = [common] if own is None else [own, common]
    if all(chunks != cut(found["text"], one) for one in allowed):
        yield f"cut into {len(chunks)} chunks, as {allowed} does not"


def uncovered(text: str, chunks: Sequence[str]) -> str | None:
    """The first piece of the text that no chunk holds, or the chunk out of order; None if whole."""
    covered = start = 0
    for chunk in chunks:
        at = text.find(chunk, start)
        if at == -1:
            return f"a chunk not of this text: {chunk[:80]!r}"
        if text[covered:at].strip():
            return f"no chunk holds {text[covered:at][:80]!r}"
        covered, start = at + len(chunk), at + 1
    rest = text[covered:]
    return f"no chunk holds {rest[:80]!r}" if rest.strip() else None


async def _search_faults(
    client: httpx.AsyncClient,
    document_id: str,
    found: dict[str, Any] | None,
    checked: Checked,
) -> list[str]:
    """Whether each chunk is found exactly once, by words and by vector, and nothing besides."""
    expected = Counter(
        (document_id, chunk["chunk"], chunk["text"])
        for chunk in (found or {"chunks": []})["chunks"]
    )
    word = texts.token(document_id)
    faults = []
    for mode, narrowed in (("sparse", {}), ("dense", {"filter": {"doc": document_id}})):
        ask = {"query": word, "mode": mode, "top_k": MOST_HITS, "rerank": False, **narrowed}
        answer = _ok(await client.post("/search", json=ask))
        checked.searches += 1
        hits = Counter((hit["document_id"], hit["chunk"], hit["text"]) for hit in answer["sources"])
        if hits != expected:
            missing, more = _told(expected - hits), _told(hits - expected)
            faults.append(f"{mode} search misses {missing} and finds besides {more}")
    return faults


def _told(hits: Counter[tuple[str, int, str]]) -> list[str]:
    """Chunks by their places, and how they begin."""
    return [f"{one}#{ordinal} {text[:30]!r}" for one, ordinal, text in sorted(hits.elements())]


def _ok(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise Unreadable(f"{response.url}: {response.status_code} {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def _story(ledger: Ledger, document_id: str) -> str:
    """The writes since the last check, for people."""
    writes = ledger.history(document_id)
    origin_s = writes[0].started_s
    told = ", ".join(
        f"[{write.started_s - origin_s:.3f}-{write.ended_s - origin_s:.3f} s "
        f"{'delete' if write.content is None else f'mark {write.content.mark}'}: {write.answer}]"
        for write in writes
    )
    return f"writes {told}"
