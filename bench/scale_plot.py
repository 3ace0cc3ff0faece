"""The picture of a growing store: how long searches take, and how much memory it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bench.plot import Axis, Panel, Series, linear_axis, log_axis, svg

TITLE: Final = "The embedded store as it grows"
# State of the store → colour. A store is in a state from the size on that brings it about.
STATES: Final = {"as written": "grey", "optimised": "blue", "with a graph": "orange"}


def picture(figures: dict[str, Any]) -> str:
    """The SVG of the figures that `bench.scale` reports."""
    rows = figures["rows"]
    x = log_axis("chunks", [row["chunks"] for row in rows])

    def latency(percent: str, dash: str) -> list[Series]:
        return _lines(rows, f" {percent}", dash, _hybrid(percent))

    times = [*latency("p50", "solid"), *latency("p99", "dashed")]
    memory = _lines(rows, "", "solid", lambda state: float(state["searched_rss_mib"]))
    return svg(
        TITLE,
        [
            Panel("Hybrid searches, one after the other", x, _axis("ms", times), tuple(times)),
            Panel("Memory of the store's process", x, _axis("RSS, MiB", memory), tuple(memory)),
        ],
    )


def _hybrid(percent: str) -> Callable[[dict[str, Any]], float]:
    return lambda state: float(state["searches"]["hybrid"][f"{percent}_ms"])


def _lines(
    rows: list[dict[str, Any]], suffix: str, dash: str, read: Callable[[dict[str, Any]], float]
) -> list[Series]:
    made = []
    for name, colour in STATES.items():
        points = tuple(
            (float(row["chunks"]), read(row["states"][name]))
            for row in rows
            if name in row["states"]
        )
        if points:
            made.append(Series(f"{name}{suffix}", points, colour, dash))
    return made


def _axis(label: str, series: list[Series]) -> Axis:
    return linear_axis(label, [y for one in series for _, y in one.points])
