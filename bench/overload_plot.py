"""The picture of an overload: what became of the calls, and how long they took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bench.plot import Axis, Panel, Series, linear_axis, log_axis, svg

TITLE: Final = "Offered more than it can answer: open loop, Poisson arrivals"
OFFERED: Final = "calls offered, in multiples of capacity"
# No latency of interest is shorter; a log axis needs an end.
LEAST_MS: Final = 0.1


def picture(figures: dict[str, Any]) -> str:
    """The SVG of the figures that `bench.overload` reports: a row of two panels for each part."""
    return svg(
        TITLE, [panel for part in figures["parts"] for panel in (_rates(part), _times(part))]
    )


def _x_axis(part: dict[str, Any]) -> Axis:
    return Axis(OFFERED, 0.0, max(row["multiple"] for row in part["rows"]))


def _rates(part: dict[str, Any]) -> Panel:
    rows, capacity = part["rows"], part["capacity_per_s"]

    def line(name: str, colour: str, read: Callable[[dict[str, Any]], float]) -> Series:
        return Series(name, tuple((row["multiple"], read(row)) for row in rows), colour)

    most = rows[-1]["multiple"]
    series = (
        Series(
            "ideal",
            ((0.0, 0.0), (1.0, capacity), (most, capacity)),
            "grey",
            "dashed",
            markers=False,
        ),
        line("answered in time", "blue", lambda row: float(row["goodput_per_s"])),
        line("refused at once", "orange", lambda row: row["refused_share"] * row["offered_per_s"]),
        line("late", "purple", lambda row: row["late_share"] * row["offered_per_s"]),
    )
    values = [y for one in series for _, y in one.points]
    return Panel(
        f"{part['name'].capitalize()}: calls by outcome",
        _x_axis(part),
        linear_axis("calls per second", values),
        series,
    )


def _times(part: dict[str, Any]) -> Panel:
    rows = part["rows"]

    def line(outcome: str, percent: str, colour: str, dash: str) -> Series:
        points = tuple(
            (row["multiple"], max(LEAST_MS, row[f"{outcome}_ms"][percent]))
            for row in rows
            if row[f"{outcome}_ms"] is not None
        )
        return Series(f"{outcome} {percent}", points, colour, dash)

    deadline_ms = part["deadline_s"] * 1000
    x = _x_axis(part)
    series = (
        Series(
            "deadline", ((x.low, deadline_ms), (x.high, deadline_ms)), "grey", "dashed",
            markers=False,
        ),
        line("answered", "p50", "blue", "solid"),
        line("answered", "p95", "blue", "dashed"),
        line("answered", "p99", "blue", "dotted"),
        line("refused", "p50", "orange", "solid"),
        line("refused", "p99", "orange", "dotted"),
    )  # fmt: skip
    shown = tuple(one for one in series if one.points)
    values = [y for one in shown for _, y in one.points]
    return Panel(
        f"{part['name'].capitalize()}: time to the answer",
        x,
        log_axis("milliseconds", values),
        shown,
    )
