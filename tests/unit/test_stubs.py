"""The committed stubs are what the committed protos generate, and the protos keep their rules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT / "protos").as_posix()


def test_the_stubs_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/protos.py", tmp_path], check=True, timeout=60)
    generated = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*_pb2*")}
    assert len(generated) == 4 * len(PROTOS)
    for name, path in generated.items():
        committed = ROOT / "protos" / name
        assert committed.read_text() == path.read_text(), f"{name} is stale: run `make protos`"


@pytest.mark.parametrize("path", PROTOS, ids=relative)
def test_proto_rules(path: Path) -> None:
    """The rules of buf's STANDARD set that apply here, kept by hand."""
    text = re.sub(r"//.*", "", path.read_text())
    package = re.search(r"^package ([\w.]+);", text, re.M)
    assert package
    assert relative(path).rsplit("/", 1)[0] == package[1].replace(".", "/")
    assert re.fullmatch(r"rag\.[a-z]+\.v\d+", package[1])
    assert "import " not in text, "the contracts import nothing from each other"
    for service in re.findall(r"service (\w+)", text):
        assert service.endswith("Service")
    for method, request, response in re.findall(
        r"rpc (\w+)\((\w+)\)\s*returns \((?:stream )?(\w+)\)", text
    ):
        assert (request, response) == (f"{method}Request", f"{method}Response")
    for enum, body in re.findall(r"enum (\w+) \{(.*?)\}", text, re.S):
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum).upper()
        values = re.findall(r"(\w+) = (\d+);", body)
        assert values[0] == (f"{prefix}_UNSPECIFIED", "0")
        assert all(name.startswith(f"{prefix}_") for name, _ in values)
    for message in re.findall(r"message (\w+) \{(.*?)\n\}", text, re.S):
        fields = re.findall(r"(\w+) = (\d+);", message[1])
        numbers = [int(number) for _, number in fields]
        assert len(set(numbers)) == len(numbers)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name, _ in fields)


def test_every_message_and_method_is_explained() -> None:
    for path in PROTOS:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*(rpc|service|enum) ", line):
                assert lines[number - 1].strip().startswith("//"), f"{relative(path)}: {line}"
