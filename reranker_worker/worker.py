"""The composition root of the reranker worker."""

from __future__ import annotations

import sys

from encoders.batch_metrics import BatchMetrics
from encoders.location import ModelUnusableError
from encoders.self_check import SelfCheckFailedError
from reranker_worker.model import Reranker
from reranker_worker.service import METHODS, SERVICE_NAME, RerankerService
from reranker_worker.settings import RerankerSettings
from runtime.health import Health
from runtime.metrics import new_registry
from runtime.server import Service, serve_worker
from runtime.settings import EXIT_BAD_SETTINGS


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
    try:
        await serve_worker(settings, service, health, registry)
    except (ModelUnusableError, SelfCheckFailedError) as error:
        print(f"RERANKER_MODEL: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETTINGS)
