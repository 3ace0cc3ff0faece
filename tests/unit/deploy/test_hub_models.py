"""Models from a hub: the Compose file and the component for them, on what they are laid over."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.deployables import ROOT, WORKERS, environment_names
from support.kustomize import rendered, validate

K8S = ROOT / "deploy" / "k8s"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.models.yml").read_text())
BASE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# Read by the hub's client itself.
HUB = {"HF_TOKEN", "HF_HUB_OFFLINE"}
CACHE = "/home/rag/.cache"
NEXT = "embedder-next"
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: production-rag
resources: [../{below}]
components: [../../components/next-model, ../../components/hub-models]
configMapGenerator:
  - name: next-model
    literals: [EMBEDDING_MODEL=owner/embedder]
  - name: models
    behavior: merge
    literals: [RERANKER_MODEL=owner/reranker]
"""


def test_the_file_matches_the_compose_specification() -> None:
    schemas = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    jsonschema.validate(COMPOSE, json.loads((schemas / "compose-spec.json").read_text()))


def test_the_file_gives_services_that_are_there_settings_that_they_read() -> None:
    assert set(COMPOSE["services"]) == {"gateway", NEXT, *WORKERS}
    for name, service in COMPOSE["services"].items():
        deployable = name.removesuffix("-next")
        known = environment_names(deployable) | (HUB if deployable in WORKERS else set())
        assert name in BASE["services"]
        assert set(service["environment"]) <= known
        if deployable in WORKERS:
            assert set(service["environment"]) >= HUB
            assert service["deploy"]["resources"]["limits"]["memory"] == "12g"
            assert service["healthcheck"] == {"start_period": "30m"}
    assert f"model-cache:{CACHE}" in BASE["services"]["reranker"]["volumes"]


@pytest.mark.parametrize("below", ["cpu", "gpu", "keda"])
def test_an_overlay_with_the_component_has_room_time_and_a_volume(
    below: str, tmp_path: Path
) -> None:
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("mine"))
    mine = tmp_path / "k8s" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(OVERLAY.format(below=below))
    documents = rendered(mine)
    for document in documents:
        validate(document)
    named = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    (models,) = [one for (kind, name), one in named.items() if name.startswith("models-")]
    assert models["data"]["RERANKER_MODEL"] == "owner/reranker"
    (secret,) = [name for kind, name in named if kind == "Secret"]
    assert ("PersistentVolumeClaim", "model-cache") in named
    for worker in (*WORKERS, NEXT):
        spec = named["Deployment", worker]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
        assert set(volumes) == {mount["name"] for mount in container["volumeMounts"]}
        assert volumes["cache"]["persistentVolumeClaim"] == {"claimName": "model-cache"}
        assert {"name": "cache", "mountPath": CACHE} in container["volumeMounts"]
        (token,) = [one for one in container["env"] if one["name"] == "HF_TOKEN"]
        reference = token["valueFrom"]["secretKeyRef"]
        assert reference == {"name": secret, "key": "HF_TOKEN", "optional": True}
        startup = container["startupProbe"]
        start_s = startup["periodSeconds"] * startup["failureThreshold"]
        assert start_s >= 1800
        assert spec["progressDeadlineSeconds"] >= start_s + spec["minReadySeconds"]
        assert container["resources"]["limits"]["memory"] == "12Gi"
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (
            below == "gpu" and worker in ("embedder", "reranker")
        )
