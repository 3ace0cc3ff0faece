"""The component with a second set of embedders, on top of an overlay."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from support.deployables import ROOT, WORKERS
from support.kustomize import rendered, validate

K8S = ROOT / "deploy" / "k8s"
NEXT = "embedder-next"
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: production-rag
resources: [../cpu]
components: [../../components/next-model]
configMapGenerator:
  - name: next-model
    literals: [EMBEDDING_MODEL=other/model]
"""


def test_an_overlay_with_it_has_both_models(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("mine"))
    mine = tmp_path / "k8s" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(OVERLAY)
    documents = rendered(mine)
    for document in documents:
        validate(document)
    config = {
        one["metadata"]["name"].rsplit("-", 1)[0]: one["data"]
        for one in documents
        if one["kind"] == "ConfigMap"
    }
    assert config["next-model"] == {"EMBEDDING_MODEL": "other/model"}
    assert config["models"]["EMBEDDING_MODEL"] != "other/model"
    port = WORKERS["embedder"].grpc_port
    assert config["gateway"]["EMBEDDER_TARGET_NEXT"] == f"dns:///{NEXT}:{port}"
    assert config["gateway"]["EMBEDDER_TARGET"] == f"dns:///embedder:{port}"
    (deployment,) = [
        one for one in documents if one["kind"] == "Deployment" and one["metadata"]["name"] == NEXT
    ]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    sources = [source["configMapRef"]["name"] for source in container["envFrom"]]
    # The last one wins.
    assert [name.rsplit("-", 1)[0] for name in sources] == ["common", "models", "next-model"]


def test_it_differs_from_the_embedder_in_name_and_model() -> None:
    base = [*_documents(K8S / "base" / "embedder.yaml"), _policy()]
    theirs = _documents(K8S / "components" / "next-model" / "embedder-next.yaml")
    for document in theirs:
        _rename(document)
        if document["kind"] == "Deployment":
            sources = document["spec"]["template"]["spec"]["containers"][0]["envFrom"]
            sources.remove({"configMapRef": {"name": "next-model"}})
    assert theirs == base


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _policy() -> dict[str, Any]:
    documents = _documents(K8S / "base" / "network.yaml")
    (policy,) = [one for one in documents if one["metadata"]["name"] == "embedder"]
    return policy


def _rename(value: Any) -> None:
    """Gives everything that bears the next embedder's name the embedder's."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner == NEXT:
                value[key] = "embedder"
            _rename(inner)
    elif isinstance(value, list):
        for inner in value:
            _rename(inner)
