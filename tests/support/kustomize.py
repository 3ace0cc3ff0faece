"""What `kubectl kustomize` makes of a folder, and whether an API server would take it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml


def rendered(folder: Path) -> list[dict[str, Any]]:
    """The resources of a kustomization; skips where kubectl is missing, unless in CI."""
    kubectl = shutil.which("kubectl")
    if kubectl is None and "CI" not in os.environ:
        pytest.skip("kubectl is not on PATH")
    assert kubectl is not None, "CI needs kubectl"
    result = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def validate(document: dict[str, Any]) -> None:
    """Raises when the API server, or KEDA's own definition, would refuse it."""
    if document["kind"] == "ScaledObject":
        jsonschema.validate(document, SCALED_OBJECT)
    else:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# Quoted in the manifest, as KEDA takes a trigger's settings: "0.25" and never 0.25.
_NUMBER = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_COUNT = {"type": "integer", "minimum": 1}
_POLICY = _closed(
    {"type": {"enum": ["Pods", "Percent"]}, "value": _COUNT, "periodSeconds": _COUNT},
    "type",
    "value",
    "periodSeconds",
)
_RULES = _closed(
    {
        "stabilizationWindowSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
        "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
        "policies": {"type": "array", "items": _POLICY, "minItems": 1},
    }
)
_PROMETHEUS = _closed(
    {
        "type": {"const": "prometheus"},
        "name": {"type": "string"},
        "metricType": {"enum": ["AverageValue", "Value"]},
        "metadata": _closed(
            {
                "serverAddress": {"type": "string", "pattern": "^https?://"},
                "query": {"type": "string", "minLength": 1},
                "threshold": _NUMBER,
                "activationThreshold": _NUMBER,
                "ignoreNullValues": {"enum": ["true", "false"]},
            },
            "serverAddress",
            "query",
            "threshold",
        ),
    },
    "type",
    "metadata",
)
_CPU = _closed(
    {
        "type": {"const": "cpu"},
        "metricType": {"enum": ["AverageValue", "Utilization"]},
        "metadata": _closed({"value": {"type": "string", "pattern": r"^\d+m?$"}}, "value"),
    },
    "type",
    "metricType",
    "metadata",
)
# No registry has KEDA's definition for offline use. This is the part of it that we write, after
# https://keda.sh/docs/latest/reference/scaledobject-spec/ and the pages of the two scalers.
SCALED_OBJECT = _closed(
    {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": _closed(
            {
                "scaleTargetRef": _closed(
                    {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "name": {"type": "string"},
                    },
                    "name",
                ),
                "pollingInterval": _COUNT,
                "cooldownPeriod": _COUNT,
                "minReplicaCount": {"type": "integer", "minimum": 0},
                "maxReplicaCount": _COUNT,
                "advanced": _closed(
                    {
                        "restoreToOriginalReplicaCount": {"type": "boolean"},
                        "horizontalPodAutoscalerConfig": _closed(
                            {"behavior": _closed({"scaleUp": _RULES, "scaleDown": _RULES})}
                        ),
                    }
                ),
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"anyOf": [_PROMETHEUS, _CPU]},
                },
            },
            "scaleTargetRef",
            "triggers",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
