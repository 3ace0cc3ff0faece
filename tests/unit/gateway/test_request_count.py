"""`rag_requests_total`: what the share of failed requests is taken of."""

from __future__ import annotations

from support.http import Site


async def test_every_request_counts_and_no_probe() -> None:
    site = Site()
    async with site.client() as client:
        await client.post("/query", json={"query": "why?"})
        await client.post("/search", json={"query": ""})
        await client.get("/nowhere")
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            await client.get(path)
        text = (await client.get("/metrics")).text
    assert "rag_requests_total 3.0\n" in text
    assert 'rag_errors_total{type="INVALID_ARGUMENT"} 1.0\n' in text
