"""Alerts and dashboard name only metrics and labels that the processes have."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from support.deployables import ROOT, SETTINGS, WORKERS, default

from encoders.batch_metrics import BatchMetrics
from encoders.lanes import LANES
from gateway.metrics import GatewayMetrics
from generator_worker.metrics import GeneratorMetrics
from runtime.metrics import RpcMetrics

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
# What scaling.yml records: name → expression.
RECORDED: dict[str, str] = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load((PROMETHEUS / "scaling.yml").read_text())["groups"]
    for rule in group["rules"]
}
PANELS: list[dict[str, Any]] = json.loads(
    (ROOT / "deploy" / "grafana" / "dashboard.json").read_text()
)["panels"]
# Put there by Prometheus itself.
FROM_PROMETHEUS = {"instance", "job", "namespace", "pod"}
# name{label="value", ...}, `by (label, ...)` and `ignoring(label)`; level:name:operation
METRIC = re.compile(r"\b(rag_[a-z_]+)")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
RECORD = re.compile(r"\b[a-z]+:[a-z_]+:[a-z0-9]+")
GROUPING = re.compile(r"\b(?:by|without|ignoring)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def samples() -> dict[str, dict[str, set[str]]]:
    """Every series of every process: name → label → values there from the first scrape."""
    found: dict[str, dict[str, set[str]]] = {}
    for make in (
        GatewayMetrics,
        BatchMetrics,
        lambda registry: BatchMetrics(registry, "rag_reader"),
        lambda registry: RpcMetrics(registry, ("EmbedTexts",)),
        lambda registry: GeneratorMetrics(registry, ("extractive",)),
    ):
        registry = CollectorRegistry()
        make(registry)
        for metric in registry.collect():
            for sample in metric.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def _expanded(expression: str) -> str:
    """With what was recorded in the place of its name, down to the processes' own metrics."""
    while RECORD.search(expression):
        expression = RECORD.sub(lambda found: f"({RECORDED[found[0]]})", expression)
    return expression


EXPRESSIONS = [
    _expanded(expression)
    for expression in (
        *(rule["expr"] for rule in RULES),
        *RECORDED.values(),
        *(target["expr"] for panel in PANELS for target in panel["targets"]),
    )
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_names_what_exists(
    expression: str, samples: dict[str, dict[str, set[str]]]
) -> None:
    names = set(METRIC.findall(expression))
    assert names <= set(samples)
    labels = FROM_PROMETHEUS.union(*(samples[name] for name in names))
    for grouped in GROUPING.findall(expression):
        assert {label.strip() for label in grouped.split(",")} <= labels
    for label, value in MATCHER.findall(expression):
        assert label in labels
        known = set().union(*(samples[name].get(label, set()) for name in names))
        if label not in FROM_PROMETHEUS:
            assert set(value.split("|")) <= known
    assert expression.count("(") == expression.count(")")


def test_what_alerts_and_scales_for_a_model_does_so_for_a_generators_reader(
    samples: dict[str, dict[str, set[str]]],
) -> None:
    named = set(METRIC.findall(" ".join((*(rule["expr"] for rule in RULES), *RECORDED.values()))))
    of_readers = {name.replace("rag_", "rag_reader_", 1) for name in named} & set(samples)
    assert len(of_readers) >= 5
    assert of_readers <= named


def test_every_metric_is_watched(samples: dict[str, dict[str, set[str]]]) -> None:
    """A metric nobody looks at is either missing here or should not exist.

    The generator's reader has a queue of its own beside the embedder's: its length is shown, and
    the rest is there for whoever looks into it.
    """
    shown = set(METRIC.findall(" ".join(EXPRESSIONS)))
    families = {
        re.sub(r"_(bucket|count|sum|created)$", "", name)
        for name in samples
        if not name.endswith("_created") and not name.startswith("rag_reader_")
    }
    assert "rag_reader_queue_tokens" in shown
    watched = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    unwatched = {
        "rag_batch_items_total",
        "rag_generator_answer_duration_seconds",
        "rag_rpcs_total",
    }
    assert families - watched == unwatched


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        # Public: dashboards and alerts of others are built on them.
        ("rag_queries_total", {}),
        ("rag_query_duration_seconds_count", {}),
        ("rag_cache_hits_total", {"tier": {"memory", "redis"}}),
        ("rag_cache_misses_total", {}),
        ("rag_errors_total", {"type": {"QUEUE_FULL", "INTERNAL", "DEADLINE_EXCEEDED"}}),
        ("rag_active_requests", {}),
        ("rag_stage_duration_seconds_count", {"stage": {"embed", "search", "rerank", "generate"}}),
        ("rag_queue_tokens", {"lane": set(LANES)}),
        ("rag_queue_oldest_age_seconds", {"lane": set(LANES)}),
        ("rag_batch_fill_ratio_count", {"lane": set(LANES)}),
        ("rag_batch_duration_seconds_count", {"lane": set(LANES)}),
        ("rag_tokens_total", {"kind": {"text", "padding"}}),
        ("rag_tokens_per_second", {}),
        ("rag_requests_shed_total", {"cause": {"queue_full", "too_late", "expired", "cancelled"}}),
        ("rag_rpcs_total", {"code": {"OK", "CANCELLED", "RESOURCE_EXHAUSTED", "INTERNAL"}}),
    ],
)
def test_public_series_are_there_before_anything_happens(
    samples: dict[str, dict[str, set[str]]], name: str, labels: dict[str, set[str]]
) -> None:
    assert name in samples
    for label, values in labels.items():
        assert values <= samples[name][label]


