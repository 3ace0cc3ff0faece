"""The Dockerfile against the code: what each target copies, listens on, checks and starts."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field

import pytest
from support.deployables import ROOT, WORKERS, Worker, default

from deploy import healthcheck
from gateway.settings import GatewaySettings

# A worker holds the encoders and itself; only the default target holds everything.
PACKAGES = {
    "gateway": {"gateway"},
    **{name: {"encoders", worker.module} for name, worker in WORKERS.items()},
    "all": {"gateway", "encoders", *(worker.module for worker in WORKERS.values())},
}


@dataclass
class Stage:
    """One `FROM ... AS name` and its instructions."""

    name: str
    parent: str
    lines: list[str] = field(default_factory=list)

    def after(self, keyword: str) -> list[str]:
        """The arguments of every such instruction."""
        return [
            line.removeprefix(keyword).strip() for line in self.lines if line.startswith(keyword)
        ]


def _stages() -> dict[str, Stage]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in text.splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            current = stages[match[2]] = Stage(match[2], match[1])
        elif current is not None:
            current.lines.append(line)
    return stages


STAGES = _stages()


@pytest.mark.parametrize("target", PACKAGES)
def test_target_holds_what_it_runs_and_no_more(target: str) -> None:
    stage = STAGES[target]
    assert stage.parent == "process"
    copied = {
        source
        for arguments in stage.after("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert copied == PACKAGES[target]
    assert f"COPY --from={target}-dependencies /opt/venv /opt/venv" in stage.lines


@pytest.mark.parametrize(
    ("target", "kinds"),
    [
        ("embedder", ["embedding"]),
        ("reranker", ["late_interaction"]),
        ("generator", ["embedding"]),
        ("all", ["embedding", "late_interaction"]),
    ],
)
def test_exports_of_the_default_models_are_in_the_image(target: str, kinds: list[str]) -> None:
    stage = STAGES[target]
    copies = [line for line in stage.after("COPY") if line.startswith("--from=exports")]
    assert copies == [f"--from=exports /exports/{kind} /opt/exports" for kind in kinds]
    assert "MODEL_EXPORTS_DIR=/opt/exports" in stage.after("ENV")[0].split()


def test_default_target_runs_everything() -> None:
    assert list(STAGES)[-1] == "all"
    assert STAGES["all"].after("ENTRYPOINT") == ['["python", "-m", "deploy.local"]']
    assert "SERVER_HOST=0.0.0.0" in STAGES["all"].after("ENV")[0]


def test_gateway_holds_no_torch() -> None:
    stage, names = STAGES["gateway-dependencies"], []
    while stage.parent in STAGES:
        names.append(stage.name)
        stage = STAGES[stage.parent]
    assert "torch" not in names


@pytest.mark.parametrize("target", PACKAGES)
def test_extras_exist(target: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = re.findall(r'"\.\[(\w+)\]"', "\n".join(STAGES[f"{target}-dependencies"].lines))
    assert install == target
    assert install in project["optional-dependencies"]


def test_processes_are_not_root() -> None:
    (user,) = STAGES["process"].after("USER")
    uid, gid = user.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert not any(STAGES[target].after("USER") for target in PACKAGES)


@pytest.mark.parametrize("worker", WORKERS.values(), ids=lambda w: w.name)
def test_worker_ports_and_health_name(worker: Worker) -> None:
    stage = STAGES[worker.name]
    ports = f"{worker.grpc_port} {worker.metrics_port}"
    assert stage.after("EXPOSE") == [ports]
    assert stage.after("ENV") == [
        f"GRPC_PORT={worker.grpc_port} METRICS_PORT={worker.metrics_port} "
        "MODEL_EXPORTS_DIR=/opt/exports"
    ]
    assert stage.after("ENTRYPOINT") == [json.dumps(["python", "-m", worker.module])]
    (check,) = stage.after("HEALTHCHECK")
    assert json.loads(check[check.index("[") :]) == [
        "python",
        "-m",
        healthcheck.__name__,
        worker.service,
    ]


@pytest.mark.parametrize("target", ["gateway", "all"])
def test_gateway_port_data_and_health(target: str) -> None:
    stage, port = STAGES[target], default(GatewaySettings, "server_port")
    assert stage.after("EXPOSE") == [str(port)]
    (values,) = stage.after("ENV")
    assert values.startswith(f"DATA_DIR=/data SERVER_HOST=0.0.0.0 SERVER_PORT={port}")
    assert stage.after("VOLUME") == ["/data"]
    (check,) = stage.after("HEALTHCHECK")
    assert json.loads(check[check.index("[") :])[2:] == [healthcheck.__name__, "http"]


def test_everything_copied_is_let_through() -> None:
    allowed = {
        line[1:].strip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for stage in STAGES.values()
        for arguments in stage.after("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert copied == allowed
    assert all(list(ROOT.glob(pattern)) for pattern in allowed)
