"""The Kustomize base against the code, and against the API's own schemas."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.deployables import FOREIGN_NAMES, ROOT, SETTINGS, WORKERS, default, environment_names

from gateway.settings import GatewaySettings

BASE = ROOT / "deploy" / "k8s" / "base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
RESOURCES: list[dict[str, Any]] = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((BASE / name).read_text())
]
# Names that a literal of a generated ConfigMap sets.
CONFIG = {
    generator["name"]: dict(literal.split("=", 1) for literal in generator["literals"])
    for generator in KUSTOMIZATION["configMapGenerator"]
}
PROCESSES = ("gateway", *WORKERS)


def resource(kind: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in RESOURCES if r["kind"] == kind and r["metadata"]["name"] == name]
    return found


def pod(name: str) -> dict[str, Any]:
    kind = "StatefulSet" if name in ("qdrant", "redis") else "Deployment"
    spec: dict[str, Any] = resource(kind, name)["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    (only,) = pod(name)["containers"]
    return dict(only)


def environment(name: str) -> dict[str, str | None]:
    """What the pod's process finds set; None where a Secret holds the value."""
    spec = container(name)
    values: dict[str, str | None] = {}
    for source in spec.get("envFrom", ()):
        values |= CONFIG[source["configMapRef"]["name"]]
    for variable in spec.get("env", ()):
        values[variable["name"]] = variable.get("value")
    return values


def test_every_file_is_in_the_kustomization() -> None:
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml", "secrets.env"}
    assert {path.name for path in BASE.iterdir()} == listed


@pytest.mark.parametrize(
    "document", RESOURCES, ids=lambda r: f"{r['kind']}-{r['metadata']['name']}"
)
def test_resources_match_the_schemas_of_the_api(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(
    shutil.which("kubectl") is None and "CI" not in os.environ, reason="kubectl is not on PATH"
)
def test_base_renders() -> None:
    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "CI needs kubectl"
    rendered = subprocess.run(
        [kubectl, "kustomize", str(BASE)], capture_output=True, text=True, check=True
    )
    documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    # What the base lists, three ConfigMaps and a Secret.
    assert len(documents) == len(RESOURCES) + len(CONFIG) + 1
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", PROCESSES)
def test_settings_exist_and_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(name)
    unknown = set(given) - environment_names(name) - FOREIGN_NAMES
    # `common` and `models` go to several processes; each reads what it knows.
    shared = {*CONFIG["common"], *CONFIG["models"]}
    assert unknown <= shared
    for key in (k for k in shared if k in given):
        readers = [n for n in PROCESSES if key in environment_names(n)]
        assert readers, f"nobody reads {key}"
    for key, value in given.items():
        if value is not None:
            monkeypatch.setenv(key, value)
    SETTINGS[name](_env_file=None)


@pytest.mark.parametrize("worker", WORKERS.values(), ids=lambda w: w.name)
def test_worker_probes_ask_for_the_names_that_its_health_has(worker: Any) -> None:
    spec = container(worker.name)
    port = worker.grpc_port
    for probe in ("startupProbe", "readinessProbe"):
        assert spec[probe]["grpc"] == {"port": port, "service": worker.service}
    assert spec["livenessProbe"]["grpc"] == {"port": port, "service": "live"}


@pytest.mark.parametrize("worker", WORKERS.values(), ids=lambda w: w.name)
def test_worker_ports_are_those_of_its_settings(worker: Any) -> None:
    spec = container(worker.name)
    assert {p["name"]: p["containerPort"] for p in spec["ports"]} == {
        "grpc": worker.grpc_port,
        "metrics": worker.metrics_port,
    }
    values = environment(worker.name)
    assert values["GRPC_PORT"] == str(worker.grpc_port)
    assert values["METRICS_PORT"] == str(worker.metrics_port)
    annotations = resource("Deployment", worker.name)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(worker.metrics_port)


@pytest.mark.parametrize("worker", WORKERS.values(), ids=lambda w: w.name)
def test_gateway_reaches_every_pod_of_a_worker(worker: Any) -> None:
    service = resource("Service", worker.name)["spec"]
    assert service["clusterIP"] == "None"
    assert [p["port"] for p in service["ports"]] == [worker.grpc_port]
    target = CONFIG["gateway"][worker.target.upper()]
    assert target == f"dns:///{worker.name}:{worker.grpc_port}"


def test_gateway_probes_and_port() -> None:
    spec = container("gateway")
    assert spec["ports"] == [
        {"name": "http", "containerPort": default(GatewaySettings, "server_port")}
    ]
    assert spec["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    for probe in ("startupProbe", "livenessProbe"):
        assert spec[probe]["httpGet"] == {"path": "/health/live", "port": "http"}


@pytest.mark.parametrize(("store", "setting"), [("qdrant", "QDRANT_URL"), ("redis", "REDIS_URL")])
def test_gateway_finds_the_stores(store: str, setting: str) -> None:
    ports = [p["port"] for p in resource("Service", store)["spec"]["ports"]]
    assert CONFIG["gateway"][setting].split("://")[1] == f"{store}:{ports[0]}"
    if store == "qdrant":
        assert int(CONFIG["gateway"]["QDRANT_GRPC_PORT"]) in ports


@pytest.mark.parametrize("name", PROCESSES)
def test_pods_are_given_the_time_to_drain(name: str) -> None:
    grace_s = pod(name)["terminationGracePeriodSeconds"]
    common = CONFIG["common"]
    pause_s = float(common["DRAIN_PAUSE_SECONDS"])
    request_s = float(CONFIG["gateway"]["REQUEST_TIMEOUT_SECONDS"])
    assert grace_s > pause_s + float(common["DRAIN_TIMEOUT_SECONDS"]) > pause_s + request_s


@pytest.mark.parametrize("name", [*PROCESSES, "qdrant", "redis"])
def test_pods_are_locked_down(name: str) -> None:
    spec, only = pod(name), container(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert "memory" in only["resources"]["limits"]


@pytest.mark.parametrize("name", [*WORKERS, "qdrant", "redis"])
def test_only_the_gateway_may_call(name: str) -> None:
    policy = resource("NetworkPolicy", name)["spec"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": name}}
    (rule,) = policy["ingress"]
    gateway = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}
    assert rule["from"] == [gateway]
    service_ports = {p["port"] for p in resource("Service", name)["spec"]["ports"]}
    assert {p["port"] for p in rule["ports"]} == service_ports


@pytest.mark.parametrize("name", [*PROCESSES, "qdrant", "redis"])
def test_selectors_find_their_pods(name: str) -> None:
    kind = "StatefulSet" if name in ("qdrant", "redis") else "Deployment"
    spec = resource(kind, name)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert resource("Service", name)["spec"]["selector"].items() <= labels.items()


def test_secrets_of_the_base_are_empty() -> None:
    lines = (BASE / "secrets.env").read_text().splitlines()
    assert all(line.startswith("#") for line in lines)
