"""Jobs and collections over HTTP: what is taken, told, cancelled and refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from support.http import Site

from gateway.jobs.job import DocumentOutcome, JobError
from gateway.search.types import Chunking
from runtime.errors import Reason, ServiceError

DOCUMENTS = {"documents": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}


@asynccontextmanager
async def working(folder: Path) -> AsyncIterator[tuple[Site, httpx.AsyncClient]]:
    site = Site(jobs_dir=folder)
    await site.jobs.start()
    loop = asyncio.create_task(site.jobs.run())
    try:
        async with site.client() as client:
            yield site, client
    finally:
        await site.jobs.aclose()
        loop.cancel()
        await asyncio.wait([loop])


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            job: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
            if job["state"] not in ("queued", "running"):
                return job
            await asyncio.sleep(0.005)


async def check_told(client: httpx.AsyncClient, response: httpx.Response, template: str) -> None:
    """The answer is what the API's own description says."""
    told = (await client.get("/openapi.json")).json()
    operation = told["paths"][template][response.request.method.lower()]
    content = operation["responses"][str(response.status_code)]["content"]
    schema = content[response.headers["content-type"]]["schema"]
    jsonschema.validate(
        response.json(),
        schema | {"components": told["components"]},
        cls=jsonschema.Draft202012Validator,
    )


def check_refusal(response: httpx.Response, status: int, reason: str) -> str:
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert ("retry-after" in response.headers) == (status == 503)
    return str(response.json()["detail"])


async def test_documents_are_taken_as_a_job(tmp_path: Path) -> None:
    async with working(tmp_path) as (site, client):
        answer = await client.post("/index?wait=false", json=DOCUMENTS | {"chunk_size": 100})
        await check_told(client, answer, "/index")
        job_id = answer.json()["job_id"]
        assert (answer.status_code, answer.json()) == (202, {"job_id": job_id})
        assert answer.headers["location"] == f"/jobs/{job_id}"
        job = await ended(client, job_id)
        assert site.indexer.calls == []  # not by the request
        (known,) = site.jobs.newest()
        assert known.chunking == Chunking(100, 50)
        await check_told(client, await client.get(f"/jobs/{job_id}"), "/jobs/{id}")
    assert job == {
        "job_id": job_id,
        "kind": "index",
        "state": "succeeded",
        "collection": "documents",
        "progress": {"done": 2, "total": 2},
        "created_at": job["created_at"],
        "started_at": job["started_at"],
        "finished_at": job["finished_at"],
        "results": [],
    }
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


