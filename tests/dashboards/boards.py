"""The dashboards as they are in dashboards/*.json, for tests: their panels, queries and variables."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "dashboards"
NAMES = ("credits", "customer", "pipeline", "quality")
# What these tests share with others.
for folder in ("dashboards", "tests/clickhouse", "tests/alerting"):
    sys.path.insert(0, str(ROOT / folder))


@dataclass(frozen=True)
class Panel:
    board: str
    model: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.model["title"])

    @property
    def name(self) -> str:
        return f"{self.board}: {self.title}"

    @property
    def defaults(self) -> dict[str, Any]:
        return dict(self.model["fieldConfig"]["defaults"])

    @property
    def sql(self) -> list[str]:
        return [target["rawSql"] for target in self.model["targets"] if "rawSql" in target]

    @property
    def promql(self) -> list[str]:
        return [target["expr"] for target in self.model["targets"] if "expr" in target]


def board(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


def panels(name: str) -> list[Panel]:
    """All but the headings of rows."""
    return [Panel(name, model) for model in board(name)["panels"] if model["type"] != "row"]


def all_panels() -> list[Panel]:
    return [panel for name in NAMES for panel in panels(name)]


def marks(name: str) -> list[dict[str, Any]]:
    return list(board(name).get("annotations", {}).get("list") or [])


def variables(name: str) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board(name)["templating"]["list"]}


def queries_of_clickhouse() -> dict[str, str]:
    """Every query that ClickHouse is asked, by what asks: panels, annotations, variables."""
    found = {panel.name: sql for panel in all_panels() for sql in panel.sql}
    for name in NAMES:
        found.update({f"{name}: annotation {made['name']}": made["target"]["rawSql"] for made in marks(name)})
        found.update({f"{name}: variable {key}": made["query"]["rawSql"] for key, made in variables(name).items()
                      if isinstance(made["query"], dict) and "rawSql" in made["query"]})
    return found
