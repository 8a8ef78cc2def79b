"""Plots of figures that grow with something: plain SVG of four panels, each with an axis of its own over one logarithmic x axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 560
COLUMNS = 2
# Of a panel: its room, and what of it is beside the figures.
PANEL_WIDTH, PANEL_HEIGHT, PANELS_TOP = WIDTH // COLUMNS, 240, 56
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 40, 34
# Told apart also without colours: light to dark, and by dashes and shapes.
COLOURS, DASHES = ("#0b5394", "#b85c00"), ("", "6 4")
INK, GREY, GRID = "#1f2430", "#5b6477", "#e3e6ec"
# More points than these are a line without marks.
MARKED_MAX = 12
STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
# Figures of the legend: px a letter, and beside a name.
LETTER, LEGEND_GAP = 6.2, 30


@dataclass(frozen=True)
class Series:
    """A curve: x above 0, and y."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Curves of one unit. No curve with points: it says so."""

    title: str
    unit: str
    series: Sequence[Series]


def top_of(highest: float) -> float:
    """Four round steps that hold the value."""
    if highest <= 0:
        return 4.0
    scale = 10.0 ** math.floor(math.log10(highest / 4))
    return 4 * scale * next(step for step in STEPS if 4 * scale * step >= highest * (1 - 1e-9))


def number(value: float) -> str:
    return f"{value:,.10g}"


def short(value: float) -> str:
    """20k for 20,000, 1.5M for 1,500,000."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:g}"


def decades(lowest: float, highest: float) -> list[float]:
    """The powers of ten from one to the other; where there are fewer than two, both ends."""
    powers = [10.0 ** power for power in range(math.ceil(math.log10(lowest) - 1e-9), math.floor(math.log10(highest) + 1e-9) + 1)]
    return powers if len(powers) > 1 else [lowest, highest]


def plot(title: str, subtitle: str, x_name: str, panels: Sequence[Panel], ticks: Sequence[float] = ()) -> str:
    """`ticks`: where the x axis has a number; none: at the powers of ten."""
    xs = [x for panel in panels for series in panel.series for x, _ in series.points]
    span = (min([*xs, *ticks], default=1.0), max([*xs, *ticks], default=10.0))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{escape(title)}. {escape(subtitle)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="16" y="22" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
        f'<text x="16" y="40" font-size="12" fill="{GREY}">{escape(subtitle)}</text>',
    ]
    for place, panel in enumerate(panels):
        frame = Frame(panel, place, span)
        parts += [*frame.axes(ticks or decades(*span), x_name), *frame.legend()]
        for number_of, series in enumerate(panel.series):
            parts += frame.curve(series, number_of)
    return "\n".join([*parts, "</svg>"]) + "\n"


class Frame:
    """Where a panel's figures lie."""

    def __init__(self, panel: Panel, place: int, span: tuple[float, float]) -> None:
        self.panel = panel
        self.left = place % COLUMNS * PANEL_WIDTH + LEFT
        self.right = self.left + PANEL_WIDTH - LEFT - RIGHT
        self.above = PANELS_TOP + place // COLUMNS * PANEL_HEIGHT + TOP
        self.below = self.above + PANEL_HEIGHT - TOP - BOTTOM
        self.lowest, highest = (math.log10(end) for end in span)
        self.decades = (highest - self.lowest) or 1.0
        self.top = top_of(max((y for series in panel.series for _, y in series.points), default=0.0))

    def x(self, value: float) -> float:
        return self.left + (math.log10(value) - self.lowest) / self.decades * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.below - value / self.top * (self.below - self.above)

    def axes(self, ticks: Sequence[float], x_name: str) -> list[str]:
        parts = [text(self.left - LEFT + 16, self.above - 22, f"{self.panel.title}, {self.panel.unit}", "start", INK, "600")]
        for quarter in range(5):
            value = self.top * quarter / 4
            parts += [line(self.left, self.y(value), self.right, self.y(value), GRID),
                      text(self.left - 8, self.y(value) + 4, number(value), "end")]
        for tick in ticks:
            parts += [line(self.x(tick), self.below, self.x(tick), self.below + 4, GREY),
                      text(self.x(tick), self.below + 16, short(tick))]
        parts.append(text(self.right, self.below + 29, x_name, "end"))
        return parts

    def legend(self) -> list[str]:
        """Of more than one curve, from the right."""
        if not any(series.points for series in self.panel.series):
            return [text((self.left + self.right) / 2, (self.above + self.below) / 2, "not measured")]
        if len(self.panel.series) < 2:
            return []
        parts, at = [], float(self.right)
        for number_of, series in reversed(list(enumerate(self.panel.series))):
            at -= LETTER * len(series.name)
            parts.append(text(at, self.above - 8, series.name, "start", INK))
            parts.append(line(at - 26, self.above - 12, at - 6, self.above - 12, COLOURS[number_of], DASHES[number_of], 2))
            at -= LEGEND_GAP + 6
        return parts

    def curve(self, series: Series, number_of: int) -> list[str]:
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in series.points)
        colour, dashes = COLOURS[number_of], DASHES[number_of]
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts = [f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{dashed}><title>'
                 f"{escape(series.name)}</title></polyline>"]
        if len(series.points) <= MARKED_MAX:
            parts += [self.mark(x, y, series.name, number_of) for x, y in series.points]
        return parts

    def mark(self, x: float, y: float, name: str, number_of: int) -> str:
        told = f"<title>{escape(name)}: {number(round(y, 3))} {escape(self.panel.unit)} at {number(round(x))}</title>"
        at_x, at_y, colour = self.x(x), self.y(y), COLOURS[number_of]
        if number_of == 0:
            return f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="4" fill="{colour}">{told}</circle>'
        return f'<rect x="{at_x - 3.5:.1f}" y="{at_y - 3.5:.1f}" width="7" height="7" fill="{colour}">{told}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "", width: int = 1) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dashed}/>')


def text(x: float, y: float, told: str, anchor: str = "middle", colour: str = GREY, weight: str = "400") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">{escape(told)}</text>')
