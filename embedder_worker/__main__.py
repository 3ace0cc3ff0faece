"""`python -m embedder_worker`."""

from __future__ import annotations

from embedder_worker.settings import EmbedderSettings
from embedder_worker.worker import serve
from runtime.logs import configure_logging
from runtime.settings import load
from runtime.supervision import run

if __name__ == "__main__":
    settings = load(EmbedderSettings)
    configure_logging(settings.log_level)
    run(serve(settings))
