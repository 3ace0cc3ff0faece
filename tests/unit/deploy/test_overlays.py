"""The overlays for CPUs, GPUs and KEDA: valid, and scaled on what the workers really measure."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.deployables import FOREIGN_NAMES, ROOT, SETTINGS, WORKERS, environment_names
from support.kustomize import rendered, validate

from encoders.lanes import LANES
from runtime.channel import channel_options

K8S = ROOT / "deploy" / "k8s"
PROMETHEUS = ROOT / "deploy" / "prometheus"
# "mine" is the user's own (docs/deployment.md).
OVERLAYS = sorted({path.name for path in (K8S / "overlays").iterdir()} - {"mine"})
PROCESSES = ("gateway", *WORKERS)
# What prometheus-adapter shows → the series it is read from.
SHOWN = {
    rule["name"]["as"]: rule["seriesQuery"].split("{")[0]
    for rule in yaml.safe_load((PROMETHEUS / "adapter.yml").read_text())["rules"]["custom"]
}
RECORDED = {
    rule["record"]
    for group in yaml.safe_load((PROMETHEUS / "scaling.yml").read_text())["groups"]
    for rule in group["rules"]
}

PROBES = ("startupProbe", "readinessProbe")
BY_LANE = {"rag_queue_seconds", "rag_busy_share"}


@cache
def overlay(name: str) -> list[dict[str, Any]]:
    return rendered(K8S / "overlays" / name)


def resources(name: str, kind: str) -> dict[str, dict[str, Any]]:
    return {r["metadata"]["name"]: r for r in overlay(name) if r["kind"] == kind}


def container(name: str, process: str) -> dict[str, Any]:
    (only,) = resources(name, "Deployment")[process]["spec"]["template"]["spec"]["containers"]
    return dict(only)


def seconds(quantity: str) -> float:
    """`250m` is 0.25."""
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


@pytest.mark.parametrize("below", ["cpu", "gpu"])
def test_the_overlay_of_the_deployment_guide_names_every_image(tmp_path: Path, below: str) -> None:
    guide = (ROOT / "docs" / "deployment.md").read_text()
    (text,) = re.findall(r"```yaml\n(# deploy/k8s/overlays/mine/.*?)```", guide, re.DOTALL)
    text = text.replace("resources: [../cpu]", f"resources: [../{below}]")
    if below == "gpu":
        text = re.sub(r"name: (production-rag-(?:embedder|reranker)),", r"name: \1-cuda,", text)
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("mine"))
    mine = tmp_path / "k8s" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(text)
    (mine / "secrets.env").write_text("API_KEYS=a-key\n")
    images = {
        container["image"].rpartition("/")[0]
        for resource in rendered(mine)
        if resource["kind"] == "Deployment" and resource["metadata"]["name"] in PROCESSES
        for container in resource["spec"]["template"]["spec"]["containers"]
    }
    assert images == {"your.registry"}


@pytest.mark.parametrize("process", PROCESSES)
def test_the_scaling_guide_has_the_ceilings(process: str) -> None:
    guide = (ROOT / "docs" / "scaling.md").read_text()
    row = re.search(rf"^\| {process} \| (\d+) \| (\d+) \|", guide, re.MULTILINE)
    assert row is not None
    stated = (int(row[1]), int(row[2]))
    hpa = resources("cpu", "HorizontalPodAutoscaler")[process]["spec"]
    keda = resources("keda", "ScaledObject")[process]["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == stated
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == stated


def test_each_overlay_has_its_folder_and_no_more() -> None:
    assert OVERLAYS == ["cpu", "gpu", "keda"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_renders_what_an_api_server_takes(name: str) -> None:
    for document in overlay(name):
        validate(document)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "production-rag"


def test_validation_refuses_what_keda_would() -> None:
    """The schema is our own: it must at least not take anything."""
    (one, *_) = resources("keda", "ScaledObject").values()
    spoilt = {**one, "spec": {**one["spec"], "minReplicas": 2}}
    with pytest.raises(jsonschema.ValidationError):
        validate(spoilt)
    triggers = [{"type": "prometheus", "metadata": {"query": "x", "threshold": 1}}]
    with pytest.raises(jsonschema.ValidationError):
        validate({**one, "spec": {**one["spec"], "triggers": triggers}})


@pytest.mark.parametrize("name", OVERLAYS)
def test_replicas_belong_to_one_autoscaler(name: str) -> None:
    hpas, scaled = (resources(name, k) for k in ("HorizontalPodAutoscaler", "ScaledObject"))
    assert bool(hpas) != bool(scaled)
    targets = {a["spec"]["scaleTargetRef"]["name"] for a in (*hpas.values(), *scaled.values())}
    assert targets == set(PROCESSES)
    for process in PROCESSES:
        assert "replicas" not in resources(name, "Deployment")[process]["spec"]
        autoscaler = (hpas or scaled)[process]["spec"]
        least = autoscaler.get("minReplicas", autoscaler.get("minReplicaCount"))
        budget = resources(name, "PodDisruptionBudget")[process]["spec"]
        assert least > budget["maxUnavailable"]


def assert_has_lane(series: str, lane: str) -> None:
    """A lane where the series has one for each, none where it has none."""
    assert lane in (LANES if series.split(":")[1] in BY_LANE else {""})


def hpa_targets(name: str, process: str) -> dict[tuple[str, str], float]:
    metrics = resources(name, "HorizontalPodAutoscaler")[process]["spec"]["metrics"]
    found = {}
    for metric in metrics:
        if metric["type"] == "Pods":
            source = metric["pods"]
            series = SHOWN[source["metric"]["name"]]
            labels = dict(source["metric"].get("selector", {}).get("matchLabels", {}))
            lane = labels.pop("lane", "")
            assert labels == {}
            assert series in RECORDED
            assert_has_lane(series, lane)
            assert source["target"]["type"] == "AverageValue"
            measure = series.split(":")[1]
            found[measure, lane] = seconds(source["target"]["averageValue"])
        else:
            found["cpu", ""] = seconds(metric["resource"]["target"]["averageValue"])
    assert len(found) == len(metrics)
    return found


def keda_targets(process: str) -> dict[tuple[str, str], float]:
    triggers = resources("keda", "ScaledObject")[process]["spec"]["triggers"]
    found = {}
    for trigger in triggers:
        settings = trigger["metadata"]
        assert trigger["metricType"] == "AverageValue"
        if trigger["type"] == "cpu":
            found["cpu", ""] = seconds(settings["value"])
            continue
        match = re.fullmatch(r"([\w:]+)\{([^}]*)\}", settings["query"])
        assert match is not None
        series, labels = match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        assert series in RECORDED
        lane = labels.pop("lane", "")
        assert_has_lane(series, lane)
        # Every label of the sum is given, so that there is one value.
        assert labels == {"namespace": "production-rag", "job": process}
        assert settings["serverAddress"].startswith("http")
        assert settings["ignoreNullValues"] == "false"
        found[series.split(":")[1], lane] = float(settings["threshold"])
    assert len(found) == len(triggers)
    return found


@pytest.mark.parametrize("process", PROCESSES)
def test_keda_scales_as_the_autoscalers_do(process: str) -> None:
    assert keda_targets(process) == hpa_targets("cpu", process) == hpa_targets("gpu", process)
    scaled = resources("keda", "ScaledObject")[process]["spec"]
    hpa = resources("cpu", "HorizontalPodAutoscaler")[process]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (
        hpa["minReplicas"],
        hpa["maxReplicas"],
    )
    config = scaled["advanced"]["horizontalPodAutoscalerConfig"]
    assert config["behavior"] == hpa["behavior"]
    assert hpa["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0


@pytest.mark.parametrize("process", WORKERS)
def test_workers_are_scaled_on_work_that_waits_and_never_on_cpu(process: str) -> None:
    targets = hpa_targets("cpu", process)
    assert ("cpu", "") not in targets
    assert ("rag_queue_seconds", "interactive") in targets
    assert ("rag_busy_share", "interactive") in targets
    # Bulk work takes all the time there is: that must not ask for replicas by itself.
    assert ("rag_busy_share", "bulk") not in targets


def test_answers_of_a_language_model_ask_for_replicas_too() -> None:
    """They wait in no queue of tokens; a full pod must be far above the targets."""
    settings = WORKERS["generator"].settings.model_fields
    concurrency, waiting = (settings[name].default for name in ("lm_concurrency", "lm_waiting"))
    targets = hpa_targets("cpu", "generator")
    assert targets["rag_generator_waiting", ""] == concurrency / 4
    assert targets["rag_rpcs_in_flight", ""] == int(0.7 * concurrency)
    assert waiting > 2 * targets["rag_generator_waiting", ""]
    guide = (ROOT / "docs" / "scaling.md").read_text()
    assert "| `rag_generator_waiting` (generator) | 8 |" in guide
    assert "| `rag_rpcs_in_flight` (generator) | 22 |" in guide


def test_a_full_queue_is_above_the_targets() -> None:
    """Refusals hold the queue at its bound; the bound must still ask for replicas."""
    queue_tokens = WORKERS["embedder"].settings.model_fields["queue_tokens"].default
    # The fastest worker measured on CPUs; a slower one has more seconds in the same queue.
    tokens_per_s = 15_000
    targets = hpa_targets("cpu", "embedder")
    bulk_s = 0.75 * queue_tokens / tokens_per_s
    assert bulk_s > 1.5 * targets["rag_queue_seconds", "bulk"]
    assert queue_tokens / tokens_per_s - bulk_s > targets["rag_queue_seconds", "interactive"]


@pytest.mark.parametrize("process", WORKERS)
def test_a_cpu_worker_has_whole_cores_of_its_own(process: str) -> None:
    for name in ("cpu", "keda"):
        cpu = container(name, process)["resources"]
        assert cpu["requests"]["cpu"] == cpu["limits"]["cpu"]
        assert int(cpu["limits"]["cpu"]) >= 1


@pytest.mark.parametrize("process", ["embedder", "reranker"])
def test_a_gpu_worker_asks_for_a_gpu_and_for_the_image_that_uses_it(process: str) -> None:
    only = container("gpu", process)
    assert only["resources"]["limits"]["nvidia.com/gpu"] == "1"
    target = f"{process}-cuda"
    assert only["image"].split(":")[0] == f"production-rag-{target}"
    assert f" AS {target}\n" in (ROOT / "Dockerfile").read_text()
    deployment = resources("gpu", "Deployment")[process]["spec"]
    (toleration,) = deployment["template"]["spec"]["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"
    assert deployment["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    # A surge needs a GPU more than there may be.
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    startup = only["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    assert "nvidia.com/gpu" not in str(container("gpu", "generator"))


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("process", PROCESSES)
def test_settings_exist_and_are_valid(
    name: str, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        variable["name"]: variable["value"]
        for variable in container(name, process)["env"]
        if "value" in variable
    }
    assert set(given) <= environment_names(process) | FOREIGN_NAMES
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    SETTINGS[process](_env_file=None)


def common(name: str) -> dict[str, str]:
    """The ConfigMap that every process reads."""
    (config,) = [
        r["data"]
        for r in overlay(name)
        if r["kind"] == "ConfigMap" and r["metadata"]["name"].startswith("common-")
    ]
    return dict(config)


def found_after_s() -> float:
    """Worst case from a pod's readiness to its first call."""
    endpoints_s = 2.0
    # What kubeadm and the clouds give the records, and CoreDNS and node caches keep them for.
    dns_ttl_s = 30.0
    # gRPC spreads the age of a connection by a tenth either way.
    age_s = 1.1 * float(common("cpu")["MAX_CONNECTION_AGE_SECONDS"])
    resolutions_s = dict(channel_options("any"))["grpc.dns_min_time_between_resolutions_ms"] / 1000
    return endpoints_s + dns_ttl_s + age_s + resolutions_s


