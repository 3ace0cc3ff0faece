"""What the code says about each deployable, for the tests of Dockerfile, Compose and Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rag.embedder.v1 import embedder_pb2
from rag.generator.v1 import generator_pb2
from rag.reranker.v1 import reranker_pb2

from embedder_worker.settings import EmbedderSettings
from gateway.settings import GatewaySettings
from generator_worker.settings import GeneratorSettings
from reranker_worker.settings import RerankerSettings
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Worker:
    """A worker as its own code describes it."""

    name: str
    settings: type[Settings]
    service: str
    # The gateway's setting for its address.
    target: str

    @property
    def module(self) -> str:
        """Its entry point."""
        return f"{self.name}_worker"

    @property
    def grpc_port(self) -> int:
        """The port it listens on unless told otherwise."""
        return default(self.settings, "grpc_port")

    @property
    def metrics_port(self) -> int:
        """The port its metrics are read from unless told otherwise."""
        return default(self.settings, "metrics_port")


def _service(module: object) -> str:
    (service,) = module.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
    return str(service.full_name)


def default(settings: type[Settings], field: str) -> int:
    """The default of a number among the settings."""
    value = settings.model_fields[field].default
    assert isinstance(value, int | float)
    return int(value)


WORKERS = {
    worker.name: worker
    for worker in (
        Worker("embedder", EmbedderSettings, _service(embedder_pb2), "embedder_target"),
        Worker("reranker", RerankerSettings, _service(reranker_pb2), "reranker_target"),
        Worker("generator", GeneratorSettings, _service(generator_pb2), "generator_target"),
    )
}
SETTINGS: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    **{name: worker.settings for name, worker in WORKERS.items()},
}


def environment_names(name: str) -> set[str]:
    """The variables that the deployable's settings class reads."""
    return {field.upper() for field in SETTINGS[name].model_fields}


# Read by the language model's client, by OpenTelemetry and by the hub's client themselves.
FOREIGN_NAMES = {"OPENAI_API_KEY"}
