"""docker-compose.yml against the Compose specification and against the code."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import jsonschema
import pytest
import yaml
from support.deployables import ROOT, SETTINGS, WORKERS, environment_names

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROCESSES = ("gateway", *WORKERS)


@pytest.mark.parametrize("document", [COMPOSE, GPU], ids=["all", "gpu"])
def test_file_matches_the_compose_specification(document: dict[str, Any]) -> None:
    """The schema is the one that check-jsonschema carries, so no network is asked."""
    schemas = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validate(document, schema)


def test_services() -> None:
    assert set(SERVICES) == {*PROCESSES, "embedder-next", "qdrant", "redis"}


def test_the_next_embedder_differs_in_its_model_and_waits_to_be_asked_for() -> None:
    following, embedder = dict(SERVICES["embedder-next"]), dict(SERVICES["embedder"])
    environment = dict(following.pop("environment"))
    assert environment.pop("EMBEDDING_MODEL") == "${EMBEDDING_MODEL_NEXT:-}"
    assert environment == embedder.pop("environment")
    assert following.pop("profiles") == ["next-model"]
    assert following == embedder
    target = SERVICES["gateway"]["environment"]["EMBEDDER_TARGET_NEXT"]
    assert target == "${EMBEDDING_MODEL_NEXT:+dns:///embedder-next:50051}"


@pytest.mark.parametrize("name", PROCESSES)
def test_environment_is_read_and_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = SERVICES[name]["environment"]
    assert set(environment) <= environment_names(name)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    SETTINGS[name](_env_file=None)


@pytest.mark.parametrize("worker", WORKERS.values(), ids=lambda w: w.name)
def test_gateway_reaches_every_replica_of_a_worker(worker: Any) -> None:
    target = SERVICES["gateway"]["environment"][worker.target.upper()]
    assert target == f"dns:///{worker.name}:{worker.grpc_port}"
    assert SERVICES[worker.name]["environment"]["GRPC_PORT"] == str(worker.grpc_port)
    assert "ports" not in SERVICES[worker.name]  # or a second replica could not start


@pytest.mark.parametrize(
    ("store", "ports", "setting"),
    [("qdrant", [6333, 6334], "QDRANT_URL"), ("redis", [6379], "REDIS_URL")],
)
def test_stores_listen_on_loopback_alone(store: str, ports: list[int], setting: str) -> None:
    assert SERVICES[store]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    url = SERVICES["gateway"]["environment"][setting]
    assert url.split("://")[1] == f"{store}:{ports[0]}"
    assert "healthcheck" in SERVICES[store]
    assert "build" not in SERVICES[store]


def test_waits_only_for_services_that_tell_their_health() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, wait in SERVICES["gateway"]["depends_on"].items():
        if wait["condition"] == "service_healthy":
            own = "healthcheck" in SERVICES[name]
            assert own or f"FROM process AS {name}" in dockerfile


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_are_built_locked_down_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["build"]["target"] == name
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"]["memory"]
    drain_s = sum(
        SETTINGS[name].model_fields[field].default
        for field in ("drain_pause_seconds", "drain_timeout_seconds")
    )
    assert int(service["stop_grace_period"].removesuffix("s")) > drain_s


def test_named_volumes_are_declared() -> None:
    used = {
        mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())
    }
    assert used == set(COMPOSE["volumes"])


def test_gpu_file_gives_workers_that_are_there_a_gpu_and_the_image_for_it() -> None:
    assert set(GPU["services"]) == {"gateway", "embedder", "reranker"}
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, service in GPU["services"].items():
        assert set(service["environment"]) <= environment_names(name)
        if name == "gateway":
            continue
        base = SERVICES[name]
        assert service["build"]["target"] == f"{name}-cuda"
        assert f" AS {name}-cuda\n" in dockerfile
        assert service["image"] == f"{base['image']}-cuda"
        for argument in service["build"]["args"]:
            assert f"ARG {argument}=" in dockerfile
        resources = service["deploy"]["resources"]
        (device,) = resources["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert device["capabilities"] == ["gpu"]
