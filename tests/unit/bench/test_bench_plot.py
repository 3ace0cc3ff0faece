"""Plots: well-formed SVG whose points stand where the axes say."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import pytest

from bench import overload_plot
from bench.plot import (
    BOTTOM,
    LEFT,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    RIGHT,
    TOP,
    Axis,
    Panel,
    Series,
    linear_axis,
    log_axis,
    svg,
    x_pixel,
    y_pixel,
)

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = {
    "parts": [
        {
            "name": "embedding <one> text",
            "deadline_s": 1.0,
            "capacity_per_s": 100.0,
            "rows": [
                {
                    "multiple": multiple,
                    "offered_per_s": 100 * multiple,
                    "goodput_per_s": min(100.0, 100 * multiple),
                    "refused_share": max(0.0, 1 - 1 / multiple),
                    "late_share": 0.0,
                    "answered_ms": {"p50": 10.0, "p95": 20.0, "p99": 900.0},
                    "refused_ms": None if multiple <= 1 else {"p50": 1.0, "p95": 2.0, "p99": 4.0},
                }
                for multiple in (0.5, 1.0, 2.0)
            ],
        }
    ]
}


def panels(document: str) -> list[ET.Element]:
    return ET.fromstring(document).findall(f"{SVG}g")


def lines(panel: ET.Element, colour: str) -> list[list[tuple[float, float]]]:
    """The points of the lines of a colour, the legend's keys left out."""
    drawn = [
        [
            (float(x), float(y))
            for x, _, y in (p.partition(",") for p in line.get("points", "").split())
        ]
        for line in panel.findall(f"{SVG}polyline")
        if (line.get("class") or "").split()[0] == colour
    ]
    return [points for points in drawn if points[0][1] > TOP - 10 or len(points) > 2]


def test_points_stand_where_the_axes_say() -> None:
    x, y = Axis("x", 0.0, 4.0), Axis("y", 0.0, 10.0)
    document = svg(
        "t", [Panel("p", x, y, (Series("s", ((0.0, 0.0), (2.0, 5.0), (4.0, 10.0)), "blue"),))]
    )
    (points,) = lines(panels(document)[0], "blue")
    right, bottom = PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM
    assert points == [(LEFT, bottom), ((LEFT + right) / 2, (TOP + bottom) / 2), (right, TOP)]
    circles = [
        (float(c.get("cx", "")), float(c.get("cy", "")))
        for c in panels(document)[0].findall(f"{SVG}circle")
    ]
    assert circles == points


def test_a_log_axis_gives_decades_equal_lengths() -> None:
    axis = log_axis("ms", [3.0, 900.0])
    assert (axis.low, axis.high) == (1.0, 1000.0)
    assert axis.ticks() == [1.0, 10.0, 100.0, 1000.0]
    lengths = {round(y_pixel(axis, low) - y_pixel(axis, low * 10), 6) for low in (1.0, 10.0, 100.0)}
    assert len(lengths) == 1
    assert log_axis("ms", [5.0]).high == 10.0
    assert log_axis("ms", [10.0]).high == 100.0


@pytest.mark.parametrize("most", [0.0, 0.3, 1.0, 7.0, 421.0, 1000.0, 98_765.0])
def test_a_linear_axis_holds_all_values_with_few_round_ticks(most: float) -> None:
    axis = linear_axis("y", [0.0, most])
    ticks = axis.ticks()
    assert ticks[0] == 0
    assert ticks[-1] == pytest.approx(axis.high)
    assert axis.high >= most
    assert most == 0 or axis.high < 2 * most
    assert 2 <= len(ticks) <= 8
    leading = {
        float(f"{tick - last:.6e}".partition("e")[0]) for last, tick in itertools.pairwise(ticks)
    }
    assert leading <= {1.0, 2.0, 5.0}


def test_panels_stand_side_by_side_and_labels_are_escaped() -> None:
    panel = Panel("a < b", Axis("x & y", 0, 1), Axis("y", 0, 1), ())
    document = svg("<title>", [panel] * 3)
    places = [group.get("transform") for group in panels(document)]
    assert places == [
        "translate(0 34)",
        f"translate({PANEL_WIDTH} 34)",
        f"translate(0 {PANEL_HEIGHT + 34})",
    ]
    texts = [text.text for text in ET.fromstring(document).iter(f"{SVG}text")]
    assert {"a < b", "x & y", "<title>"} <= set(texts)


def test_the_picture_of_an_overload_shows_its_figures() -> None:
    rates, times = panels(overload_plot.picture(FIGURES))
    x = Axis("", 0.0, 2.0)
    (answered,) = lines(rates, "blue")
    assert [point[0] for point in answered] == [round(x_pixel(x, m), 1) for m in (0.5, 1.0, 2.0)]
    assert answered[1][1] == answered[2][1] < answered[0][1]  # up to the capacity, and no further
    (ideal,) = lines(rates, "grey")
    assert ideal[1:] == answered[1:]
    (refused,) = lines(rates, "orange")
    assert refused[2] == answered[2]  # half of the calls at twice the capacity
    # Refusals begin where there were any; nothing is drawn for a load without.
    refused_p50, refused_p99 = lines(times, "orange")
    assert len(refused_p50) == len(refused_p99) == 1
    log = Axis("", 1.0, 1000.0, log=True)
    assert refused_p99[0][1] == round(y_pixel(log, 4.0), 1)
    assert math.isclose(lines(times, "grey")[0][0][1], TOP)  # the deadline: 1,000 ms


def test_both_themes_have_a_colour_for_every_line() -> None:
    style = ET.fromstring(overload_plot.picture(FIGURES)).findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme:dark)")
    for theme in (light, dark):
        for name in ("blue", "orange", "purple", "grey"):
            assert f"polyline.{name}{{stroke:#" in theme
        assert ".page{fill:#" in theme
