"""Draws the two charts of the README from what the last `make demo` left in ClickHouse: make charts

docs/images/burn-down.svg: what was left of one wallet's credits, by kind of grant, hour by hour.
docs/images/credits-by-day.svg: credits charged a day, by plan.
Plain SVG, written here; every figure in it is asked of ClickHouse now. Exit code 1: the demo's database is not there.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
URL = os.environ.get("CREDITSTREAM__CLICKHOUSE__URL") or "http://127.0.0.1:38123"
DATABASE = "credits_demo"
WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 64, 44
# Told apart also without colours: light to dark, and in the order of the legend.
COLOURS = ("#0b5394", "#4a90d9", "#f2a33a", "#8f9bb3")

# Wallets that were never in overdraft: first those whose usage drew from the most kinds of grants, then the most spent.
WALLETS = """SELECT wallet_id FROM ledger_entries FINAL ARRAY JOIN grant_effects AS effect WHERE entry_type = 'charged'
    GROUP BY wallet_id HAVING min(balance_after) >= 0
    ORDER BY uniqExact(effect.kind) DESC, uniqExact(effect.grant_id) DESC, sum(effect.credits), wallet_id LIMIT 100"""
# By the time of the events: the demo posts two days of them within a minute.
BURN_DOWN = """SELECT greatest(toStartOfHour(event_time), (SELECT toStartOfHour(min(event_time)) FROM ledger_entries WHERE entry_type = 'charged')) AS hour,
    sum(arraySum((kind, credits) -> if(kind = 'topup', credits, 0), grant_effects.kind, grant_effects.credits)),
    sum(arraySum((kind, credits) -> if(kind = 'adjustment', credits, 0), grant_effects.kind, grant_effects.credits)),
    sum(arraySum((kind, credits) -> if(kind = 'plan', credits, 0), grant_effects.kind, grant_effects.credits))
    FROM ledger_entries FINAL WHERE wallet_id = '{wallet}' GROUP BY hour ORDER BY hour"""
BY_DAY = """SELECT day, if(plan = '', 'none', plan) AS plan_name, sum(credits_charged) FROM usage_daily_all
    GROUP BY day, plan_name ORDER BY day, plan_name"""


class ChartError(Exception):
    """What the person who draws must know."""


def ask(sql: str) -> list[list[str]]:
    request = urllib.request.Request(f"{URL}/?database={DATABASE}", data=f"{sql} FORMAT TSVRaw".encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [line.split("\t") for line in answer.read().decode().splitlines()]
    except urllib.error.HTTPError as error:
        raise ChartError(f"ClickHouse refuses ({error.read().decode()[:200].strip()}): run make demo first") from error
    except urllib.error.URLError as error:
        raise ChartError(f"ClickHouse at {URL} does not answer: run make demo first") from error


def ceiling(value: int) -> int:
    """Four round steps that hold the value."""
    scale = int(10 ** max(0, len(str(value // 4)) - 2))
    return 4 * scale * next(step for step in (10, 15, 20, 25, 30, 40, 50, 60, 80, 100) if 4 * scale * step >= value)


class Svg:
    """A chart's frame: title, grid, legend; figures are placed by `x` and `y`."""

    def __init__(self, title: str, subtitle: str, highest: int) -> None:
        self.top = ceiling(max(highest, 4))
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{escape(title)}. {escape(subtitle)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="22" font-size="15" font-weight="600" fill="#1f2430">{escape(title)}</text>',
            f'<text x="{LEFT}" y="40" fill="#5b6477">{escape(subtitle)}</text>',
        ]
        for quarter in range(5):
            value = self.top * quarter // 4
            self.line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), "#e3e6ec")
            self.text(LEFT - 8, self.y(value) + 4, f"{value:,}", "end")

    def x(self, share: float) -> float:
        """From 0, at the left, to 1."""
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "middle", colour: str = "#5b6477") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, colour: str, told: str) -> None:
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"><title>{escape(told)}</title></rect>')

    def area(self, points: Sequence[tuple[float, float]], colour: str, told: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="{colour}"><title>{escape(told)}</title></polygon>')

    def legend(self, names: Sequence[str]) -> None:
        at = float(WIDTH - RIGHT)
        for name, colour in reversed(list(zip(names, COLOURS))):
            at -= 7.0 * len(name) + 4
            self.text(at, 40, name, "start", "#1f2430")
            at -= 16
            self.box(at, 30, 11, 11, colour, name)
            at -= 14

    def written(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def left_by_hour(wallet: str) -> tuple[list[datetime], list[list[int]]]:
    """Hours, and what was left at the end of each of top-ups, adjustments and plan."""
    changes = {datetime.fromisoformat(row[0]).replace(tzinfo=timezone.utc): list(map(int, row[1:])) for row in ask(BURN_DOWN.format(wallet=wallet))}
    hours = [min(changes) + timedelta(hours=number) for number in range(int((max(changes) - min(changes)) / timedelta(hours=1)) + 1)]
    left, running = [], [0, 0, 0]
    for hour in hours:
        running = [before + change for before, change in zip(running, changes.get(hour, [0, 0, 0]))]
        left.append(running)
    return hours, left


def burn_down() -> str:
    """Steps, stacked: what is drawn from first lies on top. A wallet that paid for usage with credits that came later is
    passed over: the demo posts it in another order than it happened."""
    names = ("top-ups", "adjustments", "plan")
    for [wallet] in ask(WALLETS):
        hours, left = left_by_hour(wallet)
        if min(map(min, left)) >= 0:
            break
    else:
        raise ChartError("no wallet of the demo was never in overdraft: run make demo again")
    svg = Svg(f"Burn-down of wallet {wallet}", "Credits left at the end of each hour (UTC), by kind of grant", max(map(sum, left)))
    below = [0] * len(hours)
    for number, name in enumerate(names):
        above = [under + row[number] for under, row in zip(below, left)]
        if above != below:
            outline = steps(svg, above) + list(reversed(steps(svg, below)))
            svg.area(outline, COLOURS[number], f"{name}: {left[0][number]:,} at first, {left[-1][number]:,} in the end")
        below = above
    for number, hour in enumerate(hours):
        if hour.hour % 12 == 0 and number < 0.95 * len(hours):
            svg.text(svg.x(number / len(hours)), HEIGHT - BOTTOM + 18, f"{hour:%d %b %H:%M}")
            svg.line(svg.x(number / len(hours)), HEIGHT - BOTTOM, svg.x(number / len(hours)), HEIGHT - BOTTOM + 5, "#8f9bb3")
    svg.legend(names)
    return svg.written()


def steps(svg: Svg, values: Sequence[int]) -> list[tuple[float, float]]:
    """Each value as long as its hour."""
    share = 1 / len(values)
    return [(svg.x(at), svg.y(value)) for number, value in enumerate(values) for at in (number * share, (number + 1) * share)]


def credits_by_day() -> str:
    rows = [(day, plan, int(credits)) for day, plan, credits in ask(BY_DAY)]
    days, plans = sorted({day for day, _, _ in rows}), sorted({plan for _, plan, _ in rows})
    charged = {(day, plan): credits for day, plan, credits in rows}
    totals = {day: sum(charged.get((day, plan), 0) for plan in plans) for day in days}
    svg = Svg("Credits charged a day", f"By plan, all wallets, UTC days; {sum(totals.values()):,} credits in all", int(1.08 * max(totals.values())))
    slot = 1 / len(days)
    width = min(110.0, 0.6 * slot * (WIDTH - LEFT - RIGHT))
    for number, day in enumerate(days):
        middle, below = svg.x((number + 0.5) * slot), 0
        for plan, colour in zip(plans, COLOURS):
            credits = charged.get((day, plan), 0)
            svg.box(middle - width / 2, svg.y(below + credits), width, svg.y(below) - svg.y(below + credits), colour, f"{day}, {plan}: {credits:,}")
            below += credits
        svg.text(middle, svg.y(below) - 6, f"{below:,}", colour="#1f2430")
        svg.text(middle, HEIGHT - BOTTOM + 18, f"{datetime.fromisoformat(day):%d %b}")
    svg.legend(plans)
    return svg.written()


CHARTS: dict[str, Callable[[], str]] = {"burn-down.svg": burn_down, "credits-by-day.svg": credits_by_day}


def main() -> int:
    try:
        drawn = {name: draw() for name, draw in CHARTS.items()}
    except (ChartError, IndexError, ValueError) as error:
        print(f"charts: {error or 'the demo left nothing to draw: run make demo'}", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in drawn.items():
        (FOLDER / name).write_text(text)
        print(f"wrote docs/images/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
