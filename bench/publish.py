"""`python -m bench.publish`: puts tables and pictures of the last runs into docs/.

A table stands between marks: what follows `<!-- bench:<measurement> -->` up to
`<!-- /bench:<measurement> -->` is replaced. Pictures are files of their own, drawn from the same
results. No figure in a table was copied by hand. Trials (`--quick`) are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from bench import overload_plot, scale_plot
from bench.datasets import ROOT
from bench.report import RESULTS

DOCS: Final = ROOT / "docs"
DOCUMENTS: Final = (DOCS / "benchmarks.md", DOCS / "quality.md")
# By the measurement whose figures they show; each is `docs/<measurement>.svg`.
PICTURES: Final[Mapping[str, Callable[[dict[str, Any]], str]]] = MappingProxyType(
    {"overload": overload_plot.picture, "scale": scale_plot.picture}
)


def main() -> None:
    """Rewrites the documents for which there are results."""
    for path in DOCUMENTS:
        path.write_text(published(path.read_text(), RESULTS))
    draw(RESULTS, DOCS)


def draw(results: Path, docs: Path) -> None:
    """Draws the picture of every measurement that has one and has results."""
    for name, picture in PICTURES.items():
        figures = results / f"{name}.json"
        if figures.exists():
            (docs / f"{name}.svg").write_text(picture(json.loads(figures.read_text())["figures"]))


def published(document: str, results: Path) -> str:
    """The document with tables, and references to pictures, of measurements that have results."""
    for name in re.findall(r"<!-- bench:(\S+) -->", document):
        table, figures = results / f"{name}.md", results / f"{name}.json"
        if not table.exists() or not figures.exists():
            continue
        parts = [provenance(json.loads(figures.read_text())["machine"]), table.read_text()]
        if name in PICTURES:
            parts.insert(1, f"![Figures of {name}]({name}.svg)")
        block = "\n\n".join(parts)
        document = replaced(document, name, block)
    return document


def replaced(document: str, name: str, block: str) -> str:
    """The document with `block` between the marks of `name`."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{begin} has no {end}")
    return f"{before}{begin}\n{fenced_targets(block.strip())}\n{end}{after}"


def fenced_targets(block: str) -> str:
    """The lines of targets in a code block: Markdown would join them to one paragraph."""
    lines = block.splitlines()
    targets = [line for line in lines if re.match(r" *(met|MISSED): ", line)]
    if not targets:
        return block
    rest = "\n".join(line for line in lines if line not in targets).rstrip()
    return "\n".join((rest, "", "```", *targets, "```"))


def provenance(machine: dict[str, Any]) -> str:
    """Where and on what a run was made, in one line."""
    return (
        f"Run of {machine['time'][:10]} on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, Python {machine['python']}, commit "
        f"`{machine['commit']}`; load average before the run "
        f"{machine['load_average_before'][0]:.1f}."
    )


if __name__ == "__main__":
    main()
