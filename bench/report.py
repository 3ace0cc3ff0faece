"""What a measurement gives: figures for programs, tables for people, targets met or missed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from bench.datasets import ROOT

RESULTS: Final = ROOT / "bench" / "results"
_PACKAGES: Final = ("grpcio", "starlette", "uvicorn", "torch", "openvino", "qdrant-edge-py")


@dataclass(frozen=True, slots=True)
class Table:
    """title: what the rows are; the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """The table as Markdown that also reads well as plain text."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        rule = "|".join(
            "-" * (width + 2 - (i > 0)) + ":" * (i > 0) for i, width in enumerate(widths)
        )
        head, *body = (_line(line, widths) for line in lines)
        return "\n".join((f"**{self.title}**", "", head, f"|{rule}|", *body))


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that was to be reached. `at_most`: smaller is better."""

    name: str
    value: float
    limit: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether it was."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def line(self) -> str:
        """One line for people."""
        sign = "≤" if self.at_most else "≥"
        verdict = "met" if self.met else "MISSED"
        return f"{verdict:>6}: {self.name} is {number(self.value)} (target {sign} {self.limit:g})"


@dataclass(frozen=True, slots=True)
class Report:
    """What one measurement gives.

    figures: everything measured, as JSON may hold it.
    failures: why the command must fail, a line each; a target that is missed is none.
    """

    figures: dict[str, Any]
    tables: list[Table]
    targets: list[Target] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Tables, then targets."""
        targets = "\n".join(target.line() for target in self.targets)
        return "\n\n".join([*(table.markdown() for table in self.tables), targets]).rstrip()


def number(value: float) -> str:
    """Three significant digits, thousands apart: 0.0123, 1.23, 12.3, 123, 12,300."""
    if value == 0:
        return "0"
    digits = max(0, 2 - _exponent(value))
    return f"{round(value, 2 - _exponent(value)):,.{digits}f}"


def save(name: str, report: Report, where: dict[str, Any], *, quick: bool = False) -> Path:
    """Writes `bench/results/<name>.json`, and the tables beside it as `.md`.

    where: what `machine()` gave before the run. quick: the run was a trial, which `bench.publish`
    must never read: its files are `<name>.quick.json` and `<name>.quick.md`.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / (f"{name}.quick.json" if quick else f"{name}.json")
    content = {
        "measurement": name,
        "machine": where,
        "figures": report.figures,
        "targets": [asdict(target) | {"met": target.met} for target in report.targets],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text(report.text() + "\n")
    return path


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, memory, versions, commit, how busy it was."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "load_average_before": os.getloadavg(),
    }


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _exponent(value: float) -> int:
    """Of ten, in scientific notation."""
    return int(f"{value:.2e}".partition("e")[2])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout, with a + when files differ from it; None outside of one."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def _cpu_name() -> str:
    """The model's name and which of the instructions that matter here it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return platform.processor()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    wanted = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"}
    flags = sorted(wanted.intersection(facts.get("flags", "").split()))
    return f"{facts.get('model name', platform.processor())} ({', '.join(flags)})"
