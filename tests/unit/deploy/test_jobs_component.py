"""The gateway that runs jobs: like the others, but one, and with a volume."""

from __future__ import annotations

from typing import Any

import pytest
from support.deployables import ROOT, environment_names
from support.kustomize import rendered

OVERLAYS = ROOT / "deploy" / "k8s" / "overlays"


@pytest.fixture(scope="module")
def resources() -> list[dict[str, Any]]:
    return rendered(OVERLAYS / "cpu")


def the(resources: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in resources if r["kind"] == kind and r["metadata"]["name"] == name]
    spec: dict[str, Any] = found["spec"]
    return spec


def test_it_is_like_the_other_gateways_and_has_a_volume(resources: list[dict[str, Any]]) -> None:
    many = the(resources, "Deployment", "gateway")["template"]["spec"]
    one = the(resources, "StatefulSet", "gateway-jobs")["template"]["spec"]
    (theirs,), (its,) = many.pop("containers"), one.pop("containers")
    many.pop("topologySpreadConstraints")
    assert one == many
    own = {"JOBS": "true", "DATA_DIR": "/data"}
    assert [e for e in its.pop("env") if e["name"] not in own] == theirs.pop("env")
    assert set(own) <= environment_names("gateway")
    mounts = its.pop("volumeMounts")
    assert [m for m in mounts if m["name"] != "jobs"] == theirs.pop("volumeMounts")
    assert {"name": "jobs", "mountPath": own["DATA_DIR"]} in mounts
    assert its == theirs


def test_there_is_one_and_the_others_run_none(resources: list[dict[str, Any]]) -> None:
    spec = the(resources, "StatefulSet", "gateway-jobs")
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "jobs"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    (config,) = [
        r["data"]
        for r in resources
        if r["kind"] == "ConfigMap" and r["metadata"]["name"].startswith("gateway-")
    ]
    assert config["JOBS"] == "false"


def test_each_service_finds_its_own_pods(resources: list[dict[str, Any]]) -> None:
    labels = {
        "gateway": the(resources, "Deployment", "gateway")["template"]["metadata"]["labels"],
        "gateway-jobs": the(resources, "StatefulSet", "gateway-jobs")["template"]["metadata"][
            "labels"
        ],
    }
    for name in labels:
        selector = the(resources, "Service", name)["selector"]
        found = [pod for pod, given in labels.items() if selector.items() <= given.items()]
        assert found == [name]


def test_it_may_call_all_that_the_gateways_call(resources: list[dict[str, Any]]) -> None:
    policies = [r["spec"] for r in resources if r["kind"] == "NetworkPolicy"]
    gateways = {"matchLabels": {"app.kubernetes.io/name": "gateway"}}
    callable_by_gateways = {
        (policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for policy in policies
        for rule in policy.get("ingress", ())
        if {"podSelector": gateways} in rule.get("from", ())
        for port in rule["ports"]
    }
    added = the(resources, "NetworkPolicy", "from-gateway-jobs")
    (expression,) = added["podSelector"]["matchExpressions"]
    (rule,) = added["ingress"]
    assert {name for name, _ in callable_by_gateways} <= set(expression["values"])
    assert {port for _, port in callable_by_gateways} == {port["port"] for port in rule["ports"]}
