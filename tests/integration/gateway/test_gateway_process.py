"""The gateway as a process: starts, serves over a real store, survives its workers, stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway_process import ROOT, GatewayProcess, running, spawned

from runtime.supervision import EXIT_RESOURCE_TAKEN, EXIT_SECOND_SIGNAL

DOCUMENTS = [
    {"id": "sky", "text": "The sky is blue because air scatters blue light.", "metadata": {"n": 1}},
    {"id": "sea/deep", "text": "The sea is salt because rivers carry minerals."},
]
QUERY = {"query": "Why is the sky blue?"}


async def post(client: httpx.AsyncClient, path: str, body: Any, **headers: str) -> httpx.Response:
    return await client.post(path, json=body, headers=headers)


async def health_says(client: httpx.AsyncClient, component: str, state: str) -> None:
    async def look() -> None:
        while (await client.get("/health")).json()["components"][component] != state:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(look(), 20)


async def test_documents_go_in_answers_come_out_and_stay(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        indexed = (await post(client, "/index", {"documents": DOCUMENTS})).json()
        assert [one["status"] for one in indexed["results"]] == ["added", "added"]
        again = (await post(client, "/index", {"documents": DOCUMENTS})).json()
        assert [one["status"] for one in again["results"]] == ["unchanged", "unchanged"]

        answer = (await post(client, "/query", QUERY)).json()
        assert answer["answer"] == "Because of [1]."
        assert {source["document_id"] for source in answer["sources"]} == {"sky", "sea/deep"}
        assert answer["degraded"] == []
        assert answer["model"] == {
            "embedder": "model@ffffffff",
            "reranker": "reranker@rrrrrrrr",
            "generator": "extractive:model",
        }
        assert (await post(client, "/query", QUERY)).json()["cache_hit"]
        assert (await client.get("/documents/sea/deep")).json()["id"] == "sea/deep"
        health = (await client.get("/health")).json()
        assert health["status"] == "healthy"
        site.gateway.stop()
        assert await site.gateway.ended() == 0

    async with running(tmp_path) as site, site.gateway.client() as client:
        assert len((await client.get("/documents")).json()["documents"]) == 2


async def test_each_worker_gone_is_what_the_contract_says(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        await post(client, "/index", {"documents": DOCUMENTS})
        await health_says(client, "reranker", "up")
        await site.ends["reranker"].aclose()
        await health_says(client, "reranker", "down")
        answer = await post(client, "/query", QUERY)
        assert answer.status_code == 200
        assert answer.json()["degraded"] == ["rerank"]

        await site.ends["generator"].aclose()
        await health_says(client, "generator", "down")
        answer = await post(client, "/query", QUERY)
        assert answer.status_code == 503
        assert answer.json()["reason"] == "GENERATOR_UNAVAILABLE"
        assert int(answer.headers["retry-after"]) >= 1
        assert (await post(client, "/search", QUERY)).json()["sources"]

        await site.ends["embedder"].aclose()
        await health_says(client, "embedder", "down")
        question = {"query": "What colour is the sky?", "rerank": False}
        found = await post(client, "/search", question)
        assert found.json()["degraded"] == ["dense"]
        assert found.json()["sources"][0]["document_id"] == "sky"
        dense = await post(client, "/search", question | {"mode": "dense"})
        assert (dense.status_code, dense.json()["reason"]) == (503, "EMBEDDER_UNAVAILABLE")
        index = await post(client, "/index", {"documents": [{"text": "new"}]})
        assert (index.status_code, index.json()["reason"]) == (503, "EMBEDDER_UNAVAILABLE")
        # Its vector is known, so nobody is missed.
        assert (await post(client, "/search", QUERY | {"mode": "dense"})).status_code == 200
        assert (await client.get("/health")).json()["status"] == "degraded"
        assert (await client.get("/health/ready")).status_code == 200


async def test_another_model_is_409_and_words_still_find(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        await post(client, "/index", {"documents": DOCUMENTS})
        site.embedder.fingerprint = "another model"
        answer = await post(client, "/query", QUERY)
        assert (answer.status_code, answer.json()["reason"]) == (409, "MODEL_MISMATCH")
        sparse = await post(client, "/search", QUERY | {"mode": "sparse"})
        assert sparse.json()["sources"][0]["document_id"] == "sky"


async def test_vectors_of_another_length_are_not_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        async with spawned(
            DATA_DIR=str(tmp_path / "other"), VECTOR_DIM="77", LOG_LEVEL="DEBUG", **site.targets
        ) as gateway:
            gateway.port = (await gateway.until("listening"))["http_port"]
            await gateway.until("embedder is up")
            async with gateway.client() as client:
                ready = await client.get("/health/ready")
                assert ready.status_code == 503
                assert "VECTOR_DIM" in " ".join((await client.get("/health")).json()["notes"])


async def test_a_drain_finishes_what_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as site,
        site.gateway.client() as client,
        site.gateway.client() as other,
    ):
        await post(client, "/index", {"documents": DOCUMENTS})
        await other.get("/health/live")  # a connection that is there before the listener closes
        site.generator.gate.clear()
        inside = asyncio.create_task(post(client, "/query", QUERY))
        while not site.generator.requests:
            await asyncio.sleep(0.01)
        site.gateway.stop()
        while (await other.get("/health/ready")).status_code != 503:
            await asyncio.sleep(0.01)
        assert (await other.get("/health/live")).status_code == 200
        while (refused := await post(other, "/search", QUERY)).status_code != 503:
            assert refused.status_code == 200  # the pause: not ready, but nothing refused yet
        assert refused.json()["reason"] == "DRAINING"
        assert refused.headers["retry-after"]
        site.generator.gate.set()
        assert (await inside).json()["answer"] == "Because of [1]."
        assert await site.gateway.ended() == 0
    assert [one["message"] for one in site.gateway.lines][-1] == "stopped"


async def test_a_drain_that_takes_too_long_answers_what_it_cuts_off(tmp_path: Path) -> None:
    async with (
        running(tmp_path, DRAIN_TIMEOUT_SECONDS="0.2") as site,
        site.gateway.client() as client,
        site.gateway.client() as other,
    ):
        await post(client, "/index", {"documents": DOCUMENTS})
        site.generator.gate.clear()
        asking = asyncio.create_task(post(client, "/query", QUERY))
        stream = asyncio.create_task(post(other, "/query", QUERY | {"stream": True}))
        async with asyncio.timeout(20):
            while len(site.generator.requests) < 2:
                await asyncio.sleep(0.01)
        site.gateway.stop()
        answer = await asking
        assert (answer.status_code, answer.json()["reason"]) == (503, "DRAINING")
        assert answer.headers["x-request-id"]
        assert answer.headers["retry-after"]
        last = (await stream).text.split("\n\n")[-2]
        assert last.startswith("event: error\n")
        assert json.loads(last.partition("data: ")[2])["reason"] == "DRAINING"
        assert await site.gateway.ended() == 0
    statuses = [one["status"] for one in site.gateway.lines if one["message"] == "POST /query"]
    assert sorted(statuses) == [200, 503]
    assert not any(one["level"] == "ERROR" for one in site.gateway.lines)


async def test_a_second_signal_exits_now(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        await post(client, "/index", {"documents": DOCUMENTS})
        site.generator.gate.clear()
        inside = asyncio.create_task(post(client, "/query", QUERY))
        while not site.generator.requests:
            await asyncio.sleep(0.01)
        site.gateway.stop()
        await site.gateway.until("draining")
        site.gateway.stop()
        assert await site.gateway.ended() == EXIT_SECOND_SIGNAL
        with pytest.raises(httpx.TransportError):
            await inside


async def test_a_caller_who_leaves_stops_the_generator(tmp_path: Path) -> None:
    async with running(tmp_path) as site, site.gateway.client() as client:
        await post(client, "/index", {"documents": DOCUMENTS})
        site.generator.gate.clear()
        for stream in (False, True):
            site.generator.cancelled.clear()
            site.generator.requests.clear()
            asking = asyncio.create_task(post(client, "/query", QUERY | {"stream": stream}))
            while not site.generator.requests:
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.wait([asking])
            await asyncio.wait_for(site.generator.cancelled.wait(), 10)
        while (await site.gateway.until("POST /query"))["status"] != 499:
            continue


async def test_the_launchers_end_is_an_orderly_stop(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos"))),
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": "0",
            "DATA_DIR": str(tmp_path),
            "CONTROL_FD": str(theirs.fileno()),
            "DRAIN_PAUSE_SECONDS": "0",
        },
        pass_fds=[theirs.fileno()],
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    event = json.loads(await asyncio.wait_for(reader.readline(), 60))
    assert event["event"] == "listening"
    assert event["http_port"] > 0
    writer.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def complains(gateway: GatewayProcess) -> tuple[int, str]:
    _, error = await asyncio.wait_for(gateway.process.communicate(), 60)
    assert gateway.process.returncode is not None
    return gateway.process.returncode, error.decode()


async def test_a_port_taken_is_one_line_with_the_cure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with spawned(DATA_DIR=str(tmp_path), SERVER_PORT=str(port)) as gateway:
            code, error = await complains(gateway)
    assert code == EXIT_RESOURCE_TAKEN
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("SERVER_PORT: ")
    assert str(port) in error


async def test_a_data_folder_taken_is_one_line_with_the_cure(tmp_path: Path) -> None:
    async with running(tmp_path), spawned(DATA_DIR=str(tmp_path)) as second:
        code, error = await complains(second)
    assert code == EXIT_RESOURCE_TAKEN
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("DATA_DIR: ")


async def test_a_data_folder_that_cannot_be_made_is_one_line_with_the_cure(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    async with spawned(DATA_DIR=str(file)) as gateway:
        code, error = await complains(gateway)
    assert code == EXIT_RESOURCE_TAKEN
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("DATA_DIR: ")


async def test_all_faults_of_the_settings_are_told_at_once() -> None:
    bad = {
        "SERVER_PORT": "http",
        "MAX_CONNECTIONS": "0",
        "REDIS_URL": "localhost",
        "API_KEYS": " , ",
        "RERANK_FUSION": "sum",
    }
    async with spawned(**bad) as gateway:
        code, error = await complains(gateway)
    assert code == 2
    assert {line.partition(":")[0] for line in error.strip().splitlines()} == set(bad)


async def test_without_its_qdrant_server_the_gateway_lives_and_is_not_ready(
    unused_tcp_port: int,
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with spawned(QDRANT_URL=url, QDRANT_GRPC_PORT="0") as gateway:
        gateway.port = (await gateway.until("listening"))["http_port"]
        async with gateway.client() as client:
            assert (await client.get("/health/live")).status_code == 200
            assert (await client.get("/health/ready")).status_code == 503
            refused = await post(client, "/search", QUERY)
            assert refused.status_code == 503
            assert gateway.process.returncode is None
        gateway.process.send_signal(signal.SIGINT)
        assert await gateway.ended() == 0
