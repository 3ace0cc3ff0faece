"""The composition root of the reranker worker."""

from __future__ import annotations

from encoders.batch_metrics import BatchMetrics
from encoders.opening import exit_if_unusable
from reranker_worker.model import Reranker
from reranker_worker.service import METHODS, SERVICE_NAME, RerankerService
from reranker_worker.settings import RerankerSettings
from runtime.health import Health
from runtime.metrics import new_registry
from runtime.server import Service, serve_worker


async def serve(settings: RerankerSettings) -> None:
    """Runs the worker until it is told to stop; exits 2 when its model cannot serve."""
    registry = new_registry()
    metrics = BatchMetrics(registry)
    health = Health(SERVICE_NAME)
    servicer = RerankerService(settings.max_text_bytes)

    async def start() -> str:
        servicer.reranker = await Reranker.open(settings, metrics, health.set_serving)
        return servicer.reranker.description

    async def stop() -> None:
        if servicer.reranker is not None:
            await servicer.reranker.aclose()

    service = Service(SERVICE_NAME, METHODS, servicer.add_to, start, stop)
    with exit_if_unusable("RERANKER_MODEL"):
        await serve_worker(settings, service, health, registry)
