"""How close the whole job comes to what Kafka and ClickHouse themselves allow, measured side by side in one run.

    make bench                      five rounds of everything, about 25 minutes
    make bench-short                one round of few events and no sink, a minute: shows that it works, and no figure to quote
    make bench BENCH="--publish"    and puts the figures into docs/performance.md
    make bench BENCH="--optimised"  of the binary that `make release` has left

The ledger stage (c) beside two transactional pass-throughs, a bare one (a) and one that writes the same records and bytes (b),
in turn, and a profile of it: benches/ledger_stage.py. Then the sink beside ClickHouse's own limit (d): benches/sink.py. All
figures go to bench.json in the stack's folder. Exit code 1: something did not get through; no figure makes it fail.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

sys.dont_write_bytecode = True

from deployment import BINARY, CHECKOUT, OPTIMISED, spread
from document import commit, machine, publish

from components import Stack

BENCHES = Path(__file__).resolve().parent
PASS_THROUGH = CHECKOUT / "target" / "release" / "examples" / "pass_through"
SHORT_EVENTS = 150_000


def run(program: str, json_path: Path, *arguments: str) -> dict[str, Any]:
    """One bench as a process of its own: each has its own cores and folders. What it prints is shown."""
    command = [sys.executable, "-B", str(BENCHES / program), "--json", str(json_path), *arguments]
    ended = subprocess.run(command, check=False)
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    return json.loads(json_path.read_text(encoding="utf-8"))


def command(options: argparse.Namespace) -> str:
    if options.short:
        return "make bench-short"
    flags = f"{' --no-sink' if options.no_sink else ''}{' --optimised' if options.optimised else ''}"
    return f'make bench BENCH="--rounds {options.rounds}{flags}"'


def tables(figures: dict[str, Any]) -> str:
    """The figures as they stand in the document."""
    ledger, of = figures["ledger"], figures["ledger"]["rounds"]
    place = figures["machine"]
    rows = [
        ("(a) bare pass-through, 400 bytes out for each record", "records/s", spread([one["bare"]["records_per_s"] for one in of])),
        ("(b) pass-through of the same records and bytes", "records/s", spread([one["like"]["records_per_s"] for one in of])),
        ("(c) ledger stage, everything on", "events/s", spread([one["events_per_s"] for one in of])),
        ("ratio c/a", "", spread([one["events_per_s"] / one["bare"]["records_per_s"] for one in of], 2)),
        ("ratio c/b", "", spread([one["events_per_s"] / one["like"]["records_per_s"] for one in of], 2)),
        ("CPU of our process", "µs/event", spread([one["own_micros"] for one in of], 1)),
        ("CPU of the broker beside (c)", "µs/event", spread([one["broker_micros"] for one in of], 1)),
        ("RSS at the end", "MB", spread([one["rss_mb"] for one in of])),
    ]
    if sink := figures.get("sink"):
        rates = {side: [one["entries"] / one["seconds"] for one in sink[side]] for side in ("limit", "sink")}
        rows += [
            ("(d) ClickHouse alone, the sink's own inserts", "entries/s", spread(rates["limit"])),
            ("(d) sink", "entries/s", spread(rates["sink"])),
            ("ratio sink ÷ ClickHouse alone", "", spread(sink["ratios"], 2)),
        ]
    lines = [
        f"{figures['date']}, commit {figures['commit']}, `{figures['command']}`: {place['cores']} cores ({place['processor']}), "
        f"{place['memory_gib']} GiB; {ledger['events']:,} events of {ledger['wallets']:,} wallets, {len(of)} rounds. Medians, and from the "
        "lowest to the highest; a ratio is that of a round and what was measured right beside it.",
        "", "| | unit | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows),
        "", "By thread, µs an event: " + ", ".join(
            f"`{name}` {median(one['thread_micros'].get(name, 0.0) for one in of):.1f}"
            for name in of[0]["thread_micros"] if of[0]["thread_micros"][name] >= 0.1) + ".",
    ]
    if ledger["parts"]:
        lines += ["", "By part of the work, of our CPU time: " + ", ".join(
            f"{part} {share:.0%}" for part, share in ledger["parts"].items()) + "."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help=f"one round of {SHORT_EVENTS:,} events, and no sink")
    parser.add_argument("--no-sink", action="store_true", help="only (a), (b) and (c)")
    parser.add_argument("--optimised", action="store_true", help=f"measure {OPTIMISED.relative_to(CHECKOUT)}, of `make release`")
    parser.add_argument("--publish", action="store_true", help="put the figures into docs/performance.md")
    options = parser.parse_args()
    folder = Stack.from_environment().folder
    few = ["--events", str(SHORT_EVENTS), "--rounds", "1", "--warm-up", "1"]
    amount = few if options.short else ["--rounds", str(options.rounds), "--profile"]
    binary = ["--binary", str(OPTIMISED if options.optimised else BINARY)]
    figures: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit(), "machine": machine(),
        "command": command(options),
        "ledger": run("ledger_stage.py", folder / "bench-ledger.json", "--pass-through", str(PASS_THROUGH), *binary, *amount),
    }
    if not options.short and not options.no_sink:
        figures["sink"] = run("sink.py", folder / "bench-sink.json", "--rounds", str(options.rounds), *binary)
    (folder / "bench.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print("\n" + tables(figures))
    if options.publish:
        publish("bench", tables(figures), {})
    return 0


if __name__ == "__main__":
    sys.exit(main())
