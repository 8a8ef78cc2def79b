"""Writes the four dashboards beside this file, as Grafana loads them: python dashboards/build.py

The JSON is this program's output and nothing else: change the program, run it, commit both. A test holds them equal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# No __pycache__ beside the sources.
sys.dont_write_bytecode = True

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

import credits
import customer
import pipeline
import quality

FOLDER = Path(__file__).resolve().parent
BUILDERS = {"credits": credits.build, "customer": customer.build, "pipeline": pipeline.build, "quality": quality.build}


def text(builder: dashboard.Dashboard) -> str:
    """The dashboard as a file. Panels are numbered in their order, so that links to one stay right while it keeps its place."""
    built = builder.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def texts() -> dict[str, str]:
    """Every dashboard by the name of its file."""
    return {f"{name}.json": text(build()) for name, build in BUILDERS.items()}


if __name__ == "__main__":
    for name, content in texts().items():
        (FOLDER / name).write_text(content)
        print(f"wrote {name}")
