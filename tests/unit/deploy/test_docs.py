"""The documents: links that lead somewhere, examples that are valid, no name that is not there."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest
from support.deployables import FOREIGN_NAMES, ROOT, SETTINGS, environment_names

from gateway.answers import AnswerDone, Source
from gateway.openapi import openapi_document
from gateway.problems import PROBLEMS
from gateway.schemas import QueryRequest, ReindexRequest

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
API = (ROOT / "docs" / "api.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_documents_that_the_code_names_exist() -> None:
    suffixes = {".py", ".yml", ".yaml", ".json", ".toml", ".example", ".proto", ".html", ""}
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    files = [path for path in ROOT.iterdir() if path.is_file()] + [
        path
        for folder in folders
        if folder.name not in ("data", "build")
        for path in folder.rglob("*")
        if path.is_file()
    ]
    named = {
        name
        for path in files
        if path.suffix in suffixes
        for name in re.findall(r"\bdocs/[a-z_-]+\.(?:md|svg)", path.read_text("utf-8"))
    }
    assert "docs/configuration.md" in named
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", path.read_text())) - {"a", "memory"}
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_every_document_is_linked_from_the_readme() -> None:
    for path in DOCUMENTS[1:]:
        assert f"({path.relative_to(ROOT)})" in README


def test_readme_table_has_the_defaults_of_the_code() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]*)`", README, re.MULTILINE)
    defaults = {
        field.upper(): info.default
        for settings in SETTINGS.values()
        for field, info in settings.model_fields.items()
    }
    assert len(rows) > 5
    for name, shown in rows:
        default = defaults[name]
        assert shown == (f"{default:g}" if isinstance(default, float) else str(default)), name


def test_readme_names_settings_that_exist() -> None:
    known = FOREIGN_NAMES.union(*(environment_names(name) for name in SETTINGS))
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE)) <= known


def test_json_examples_are_json() -> None:
    for path in DOCUMENTS:
        for block in re.findall(r"```json\n(.*?)```", path.read_text(), re.DOTALL):
            json.loads(block)


def test_query_json_is_a_valid_query() -> None:
    body = (ROOT / "query.json").read_bytes()
    assert msgspec.json.decode(body, type=QueryRequest, strict=True).query


def section(heading: str) -> str:
    """That part of the API guide, down to the next heading."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", API, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_api_guide_lists_every_route() -> None:
    listed = set(re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", section("Routes")))
    paths = openapi_document("0", keyed=False)["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    # The description of the API and its page do not describe themselves.
    assert listed - described <= {("GET", "/openapi.json"), ("GET", "/docs")}
    assert described <= listed


def test_api_guide_lists_the_fields_of_a_query() -> None:
    text = section("POST /query")
    request, _, answer = text.partition("The answer holds")
    fields = re.findall(r"^\| `([a-z_]+)` \|", request, re.MULTILINE)
    assert set(fields) == set(QueryRequest.__struct_fields__)
    for name in (*AnswerDone.__struct_fields__, *Source.__struct_fields__):
        assert f"`{name}`" in answer


def test_api_guide_lists_every_reason_with_its_status() -> None:
    table = API.split("| Status |")[1]
    listed = {
        (int(status), reason)
        for status, reasons in re.findall(r"^\| (\d{3}) \| ([^|]+) \|", table, re.MULTILINE)
        for reason in re.findall(r"`([A-Z_]+)`", reasons)
    }
    assert listed == {(status, reason.value) for reason, (status, _) in PROBLEMS.items()}


# Keeps what it is called with; answers as GET /collections does.
CURL = """#!/bin/sh
printf '%s\\n' "$@" '' >> "$CALLS"
printf '%s' '{"collections": [{"name": "documents", "model": {"name": "m"}}, {"name": "b-2"}]}'
"""


def test_the_guide_to_another_model_moves_every_collection(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (loop,) = [one for one in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "for name" in one]
    curl = tmp_path / "curl"
    curl.write_text(CURL)
    curl.chmod(0o755)
    calls = tmp_path / "calls"
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-euc", loop], env={"PATH": path, "CALLS": str(calls)}, check=True)
    asked = [call.splitlines() for call in calls.read_text().split("\n\n") if call]
    moved = [call for call in asked if "localhost:8080/reindex" in call]
    bodies = [msgspec.json.decode(call[-1], type=ReindexRequest) for call in moved]
    assert [body.collection for body in bodies] == ["documents", "b-2"]
    assert all("Content-Type: application/json" in call for call in moved)
