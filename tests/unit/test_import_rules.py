"""Dependencies run one way: worker → encoders → runtime, gateway → runtime, nothing back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKERS = {"embedder_worker", "reranker_worker", "generator_worker"}
OURS = WORKERS | {"runtime", "encoders", "gateway", "deploy", "rag", "training", "bench"}

# What each package may import of ours; the stubs are ruled below, file by file.
ALLOWED = {
    "runtime": {"runtime"},
    "encoders": {"encoders", "runtime"},
    "gateway": {"gateway", "runtime", "rag"},
    # The launcher reads what the processes it starts read, and nothing else of theirs.
    "deploy": {"deploy", "runtime", "settings"},
    # Not installed: it makes adapters, of data that bench knows the place of, cut as documents are,
    # and measures them as bench does.
    "training": {"training", "encoders", "gateway", "bench"},
    **{worker: {worker, "encoders", "runtime", "rag"} for worker in WORKERS},
}
TRAINING_BORROWS = {
    "bench.datasets", "bench.spans", "bench.stats", "gateway.chunking", "gateway.search.types",
}  # fmt: skip
# The only files that know protobuf.
KNOW_STUBS = {"gateway/clients.py"} | {f"{worker}/service.py" for worker in WORKERS}
# What a gateway image does not hold.
HEAVY = {"torch", "transformers", "sentence_transformers", "tokenizers", "dspy", "openvino"}


def sources() -> list[Path]:
    return sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Top-level names of everything the file imports, at any depth; `x.settings` is "settings"."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = (node.module or "").split(".")
            names.add(
                "settings" if path.parts[-2] == "deploy" and module[-1] == "settings" else module[0]
            )
    return names


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(ALLOWED)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    package = name.split("/")[0]
    imported = imports(path)
    assert imported & (OURS | {"settings"}) <= ALLOWED[package]
    if "rag" in imported:
        assert name in KNOW_STUBS
    if package in ("gateway", "runtime", "deploy"):
        assert not imported & HEAVY


def test_training_takes_the_place_of_data_the_measures_and_the_cut_of_documents() -> None:
    borrowed = {
        node.module
        for path in (ROOT / "training").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("bench", "gateway")
    }
    assert borrowed <= TRAINING_BORROWS


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_a_drawer(path: Path) -> None:
    # The design draws the line at about 300 lines: beyond it a file is two things.
    lines = len(path.read_text().splitlines())
    assert lines <= 330