async def test_what_index_refuses_never_becomes_a_job(tmp_path: Path) -> None:
    same = {"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}
    long = {"documents": [{"text": "x" * 200_000}], "chunk_size": 64, "overlap": 63}
    async with working(tmp_path) as (site, client):
        for body, field in (
            ({"documents": []}, "documents"),
            (same, "documents[1].id"),
            (long, "documents[0].text"),
            (DOCUMENTS | {"chunk_size": 64, "overlap": 64}, "overlap"),
        ):
            answer = await client.post("/index?wait=false", json=body)
            check_refusal(answer, 422, "INVALID_ARGUMENT")
            assert answer.json()["errors"][0]["field"] == field
        answer = await client.post("/index?wait=perhaps", json=DOCUMENTS)
        check_refusal(answer, 422, "INVALID_ARGUMENT")
        assert site.jobs.newest() == []


async def test_waiting_is_the_default() -> None:
    async with Site().client() as client:
        assert (await client.post("/index?wait=true", json=DOCUMENTS)).json()["indexed"] == 2


async def test_results_tell_of_every_document(tmp_path: Path) -> None:
    async with working(tmp_path) as (site, client):
        job_id = (await client.post("/index?wait=false", json=DOCUMENTS)).json()["job_id"]
        await ended(client, job_id)
        assert site.journal is not None
        site.journal.append(
            job_id,
            [
                DocumentOutcome(id="a", status="added", chunks=1),
                DocumentOutcome(id="b", status="failed", error=JobError("TEXT_TOO_LONG", "long")),
            ],
        )
        answer = await client.get(f"/jobs/{job_id}")
        await check_told(client, answer, "/jobs/{id}")
        assert answer.json()["results"] == [
            {"id": "a", "status": "added", "chunks": 1, "truncated_chunks": 0},
            {
                "id": "b",
                "status": "failed",
                "chunks": 0,
                "truncated_chunks": 0,
                "error": {"reason": "TEXT_TOO_LONG", "detail": "long"},
            },
        ]


async def test_jobs_are_listed_newest_first(tmp_path: Path) -> None:
    async with working(tmp_path) as (_, client):
        ids = []
        for _ in range(3):
            ids.append((await client.post("/index?wait=false", json=DOCUMENTS)).json()["job_id"])
            await ended(client, ids[-1])
        answer = await client.get("/jobs")
        await check_told(client, answer, "/jobs")
        assert [job["job_id"] for job in answer.json()["jobs"]] == ids[::-1]
        assert "results" not in answer.json()["jobs"][0]
        two = (await client.get("/jobs?limit=2&state=succeeded")).json()["jobs"]
        assert [job["job_id"] for job in two] == ids[:0:-1]
        assert (await client.get("/jobs?state=failed")).json() == {"jobs": []}
        check_refusal(await client.get("/jobs?state=done"), 422, "INVALID_ARGUMENT")


async def test_a_collection_is_rebuilt_by_a_job(tmp_path: Path) -> None:
    async with working(tmp_path) as (site, client):
        answer = await client.post("/reindex", json={"collection": "documents", "overlap": 7})
        await check_told(client, answer, "/reindex")
        assert answer.status_code == 202
        job = await ended(client, answer.json()["job_id"])
        assert (job["kind"], job["state"]) == ("reindex", "succeeded")
        assert "results" not in job
        assert site.store.calls == [{"collection": "documents"}]
        (known,) = site.jobs.newest()
        assert known.chunking == Chunking(512, 7)
        for body in ({"overlap": 512}, {"chunk_size": 64, "overlap": 64}):
            refused = await client.post("/reindex", json=body)
            assert "overlap: Expected less than `chunk_size` (" in check_refusal(
                refused, 422, "INVALID_ARGUMENT"
            )
        bare = await client.post("/reindex")
        assert bare.status_code == 202
        assert (await ended(client, bare.json()["job_id"]))["collection"] == "documents"
        unsaid = await client.post("/reindex", content=b"{}")
        check_refusal(unsaid, 415, "UNSUPPORTED_MEDIA_TYPE")
        nothing = await client.post("/reindex", headers={"Content-Type": "application/json"})
        check_refusal(nothing, 400, "MALFORMED_JSON")
        site.store.error = ServiceError(Reason.REINDEX_RUNNING, "already")
        check_refusal(await client.post("/reindex", json={}), 409, "REINDEX_RUNNING")
        assert len(site.jobs.newest()) == 2


async def test_a_job_is_cancelled_once(tmp_path: Path) -> None:
    async with working(tmp_path) as (site, client):
        site.work.gate.clear()
        job_id = (await client.post("/index?wait=false", json=DOCUMENTS)).json()["job_id"]
        for _ in range(2):
            answer = await client.delete(f"/jobs/{job_id}")
            await check_told(client, answer, "/jobs/{id}")
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        site.work.gate.set()
        done = (await client.post("/index?wait=false", json=DOCUMENTS)).json()["job_id"]
        await ended(client, done)
        check_refusal(await client.delete(f"/jobs/{done}"), 409, "JOB_ENDED")
        for method in ("GET", "DELETE"):
            answer = await client.request(method, "/jobs/nobody")
            await check_told(client, answer, "/jobs/{id}")
            check_refusal(answer, 404, "JOB_NOT_FOUND")


async def test_a_full_queue_is_503(tmp_path: Path) -> None:
    async with working(tmp_path) as (site, client):
        site.work.gate.clear()
        answers = [await client.post("/index?wait=false", json=DOCUMENTS) for _ in range(4)]
        assert {answer.status_code for answer in answers[:2]} == {202}
        check_refusal(answers[3], 503, "QUEUE_FULL")


@pytest.mark.parametrize(
    ("method", "path", "template", "body"),
    [
        ("POST", "/index?wait=false", "/index", DOCUMENTS),
        ("POST", "/reindex", "/reindex", {}),
        ("GET", "/jobs", "/jobs", None),
        ("GET", "/jobs/x", "/jobs/{id}", None),
        ("DELETE", "/jobs/x", "/jobs/{id}", None),
    ],
)
async def test_a_gateway_without_jobs_refuses(
    method: str, path: str, template: str, body: Any
) -> None:
    async with Site().client() as client:
        answer = await client.request(method, path, json=body)
        await check_told(client, answer, template)
        assert "JOBS=false" in check_refusal(answer, 503, "JOBS_ELSEWHERE")
        assert (await client.post("/index", json=DOCUMENTS)).status_code == 200


async def test_collections_are_listed_and_deleted() -> None:
    async with Site().client() as client:
        answer = await client.get("/collections")
        await check_told(client, answer, "/collections")
        (one,) = answer.json()["collections"]
        assert one == {
            "name": "documents",
            "model": {"name": "all-MiniLM-L6-v2", "fingerprint": "a" * 64},
            "dimension": 4,
            "chunk_size": 512,
            "overlap": 50,
            "documents": 1,
            "chunks": 1,
        }
        answer = await client.delete("/collections/documents")
        await check_told(client, answer, "/collections/{name}")
        assert answer.json() == {"deleted": True}
        absent = await client.delete("/collections/absent")
        await check_told(client, absent, "/collections/{name}")
        check_refusal(absent, 404, "COLLECTION_NOT_FOUND")
        bad = await client.delete("/collections/Bad@1")
        check_refusal(bad, 422, "INVALID_ARGUMENT")
        assert "a-z" in bad.json()["errors"][0]["message"]
