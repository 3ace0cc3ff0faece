"""Line plots as plain SVG for documents: no dependency, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

# Of one panel, in SVG's user units (pixels at 100 %).
PANEL_WIDTH: Final = 440
PANEL_HEIGHT: Final = 330
LEFT: Final = 62
RIGHT: Final = 18
TOP: Final = 62
BOTTOM: Final = 48
HEADING: Final = 34
MARKER_RADIUS: Final = 3
LEGEND_KEY: Final = 16
# Between the ticks of a linear axis.
MOST_STEPS: Final = 6
# Of 11-pixel sans-serif; legends need no more than a guess of their width.
CHARACTER_WIDTH: Final = 6.1

# Okabe and Ito's colours, told apart by colour-blind people too; lightened for dark pages.
_LIGHT: Final = {"blue": "#0072b2", "orange": "#d55e00", "purple": "#a4508b", "grey": "#767676"}
_DARK: Final = {"blue": "#56b4e9", "orange": "#f0943c", "purple": "#dd96c4", "grey": "#a0a0a0"}
_DASHES: Final = {"solid": "none", "dashed": "7 4", "dotted": "1.5 3.5"}


@dataclass(frozen=True, slots=True)
class Series:
    """A line through points (x, y), ascending in x. colour: of `_LIGHT`; dash: of `_DASHES`."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    dash: str = "solid"
    markers: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high` on a line; `log`: by their logarithm."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value stands: 0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round numbers inside: decades, or multiples of 1, 2 or 5 times a power of ten."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**exponent for exponent in range(first, last + 1)]
        step = _step((self.high - self.low) / MOST_STEPS)
        count = math.floor((self.high - self.low) / step + 1e-9)
        return [round(self.low + step * index, 10) for index in range(count + 1)]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


def linear_axis(label: str, values: Sequence[float]) -> Axis:
    """From 0 to a round number that holds all values."""
    most = max(values)
    step = _step(most / MOST_STEPS) if most > 0 else 1.0
    return Axis(label, 0.0, math.ceil(most / step - 1e-9) * step or step)


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """Whole decades that hold all values, which are above 0; at least one decade."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return Axis(label, 10.0**low, 10.0 ** max(high, low + 1), log=True)


def svg(title: str, panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels side by side under one title, row by row."""
    rows = math.ceil(len(panels) / columns)
    width, height = columns * PANEL_WIDTH, rows * PANEL_HEIGHT + HEADING
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="heading" x="{LEFT - 44}" y="24">{escape(title)}</text>',
    ]
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        x, y = column * PANEL_WIDTH, row * PANEL_HEIGHT + HEADING
        lines += (f'<g transform="translate({x} {y})">', *_panel(panel), "</g>")
    return "\n".join([*lines, "</svg>"]) + "\n"


def x_pixel(axis: Axis, value: float) -> float:
    """Of a value on a panel's horizontal axis, from the panel's left edge."""
    return LEFT + axis.share(value) * (PANEL_WIDTH - LEFT - RIGHT)


def y_pixel(axis: Axis, value: float) -> float:
    """Of a value on a panel's vertical axis, from the panel's top; SVG counts downwards."""
    return PANEL_HEIGHT - BOTTOM - axis.share(value) * (PANEL_HEIGHT - TOP - BOTTOM)


def _panel(panel: Panel) -> Iterator[str]:
    right, bottom = PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM
    yield f'<text class="title" x="{LEFT - 44}" y="16">{escape(panel.title)}</text>'
    yield from _legend(panel.series)
    for value in panel.y.ticks():
        y = _round(y_pixel(panel.y, value))
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield (
            f'<text class="tick" x="{LEFT - 7}" y="{y}" dy="4" text-anchor="end">{value:,g}</text>'
        )
    for value in panel.x.ticks():
        x = _round(x_pixel(panel.x, value))
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield (
            f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{value:,g}</text>'
        )
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    yield (
        f'<text class="label" x="{middle_x}" y="{PANEL_HEIGHT - 12}" text-anchor="middle">'
        f"{escape(panel.x.label)}</text>"
    )
    yield (
        f'<text class="label" transform="translate(15 {middle_y}) rotate(-90)" '
        f'text-anchor="middle">{escape(panel.y.label)}</text>'
    )
    for series in panel.series:
        yield from _line(series, panel)


def _line(series: Series, panel: Panel) -> Iterator[str]:
    points = [(_round(x_pixel(panel.x, x)), _round(y_pixel(panel.y, y))) for x, y in series.points]
    joined = " ".join(f"{x},{y}" for x, y in points)
    yield f'<polyline class="{series.colour} {series.dash}" points="{joined}"/>'
    if series.markers:
        for x, y in points:
            yield f'<circle class="{series.colour}" cx="{x}" cy="{y}" r="{MARKER_RADIUS}"/>'


def _legend(series: Sequence[Series]) -> Iterator[str]:
    """In rows under the panel's title, each as full as it gets."""
    x, y = float(LEFT - 44), 34.0
    for one in series:
        width = LEGEND_KEY + 6 + len(one.name) * CHARACTER_WIDTH + 14
        if x + width > PANEL_WIDTH and x > LEFT - 44:
            x, y = float(LEFT - 44), y + 15
        middle = y - 4
        yield (
            f'<polyline class="{one.colour} {one.dash}" '
            f'points="{_round(x)},{middle} {_round(x + LEGEND_KEY)},{middle}"/>'
        )
        yield (
            f'<text class="key" x="{_round(x + LEGEND_KEY + 6)}" y="{y}">{escape(one.name)}</text>'
        )
        x += width


def _style() -> str:
    def themed(page: str, ink: str, faint: str, colours: dict[str, str]) -> str:
        rules = [
            f".page{{fill:{page}}}",
            f"text{{fill:{ink}}}",
            f".grid{{stroke:{faint}}}",
            f".axis{{stroke:{ink}}}",
        ]
        for name, colour in colours.items():
            rules.append(f"polyline.{name}{{stroke:{colour}}}circle.{name}{{fill:{colour}}}")
        return "".join(rules)

    fixed = [
        "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;"
        "font-size:11px}",
        ".heading{font-size:15px;font-weight:600}.title{font-size:13px;font-weight:600}",
        "polyline{fill:none;stroke-width:2;stroke-linejoin:round}.grid{stroke-width:1}",
        *(f".{name}{{stroke-dasharray:{dash}}}" for name, dash in _DASHES.items()),
    ]
    light = themed("#ffffff", "#24292f", "#e3e6ea", _LIGHT)
    dark = themed("#0d1117", "#e6edf3", "#2b3139", _DARK)
    return f"{''.join(fixed)}{light}@media (prefers-color-scheme:dark){{{dark}}}"


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _round(pixels: float) -> float:
    return round(pixels, 1)