def test_a_new_pod_is_used_within_a_minute_and_a_half_of_the_decision() -> None:
    """Worst case; docs/scaling.md has it as a table."""
    startup, readiness = (container("cpu", "embedder")[p] for p in PROBES)
    # Six seconds to load, at most, then one look of each probe.
    start_s = 6 + startup["periodSeconds"] + readiness["periodSeconds"]
    decision_s = 5 + 5 + 15
    decided_to_called_s = start_s + found_after_s()
    assert decided_to_called_s <= 90
    guide = (ROOT / "docs" / "scaling.md").read_text()
    for total_s in (
        decision_s,
        start_s,
        found_after_s(),
        decided_to_called_s,
        decision_s + decided_to_called_s,
    ):
        assert f"{total_s:g} s |" in guide


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("process", WORKERS)
def test_an_update_takes_no_pod_away_before_clients_know_the_new_one(
    name: str, process: str
) -> None:
    spec = resources(name, "Deployment")[process]["spec"]
    assert found_after_s() < spec["minReadySeconds"] < found_after_s() + 10
    # Or the update would count as stuck while all is well.
    startup = container(name, process)["startupProbe"]
    longest_s = startup["periodSeconds"] * startup["failureThreshold"] + spec["minReadySeconds"]
    assert longest_s < spec.get("progressDeadlineSeconds", 600)


def test_the_schemas_are_there_offline() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        validate({"apiVersion": "v1", "kind": "Service", "spec": {"unknown": 1}})