@pytest.mark.parametrize("guide", ["operations.md", "scaling.md"])
def test_guides_name_metrics_that_exist(
    guide: str, samples: dict[str, dict[str, set[str]]]
) -> None:
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in samples}
    shown_by_the_adapter = {name.split(":")[1] for name in RECORDED}
    named = set(METRIC.findall((ROOT / "docs" / guide).read_text()))
    assert named
    assert named <= families | shown_by_the_adapter


def test_alerts_say_what_is_wrong() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_shares_are_taken_of_all_that_could_have_failed() -> None:
    """What is counted for every request is no share of the questions alone."""
    for expression in EXPRESSIONS:
        if "rag_errors_total" in expression and " / " in expression:
            assert "rag_requests_total" in expression
        if "rag_degraded_total" in expression and " / " in expression:
            assert 'rag_stage_duration_seconds_count{stage="search"}' in expression


def test_only_pods_whose_port_serves_metrics_alone_are_open_to_readers() -> None:
    base = ROOT / "deploy" / "k8s" / "base"
    policies = yaml.safe_load_all((base / "network.yaml").read_text())
    (policy,) = [p for p in policies if p["metadata"]["name"] == "metrics"]
    (rule,) = policy["spec"]["ingress"]
    opened = {port["port"] for port in rule["ports"]}
    assert opened == {worker.metrics_port for worker in WORKERS.values()}
    (job,) = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())["scrape_configs"]
    (kept,) = [r["regex"] for r in job["relabel_configs"] if "port_number" in str(r)]
    gateway_port = default(SETTINGS["gateway"], "server_port")
    assert set(map(int, kept.split("|"))) == opened | {gateway_port}
    for path in base.glob("*.yaml"):
        for port in re.findall(r'prometheus\.io/port: "(\d+)"', path.read_text()):
            assert int(port) in opened | {gateway_port}


def test_no_alert_on_a_target_that_may_need_a_key() -> None:
    (rule,) = [rule for rule in RULES if rule["alert"] == "RagTargetDown"]
    assert "qdrant" not in rule["expr"]


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", ["compose.yml", "kubernetes.yml"])
def test_prometheus_reads_every_file_of_rules(name: str) -> None:
    config = yaml.safe_load((PROMETHEUS / name).read_text())
    assert config["rule_files"] == ["rules.yml", "scaling.yml"]


def test_rates_are_taken_over_several_readings() -> None:
    """Of the workers in Kubernetes, whose replicas are scaled on them."""
    (job,) = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())["scrape_configs"]
    interval_s = int(job["scrape_interval"].removesuffix("s"))
    spans = {
        int(number) * {"s": 1, "m": 60}[unit]
        for expression in RECORDED.values()
        for number, unit in re.findall(r"\[(\d+)([sm])\]", expression)
    }
    assert min(spans) >= 4 * interval_s


def test_adapter_shows_what_is_recorded_by_namespace_and_pod() -> None:
    adapter = yaml.safe_load((PROMETHEUS / "adapter.yml").read_text())["rules"]
    (job,) = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())["scrape_configs"]
    given = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    for rule in adapter["custom"]:
        series, labels = rule["seriesQuery"].rstrip("}").split("{")
        assert series in RECORDED
        assert rule["name"]["matches"] == f"^{series}$"
        resources = rule["resources"]["overrides"]
        assert set(resources) == {"namespace", "pod"} <= given
        assert labels == 'namespace!="",pod!=""'
        assert re.findall(r"<<\.(\w+)>>", rule["metricsQuery"]) == [
            "Series",
            "LabelMatchers",
            "GroupBy",
        ]


def test_compose_scrapes_the_ports_of_the_settings() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "compose.yml").read_text())["scrape_configs"]
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in jobs}
    assert ports == {
        "gateway": default(SETTINGS["gateway"], "server_port"),
        **{name: worker.metrics_port for name, worker in WORKERS.items()},
        "qdrant": 6333,
    }
