"""The composition root of the embedder worker."""

from __future__ import annotations

from embedder_worker.model import Embedder
from embedder_worker.service import METHODS, SERVICE_NAME, EmbedderService
from embedder_worker.settings import EmbedderSettings
from encoders.batch_metrics import BatchMetrics
from encoders.opening import exit_if_unusable
from runtime.health import Health
from runtime.metrics import new_registry
from runtime.server import Service, serve_worker


async def serve(settings: EmbedderSettings) -> None:
    """Runs the worker until it is told to stop; exits 2 when its model cannot serve."""
    registry = new_registry()
    metrics = BatchMetrics(registry)
    health = Health(SERVICE_NAME)
    servicer = EmbedderService(settings.max_text_bytes)

    async def start() -> str:
        servicer.embedder = await Embedder.open(settings, metrics, health.set_serving)
        return servicer.embedder.description

    async def stop() -> None:
        if servicer.embedder is not None:
            await servicer.embedder.aclose()

    service = Service(SERVICE_NAME, METHODS, servicer.add_to, start, stop)
    with exit_if_unusable("EMBEDDING_MODEL"):
        await serve_worker(settings, service, health, registry)
