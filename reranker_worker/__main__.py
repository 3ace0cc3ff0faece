"""`python -m reranker_worker`."""

from __future__ import annotations

from reranker_worker.settings import RerankerSettings
from reranker_worker.worker import serve
from runtime.logs import configure_logging
from runtime.settings import load
from runtime.supervision import run

if __name__ == "__main__":
    settings = load(RerankerSettings)
    configure_logging(settings.log_level)
    run(serve(settings))
