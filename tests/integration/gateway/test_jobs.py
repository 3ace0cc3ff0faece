"""Jobs of a real gateway over a real store: they survive what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
from support.gateway_process import running, spawned

from runtime.errors import Reason, ServiceError


def documents(count: int) -> list[dict[str, Any]]:
    return [{"id": f"d/{at}", "text": f"Number {at} is a number."} for at in range(count)]


async def submit(client: httpx.AsyncClient, count: int) -> str:
    answer = await client.post("/index?wait=false", json={"documents": documents(count)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def job_once(client: httpx.AsyncClient, job_id: str, *states: str) -> dict[str, Any]:
    """The job, once it is in one of the states."""
    async with asyncio.timeout(60):
        while True:
            job: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
            if job["state"] in states:
                return job
            assert job["state"] in ("queued", "running"), job
            await asyncio.sleep(0.02)


async def indexed(client: httpx.AsyncClient) -> int:
    return len((await client.get("/documents?limit=1000")).json()["documents"])


async def test_documents_are_indexed_by_a_job(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        job = await job_once(client, await submit(client, 300), "succeeded")
        assert job["progress"] == {"done": 300, "total": 300}
        assert [one["id"] for one in job["results"]] == [one["id"] for one in documents(300)]
        assert {(one["status"], one["chunks"]) for one in job["results"]} == {("added", 1)}
        assert await indexed(client) == 300
        again = await job_once(client, await submit(client, 300), "succeeded")
        assert {one["status"] for one in again["results"]} == {"unchanged"}
        metrics = (await client.get("/metrics")).text
        assert 'rag_jobs_ended_total{kind="index",state="succeeded"} 2.0' in metrics
        # Nothing but what is known of them stays on the disk.
        assert list(tmp_path.rglob("documents.jsonl")) == []


async def test_a_job_waits_for_the_embedder(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        away = ServiceError(Reason.MODEL_LOADING, "not yet")
        site.embedder.errors = [away, away, away]
        await job_once(client, await submit(client, 3), "succeeded")
        assert await indexed(client) == 3


async def test_a_job_killed_with_its_gateway_is_finished_by_the_next(tmp_path: Path) -> None:
    count = 700
    async with running(tmp_path) as site, site.gateway.client() as client:
        site.embedder.pause_after = 16  # in the second of three groups
        job_id = await submit(client, count)
        waiting = await submit(client, 1)
        async with asyncio.timeout(60):
            while site.embedder.gate.is_set():
                await asyncio.sleep(0.01)
        job = await job_once(client, job_id, "running")
        assert 0 < job["progress"]["done"] < count
        site.gateway.process.kill()
        await site.gateway.process.wait()
        site.embedder.gate.set()
    async with running(tmp_path) as site, site.gateway.client() as client:
        job = await job_once(client, job_id, "succeeded")
        assert job["progress"] == {"done": count, "total": count}
        assert [one["id"] for one in job["results"]] == [one["id"] for one in documents(count)]
        assert await indexed(client) == count
        await job_once(client, waiting, "succeeded")


async def test_a_gateway_that_is_stopped_leaves_the_job_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        site.embedder.gate.clear()
        job_id = await submit(client, 40)
        await job_once(client, job_id, "running")
        site.gateway.stop()
        assert await site.gateway.ended() == 0
        site.embedder.gate.set()
    async with running(tmp_path) as site, site.gateway.client() as client:
        await job_once(client, job_id, "succeeded")
        assert await indexed(client) == 40


async def test_a_running_job_is_cancelled_between_documents(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        site.embedder.gate.clear()
        job_id = await submit(client, 40)
        await job_once(client, job_id, "running")
        answer = await client.delete(f"/jobs/{job_id}")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        site.embedder.gate.set()
        await job_once(client, await submit(client, 3), "succeeded")
        assert await indexed(client) == 3


async def test_a_gateway_told_to_run_no_jobs_says_so(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as site,
        spawned(DATA_DIR=str(tmp_path / "other"), JOBS="false", **site.targets) as other,
    ):
        other.port = (await other.until("listening"))["http_port"]
        await other.until("ready")
        async with other.client() as client:
            answer = await client.get("/jobs")
            assert (answer.status_code, answer.json()["reason"]) == (503, "JOBS_ELSEWHERE")
            assert not (tmp_path / "other" / "jobs").exists()


async def test_a_collection_is_rebuilt_with_another_chunking(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {at}. " + "word " * 15 for at in range(8))
    async with running(tmp_path) as site, site.gateway.client() as client:
        body = {"documents": [{"id": "a", "text": text}], "collection": "books"}
        before = (await client.post("/index", json=body)).json()["chunks"]
        asked = {"collection": "books", "chunk_size": 100, "overlap": 0}
        job_id = (await client.post("/reindex", json=asked)).json()["job_id"]
        job = await job_once(client, job_id, "succeeded")
        assert job["progress"] == {"done": 1, "total": 1}
        collections = (await client.get("/collections")).json()["collections"]
        assert [one["name"] for one in collections] == ["books", "documents"]
        assert (collections[0]["chunk_size"], collections[0]["documents"]) == (100, 1)
        assert collections[0]["chunks"] > before
        assert (await client.delete("/collections/books")).json() == {"deleted": True}
        assert (await client.delete("/collections/books")).status_code == 404
        gone = await client.post("/reindex", json=asked)
        assert (gone.status_code, gone.json()["reason"]) == (404, "COLLECTION_NOT_FOUND")
