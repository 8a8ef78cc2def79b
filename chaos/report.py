"""The report of a run, as JSON and as Markdown. Says; decides nothing."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from faults import FAULTS

RECOVERY = (
    "Time to recover runs from the end of the fault (what was taken away is back: process started, broker answering, "
    "connection open, disk free) until all three instances are ready, all shards are owned, and the ledger's and the "
    "sink's committed offsets have passed the ends that usage, intake and ledger had at the fault's end. "
    "It includes the start of a process or the rest of a session, and load goes on meanwhile.")


def write(folder: Path, facts: dict[str, Any]) -> str:
    """Both forms; the Markdown."""
    text = markdown(facts)
    (folder / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def kinds(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind: how often, and the seconds to recover."""
    found = {}
    for kind in FAULTS:
        of_kind = [event for event in events if event["kind"] == kind]
        times = [event["recovered_s"] for event in of_kind if event["recovered_s"] is not None]
        found[kind] = {
            "fired": len(of_kind), "measured": len(times),
            "recover_s_median": round(statistics.median(times), 1) if times else None,
            "recover_s_worst": round(max(times), 1) if times else None}
    return found


def markdown(facts: dict[str, Any]) -> str:
    figures = facts["figures"]
    lines = [
        f"# Chaos run: {'passed' if facts['passed'] else 'FAILED'}", "",
        f"    {facts['command']}", "",
        f"- began {facts['began']}, {facts['minutes']} minutes of faults, seed {facts['seed']}, binary "
        f"{facts['version']}",
        f"- {figures.get('source records', 0):,} source records ({facts['copies']:,} of them whole hours sent again), "
        f"{figures.get('ledger entries', 0):,} ledger entries, {facts['events_per_s']} events/s, 3 instances, {facts['shards']} shards",
        f"- doubles {facts['doubles']}, lost {facts['lost']}, differences {len(facts['faults'])}",
        f"- quiet to proven: {facts['proof_s']:.0f} s; instances that ended by themselves or badly: "
        f"{len(facts['findings'])}", "",
        "| fault | what | fired | s to recover, median | worst |", "|---|---|---:|---:|---:|"]
    for kind, row in facts["kinds"].items():
        what = (FAULTS[kind].__doc__ or "").strip()
        lines.append(f"| {kind} | {what} | {row['fired']} | {_cell(row['recover_s_median'])} "
                     f"| {_cell(row['recover_s_worst'])} |")
    lines += ["", RECOVERY, ""]
    if facts["overlapped"]:
        lines += [f"{facts['overlapped']} faults hit while the one before was not recovered from; the time of that one "
                  "is not measured.", ""]
    if facts["aborted"]:
        lines += ["Transactions that the broker had left open, aborted as docs/runbooks.md says (CreditstreamRestoreSlow); "
                  f"the times to recover hold the minute until they were looked for: {'; '.join(facts['aborted'])}.", ""]
    if facts["gave_up"]:
        lines += ["Started while the broker was away, ended with 69 and started again, as a supervisor does: "
                  f"{', '.join(facts['gave_up'])}.", ""]
    for title, found in (("What differs", facts["faults"]), ("What instances did by themselves", facts["findings"]),
                         ("Why the run failed", facts["failures"])):
        if found:
            lines += [f"## {title}", "", *(f"- {one}" for one in found), ""]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
