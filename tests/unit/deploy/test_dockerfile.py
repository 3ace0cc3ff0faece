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

# The workers that gain from a GPU. Their images for it hold the same, with another torch.
CUDA = ("embedder", "reranker")
# A worker holds the encoders and itself; only the default target holds everything.
PACKAGES = {
    "gateway": {"gateway"},
    **{name: {"encoders", worker.module} for name, worker in WORKERS.items()},
    **{f"{name}-cuda": {"encoders", WORKERS[name].module} for name in CUDA},
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


def image(target: str) -> Stage:
    """The target with everything it inherits, from the stage `process` on."""
    stage = STAGES[target]
    lines = list(stage.lines)
    while stage.parent != "process":
        stage = STAGES[stage.parent]
        lines = [*stage.lines, *lines]
    return Stage(target, "process", lines)


@pytest.mark.parametrize("target", PACKAGES)
def test_target_holds_what_it_runs_and_no_more(target: str) -> None:
    stage = image(target)
    copied = {
        source
        for arguments in stage.after("COPY")
        if "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied == PACKAGES[target]
    packages = [line for line in stage.after("COPY") if "/opt/venv" in line]
    assert [line.removeprefix("--link ") for line in packages] == [
        f"--from={target}-dependencies /opt/venv /opt/venv"
    ]


@pytest.mark.parametrize(
    ("target", "kinds"),
    [
        ("embedder", ["embedding"]),
        ("embedder-cuda", ["embedding"]),
        ("reranker", ["late_interaction"]),
        ("generator", ["embedding", "reader"]),
        ("all", ["embedding", "late_interaction", "reader"]),
    ],
)
def test_exports_of_the_default_models_are_in_the_image(target: str, kinds: list[str]) -> None:
    stage = image(target)
    copies = [line for line in stage.after("COPY") if line.startswith("--from=exports")]
    assert copies == [f"--from=exports /exports/{kind} /opt/exports" for kind in kinds]
    assert "MODEL_EXPORTS_DIR=/opt/exports" in stage.after("ENV")[0].split()


def parents(name: str) -> list[str]:
    """The stages that a stage is made from, nearest first."""
    found = []
    while name in STAGES:
        name = STAGES[name].parent
        found.append(name)
    return found


@pytest.mark.parametrize("name", CUDA)
def test_cuda_target_differs_in_its_torch_alone(name: str) -> None:
    assert STAGES[name].parent == STAGES[f"{name}-cuda"].parent == f"{name}-process"
    assert "torch" in parents(f"{name}-dependencies")
    assert "torch-cuda" in parents(f"{name}-cuda-dependencies")
    assert "torch" not in parents(f"{name}-cuda-dependencies")
    # A build for CPUs by mistake would be found by nobody: it works, slowly.
    assert "torch.version.cuda is None" in "".join(STAGES["torch-cuda"].lines)


@pytest.mark.parametrize(
    ("stage", "argument"),
    [("torch", "TORCH_INDEX_URL"), ("torch-cuda", "TORCH_CUDA_INDEX_URL")],
)
def test_torch_comes_from_the_index_that_is_given(stage: str, argument: str) -> None:
    """Unset, from where everything comes from; and only torch ever comes from another."""
    lines = STAGES[stage]
    assert lines.after("ARG") == [f'{argument}=""']
    (run,) = lines.after("RUN")
    assert f'if [ -n "${argument}" ]' in run
    (install,) = re.findall(r"pip install [^;]*--index-url[^;]*", run)
    assert install.endswith(f'--index-url "${argument}" torch')
    assert "--no-deps" in install


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
    assert install == target.removesuffix("-cuda")
    assert install in project["optional-dependencies"]


def test_processes_are_not_root() -> None:
    (user,) = STAGES["process"].after("USER")
    uid, gid = user.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert not any(image(target).after("USER") for target in PACKAGES)


@pytest.mark.parametrize("worker", WORKERS.values(), ids=lambda w: w.name)
def test_worker_ports_and_health_name(worker: Worker) -> None:
    stage = image(worker.name)
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
        if "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied == allowed
    assert all(list(ROOT.glob(pattern)) for pattern in allowed)
