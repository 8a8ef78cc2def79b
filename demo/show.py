"""What the demo prints: steps with their time, a progress bar, aligned tables.

At a terminal the bar moves in place; elsewhere (a pipe, a CI log) a plain line comes every few seconds instead.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque

BAR_CELLS = 30
PLAIN_EVERY_S = 3.0
# The rate shown is that of the last moments: an average would hide the gap of the restart.
RATE_WINDOW_S = 1.0
MARGIN = " " * 12


class Screen:
    """Stdout, and the time since the demo began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.is_terminal = sys.stdout.isatty()
        self.has_bar = False

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def step(self, text: str) -> None:
        """Something happened."""
        self.clear_bar()
        print(f"{self.seconds():8.1f} s  {text}", flush=True)

    def heading(self, text: str) -> None:
        self.clear_bar()
        print(f"\n{text}\n{'-' * len(text)}", flush=True)

    def line(self, text: str = "") -> None:
        self.clear_bar()
        print(text, flush=True)

    def draw_bar(self, text: str) -> None:
        """Over the last one."""
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{(MARGIN + text)[:width]:<{width}}", end="", flush=True)
        self.has_bar = True

    def clear_bar(self) -> None:
        if self.has_bar:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", flush=True)
            self.has_bar = False


class Bar:
    """How much of something is done, and how fast."""

    def __init__(self, screen: Screen, total: int, unit: str) -> None:
        self.screen, self.total, self.unit = screen, total, unit
        self.recent: deque[tuple[float, int]] = deque()
        self.next_plain = time.monotonic() + PLAIN_EVERY_S

    def show(self, done: int) -> None:
        """Called often; draws as often as it makes sense."""
        now = time.monotonic()
        self.recent.append((now, done))
        while now - self.recent[0][0] > RATE_WINDOW_S:
            self.recent.popleft()
        since, before = self.recent[0]
        rate = (done - before) / max(now - since, 0.1)
        figures = f"{done:>9,} of {self.total:,} {self.unit}, {rate:>8,.0f}/s"
        if self.screen.is_terminal:
            cells = min(BAR_CELLS, BAR_CELLS * done // max(self.total, 1))
            self.screen.draw_bar(f"[{'#' * cells}{'.' * (BAR_CELLS - cells)}] {figures}")
        elif now >= self.next_plain:
            self.screen.line(MARGIN + figures)
            self.next_plain = now + PLAIN_EVERY_S


def table(headers: list[str], rows: list[list[str | int]], texts: int = 1) -> str:
    """Aligned columns: the first `texts` to the left, figures to the right, with separators of thousands."""
    cells = [headers, *([f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = []
    for row in cells:
        aligned = [cell.ljust(width) if column < texts else cell.rjust(width)
                   for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append(("  " + "  ".join(aligned)).rstrip())
    return "\n".join(lines)
