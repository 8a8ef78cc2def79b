"""Figures of a run: kept as JSON in the stack's folder, and put between their markers in docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployment import CHECKOUT, BenchError

from components import Stack

DOCUMENT = CHECKOUT / "docs" / "performance.md"
IMAGES = CHECKOUT / "docs" / "images"


def machine() -> dict[str, str | int]:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory_kib = int(next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")))
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory_kib / 2 ** 20)}


def commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def figures_path(name: str) -> Path:
    return Stack.from_environment().folder / f"{name}.json"


def last_figures(name: str) -> dict[str, Any]:
    """Of the last run; none: nothing."""
    path = figures_path(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(name: str, figures: dict[str, Any]) -> None:
    figures_path(name).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def run_facts(target: str) -> dict[str, Any]:
    """When, of what and where a run is."""
    given = " ".join(word for word in sys.argv[1:] if word != "--publish")
    binary = os.environ.get("CREDITSTREAM_BIN")
    command = (f"CREDITSTREAM_BIN={binary} " if binary else "") + f"make {target}" + (f' BENCH="{given}"' if given else "")
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit(), "machine": machine(), "command": command}


def heading(facts: dict[str, Any]) -> str:
    place = facts["machine"]
    return (f"{facts['date']}, commit {facts['commit']}, `{facts['command']}`: {place['cores']} cores ({place['processor']}), "
            f"{place['memory_gib']} GiB")


def table(head: list[str], rows: list[list[str]], place: str = "---:") -> list[str]:
    """Figures to the right."""
    return [f"| {' | '.join(head)} |", "|" + f"{place}|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def between_markers(document: str, target: str, text: str) -> str:
    """The document with another text there."""
    begin, end = (f"<!-- make {target}: {which} -->" for which in ("begin", "end"))
    before, begun, rest = document.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise BenchError(f"the document lacks {begin} or, behind it, {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def publish(target: str, text: str, images: dict[str, str]) -> None:
    DOCUMENT.write_text(between_markers(DOCUMENT.read_text(encoding="utf-8"), target, text), encoding="utf-8")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        (IMAGES / name).write_text(image, encoding="utf-8")
        print(f"wrote docs/images/{name}")
