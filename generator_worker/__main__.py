"""`python -m generator_worker`."""

from __future__ import annotations

from generator_worker.settings import GeneratorSettings
from generator_worker.worker import serve
from runtime.logs import configure_logging
from runtime.settings import load
from runtime.supervision import run

if __name__ == "__main__":
    settings = load(GeneratorSettings)
    configure_logging(settings.log_level)
    run(serve(settings))
