"""`python -m bench.quality`: commits the quality of the last runs as what must not get worse.

`bench/quality.json` holds, for each collection and mode, the means of the gated measures and
one measure of every question; `python -m bench retrieval`, `reranked` and `reading` compare with
it, and fail when a mean falls by more than TOLERANCE.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.datasets import ROOT
from bench.report import RESULTS
from bench.significance import paired_p

COMMITTED: Final = ROOT / "bench" / "quality.json"
# What must not fall, and by how much it may: ten times what rounding and bf16 move.
GATED: Final = ("nDCG@10", "recall@50", "MRR", "token F1", "in the sentence", "abstained")
TOLERANCE: Final = 0.01
# The measurements whose results hold a "quality" in the form of this file.
MEASURED: Final = ("retrieval", "reranked", "reading")
PER_QUESTION: Final = "nDCG@10"
_DIGITS: Final = 4
# Means are of unrounded values, and committed ones are rounded.
_ROUNDING: Final = 0.5 * 10**-_DIGITS


class Quality(msgspec.Struct, frozen=True):
    """One mode on one collection.

    means: measure → mean over the questions, in 0..1.
    questions: nDCG@10 of each question, or token F1 of its answer, in the order in which they
        were asked.
    """

    means: dict[str, float]
    questions: list[float]


# Collection → mode → quality.
Figures = Mapping[str, Mapping[str, Quality]]


def quality_of(values: Mapping[str, Sequence[float]]) -> Quality:
    """values: measure → its value per question."""
    return Quality(
        {measure: statistics.fmean(of_questions) for measure, of_questions in values.items()},
        list(values[PER_QUESTION]),
    )


def committed(path: Path = COMMITTED) -> Figures:
    """The figures to compare with; none where nothing was committed.

    Raises msgspec.DecodeError for a file that holds anything else.
    """
    if not path.exists():
        return {}
    figures: Figures = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Quality]])
    return figures


def commit(figures: Figures, path: Path = COMMITTED) -> None:
    """Writes the figures, rounded, a line for each mode so that changes can be read."""
    collections = []
    for name, modes in figures.items():
        lines = ",\n".join(f"  {json.dumps(mode)}: {_line(found)}" for mode, found in modes.items())
        collections.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    path.write_text("{\n" + ",\n".join(collections) + "\n}\n")


def _line(found: Quality) -> str:
    means = {name: round(found.means[name], _DIGITS) for name in GATED if name in found.means}
    questions = [round(value, _DIGITS) for value in found.questions]
    return json.dumps({"means": means, "questions": questions})


def regressions(found: Figures, before: Figures) -> list[str]:
    """What got worse, a line each: empty when the command may succeed.

    Rows that were not measured are not compared; one that was never committed is a failure,
    because nothing would guard it.
    """
    return [line for name, modes in found.items() for line in _worse(name, modes, before)]


def _worse(name: str, modes: Mapping[str, Quality], before: Figures) -> Iterator[str]:
    for mode, now in modes.items():
        then = before.get(name, {}).get(mode)
        if then is None:
            yield f"{name}, {mode}: no committed figures; `python -m bench.quality` commits them"
            continue
        for measure, mean in then.means.items():
            if mean - now.means[measure] > TOLERANCE + _ROUNDING:
                yield (
                    f"{name}, {mode}: {measure} fell from {mean:.3f} to "
                    f"{now.means[measure]:.3f}, by more than {TOLERANCE:g}"
                )


def change(now: Quality, then: Quality | None) -> tuple[str, str]:
    """Change of nDCG@10 against the committed figures and its p; blank where none can be."""
    if then is None:
        return "", ""
    difference = f"{now.means[PER_QUESTION] - then.means[PER_QUESTION]:+.3f}"
    if len(then.questions) != len(now.questions):
        return difference, ""
    return difference, p_text(paired_p(now.questions, then.questions))


def p_text(p: float) -> str:
    """Two digits: .03; what 10,000 draws cannot tell from 0 is <.001."""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"


def main() -> None:
    """Commits the last full runs; exits 1 where there is none, or one had another chunking.

    Rows that those runs did not measure stay as they were committed.
    """
    figures = {name: dict(modes) for name, modes in committed(COMMITTED).items()}
    paths = [path for name in MEASURED if (path := RESULTS / f"{name}.json").exists()]
    if not paths:
        sys.exit("bench.quality: no results; run `make bench-quality` first")
    for path in paths:
        found: dict[str, Any] = json.loads(path.read_text())["figures"]
        if chunking := found.get("chunking"):
            sys.exit(f"bench.quality: the last run had {chunking}, not the defaults")
        quality = msgspec.convert(found["quality"], dict[str, dict[str, Quality]])
        for name, modes in quality.items():
            figures.setdefault(name, {}).update(modes)
    commit(figures, COMMITTED)
    print(f"Wrote {COMMITTED}.")


if __name__ == "__main__":
    main()
