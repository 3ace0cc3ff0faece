"""What was done, as a table, and what was wrong."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.stage import Outcome

MOST_FAULTS = 20


def told(outcome: Outcome) -> str:
    """For people: counts first, then every fault up to MOST_FAULTS."""
    rows = list(_rows(outcome))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {count:>8}" for name, count in rows]
    faults = outcome.faults
    lines += ["", f"{len(faults)} faults (seed {outcome.seed}, {outcome.duration_s:.0f} s)"]
    lines += [f"  {fault}" for fault in faults[:MOST_FAULTS]]
    return "\n".join(lines)


def _rows(outcome: Outcome) -> Iterator[tuple[str, int]]:
    for target, count in sorted(outcome.kills.items()):
        yield f"kills of the {target}", count
    for answer, count in sorted(outcome.answers.items()):
        yield f"writes, {answer}", count
    yield from sorted(outcome.counts.items())
    yield "checks of everything", len(outcome.checks)
    yield "  documents looked at", sum(checked.documents for checked in outcome.checks)
    yield "  of them there", sum(checked.present for checked in outcome.checks)
    yield "  chunks compared", sum(checked.chunks for checked in outcome.checks)
    yield "  searches", sum(checked.searches for checked in outcome.checks)
    yield "points that crashes left behind, swept", outcome.swept.removed
    for kind, count in sorted(outcome.swept.points.items()):
        yield f"points after the sweep, {kind}", count
