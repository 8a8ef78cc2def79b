"""How throughput, latency, memory and the time of a restore grow with wallets, remembered identities and the size of batches.

    make bench-growth                                  everything, once: half an hour, 6 GB of disk
    make bench-growth BENCH="--only batches"           a part: wallets, identities or batches
    make bench-growth BENCH="--rounds 3 --publish"     rounds in turn; tables and plots go into docs/performance.md
    make bench-growth BENCH="--again --publish"        nothing is measured: tables and plots of what the last run left

- wallets: 1,000 to 1,000,000 of them, each number with a backlog of --events usage events (1 % duplicates, 5 % wrong keys). The
  ledger stage goes through it; then a process without the local store restores all from the topics, another one from the local
  store that the first left, and a third, with the store too, takes 1,000 live events/s.
- identities: the same with 100,000 wallets and 0.6, 6 and 18 times --events; a record leaves about 1.75. For 100 million: soak.py.
- batches: ledger.batch_events_max from 1,000 to 80,000, over the backlog of 100,000 wallets in turn; then, each by itself, 20,000
  live events/s on topics that were empty.

Throughput is told of usage and of all records: contracts, top-ups and adjustments come between.
Figures go to bench-growth.json in the stack's folder, a part that is not measured stays there as it was. All topics, groups
and databases are deleted at the end. Exit code 1: something did not get through; no figure makes it fail.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.dont_write_bytecode = True

from deployment import BINARY, START_WAIT_S, Deployment, add_settings_option, exit_code, spread
from document import heading, last_figures, publish, run_facts, save, table
from ledger_stage import Bench
from load import EVENTS_PER_S_MIN, Load, another, full_load, warm_up
from plot import Panel, Series, plot
from restore import Restored, restart, show
from steady import latency_at, wait_until_ready

TARGET = "bench-growth"
PARTS = ("wallets", "identities", "batches")
WALLETS = (1_000, 10_000, 100_000, 1_000_000)
BATCHES = (1_000, 5_000, 10_000, 20_000, 40_000, 80_000)
USUAL_WALLETS = 100_000
# Of --events, for 1, 10 and 30 million identities.
IDENTITIES_EVENTS = (0.6, 6.0, 18.0)
QUIET_RATE, BUSY_RATE, BUSY_S = 1_000, 20_000, 15
# Events of another seed are other events.
LIVE_SEED = 2


class Growth:
    """The backlogs, and rounds over them."""

    def __init__(self, options: argparse.Namespace, folder: Path, cleanup: ExitStack, figures: dict[str, Any]) -> None:
        self.options, self.folder, self.cleanup, self.figures = options, folder, cleanup, figures
        self.backlogs: dict[tuple[int, int], tuple[Bench, int]] = {}
        self.number = 0

    def run(self, part: str) -> None:
        measure = {"wallets": self.wallets, "identities": self.identities, "batches": self.batches}[part]
        rows = measure()
        self.figures[part] = {**run_facts(TARGET), "events": self.options.events, "rows": rows}
        save(TARGET, self.figures)

    def wallets(self) -> list[dict[str, Any]]:
        return self.places([(wallets, self.options.events) for wallets in self.options.wallets])

    def identities(self) -> list[dict[str, Any]]:
        return self.places([(USUAL_WALLETS, int(self.options.events * times)) for times in IDENTITIES_EVENTS])

    def places(self, places: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Numbers of wallets and events, in turn; after the last round what else there is to know."""
        loads: dict[tuple[int, int], list[Load]] = {place: [] for place in places}
        rows = []
        for number in range(1, self.options.rounds + 1):
            for place in places:
                wallets, events = place
                bench, records = self.backlog(wallets, events)
                deployment, part = bench.deployment, self.part()
                with deployment.ledger_stage(BINARY, part) as instance:
                    readings = full_load(instance, deployment, records)
                    loads[place].append(Load.between(readings[0], readings[-1]))
                    loads[place][-1].print(f"round {number}, {wallets:,} wallets, {events:,} events")
                    instance.stop()
                    if number == self.options.rounds:
                        rest = self.started_again(deployment, part, wallets, events)
                        rows.append({"wallets": wallets, "events": events, "loads": [asdict(one) for one in loads[place]], **rest})
                        # Live events are in its topics now.
                        del self.backlogs[place]
        return rows

    def started_again(self, deployment: Deployment, part: str, wallets: int, events: int) -> dict[str, Any]:
        """Restores, and latency upon what was restored."""
        config, wait_s = deployment.config_of(part), START_WAIT_S + events / EVENTS_PER_S_MIN
        shutil.rmtree(deployment.folder / part)
        topics = self.restored(deployment, config, "from the topics", wait_s)
        store_bytes = bytes_of(deployment.folder / part)
        store = self.restored(deployment, config, "from the local store", wait_s)
        with deployment.instance(BINARY, config, f"{part}-live") as instance:
            wait_until_ready(instance, wait_s)
            latency = latency_at(QUIET_RATE, self.options.live_seconds, instance, deployment, config, wallets, LIVE_SEED)
        print(f"{QUIET_RATE:,} live events/s: p50 {latency.quantile_s(0.5) * 1000:.0f} ms, p99 {latency.quantile_s(0.99) * 1000:.0f} ms",
              flush=True)
        return {
            "identities": topics.identities, "entries": topics.entries, "topics_s": topics.restore_s, "store_s": store.restore_s,
            "store_bytes": store_bytes, "p50_ms": latency.quantile_s(0.5) * 1000, "p99_ms": latency.quantile_s(0.99) * 1000}

    def restored(self, deployment: Deployment, config: Path, how: str, wait_s: float) -> Restored:
        restored = restart(deployment, config, how.replace(" ", "-"), wait_s)
        show(how, restored)
        return restored

    def batches(self) -> list[dict[str, Any]]:
        bench, records = self.backlog(USUAL_WALLETS, self.options.events)
        settings = {batch: [*self.options.set, f"ledger.batch_events_max={batch}"] for batch in self.options.batch}
        loads: dict[int, list[Load]] = {batch: [] for batch in settings}
        for number in range(1, self.options.rounds + 1):
            for batch, of in settings.items():
                bench.deployment.settings = of
                with bench.deployment.ledger_stage(BINARY, self.part()) as instance:
                    readings = full_load(instance, bench.deployment, records)
                loads[batch].append(Load.between(readings[0], readings[-1]))
                loads[batch][-1].print(f"round {number}, batches of at most {batch:,}")
        bench.deployment.settings = self.options.set
        return [{"batch": batch, "loads": [asdict(one) for one in loads[batch]], **self.busy(batch, of)} for batch, of in settings.items()]

    def busy(self, batch: int, settings: list[str]) -> dict[str, float]:
        """Live events with such batches."""
        deployment = another(settings, 0, USUAL_WALLETS, self.folder, f"-live{batch}", self.cleanup).deployment
        with deployment.ledger_stage(BINARY, "live") as instance:
            config = deployment.config_of("live")
            latency = latency_at(BUSY_RATE, min(BUSY_S, self.options.live_seconds), instance, deployment, config, USUAL_WALLETS)
        p50_ms, p99_ms = (latency.quantile_s(share) * 1000 for share in (0.5, 0.99))
        print(f"batches of at most {batch:,}, {BUSY_RATE:,} live events/s: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms", flush=True)
        return {"p50_ms": p50_ms, "p99_ms": p99_ms}

    def backlog(self, wallets: int, events: int) -> tuple[Bench, int]:
        """Made once, and how many records it has."""
        place = wallets, events
        if place not in self.backlogs:
            self.number += 1
            bench = another(self.options.set, events, wallets, self.folder, f"-backlog{self.number}", self.cleanup)
            self.backlogs[place] = bench, bench.preload(BINARY)
            print(f"{wallets:,} wallets: {self.backlogs[place][1]:,} records preloaded", flush=True)
        return self.backlogs[place]

    def part(self) -> str:
        self.number += 1
        return f"round{self.number}"


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def told(row: dict[str, Any], name: str, digits: int = 0) -> str:
    """Of all rounds of a row."""
    values = [one[name] for one in row["loads"]]
    return spread(values, digits) if len(values) > 1 else f"{values[0]:,.{digits}f}"


def curve(name: str, rows: list[dict[str, Any]], x: str, y: Callable[[dict[str, Any]], float]) -> Series:
    return Series(name, [(row[x], y(row)) for row in rows])


def loads_curve(name: str, rows: list[dict[str, Any]], x: str, of: str) -> Series:
    return curve(name, rows, x, lambda row: median(one[of] for one in row["loads"]))


def latency_panel(rows: list[dict[str, Any]], x: str, rate: int) -> Panel:
    return Panel(f"Event to balance at {rate:,}/s", "ms", [
        curve("p50", rows, x, lambda row: row["p50_ms"]), curve("p99", rows, x, lambda row: row["p99_ms"])])


def restore_panel(rows: list[dict[str, Any]], x: str) -> Panel:
    return Panel("Restore", "s", [
        curve("from topics", rows, x, lambda row: row["topics_s"]), curve("from local store", rows, x, lambda row: row["store_s"])])


def load_panels(rows: list[dict[str, Any]], x: str) -> list[Panel]:
    return [
        Panel("Throughput", "1/s", [loads_curve("usage", rows, x, "usage_per_s"), loads_curve("all records", rows, x, "records_per_s")]),
        Panel("RSS", "MB", [loads_curve("RSS", rows, x, "rss_mb")])]


def places_table(first: str, rows: list[dict[str, Any]]) -> list[str]:
    """By wallets or identities."""
    head = [first, "usage events", "usage events/s", "records/s", "ours, µs/record", "broker's", "RSS, MB",
            "from the topics, s", "from the local store, s", "its MB", "p50, ms", "p99, ms"]
    return table(head, [[
        f"{row[first]:,}", f"{row['events']:,}", told(row, "usage_per_s"), told(row, "records_per_s"), told(row, "own_micros", 1),
        told(row, "broker_micros", 1), told(row, "rss_mb"), f"{row['topics_s']:,.1f}", f"{row['store_s']:,.1f}",
        f"{row['store_bytes'] / 1e6:,.0f}", f"{row['p50_ms']:,.0f}", f"{row['p99_ms']:,.0f}"] for row in rows])


def batches_table(rows: list[dict[str, Any]]) -> list[str]:
    head = ["batch_events_max", "usage events/s", "records/s", "ours, µs/record", "broker's", "RSS, MB", "records a transaction",
            "ms a transaction", "p50, ms", "p99, ms"]
    return table(head, [[
        f"{row['batch']:,}", told(row, "usage_per_s"), told(row, "records_per_s"), told(row, "own_micros", 1),
        told(row, "broker_micros", 1), told(row, "rss_mb"), told(row, "transaction_records"), told(row, "transaction_ms"),
        f"{row['p50_ms']:,.0f}", f"{row['p99_ms']:,.0f}"] for row in rows])


def document(figures: dict[str, Any]) -> str:
    """The parts that were measured, as they stand in the document."""
    lines: list[str] = []
    if part := figures.get("wallets"):
        lines += [f"**Wallets.** {heading(part)}; {part['events']:,} usage events each, latency at {QUIET_RATE:,} live events/s:", "",
                  *places_table("wallets", part["rows"]), "", "![Against wallets](images/growth-wallets.svg)", ""]
    if part := figures.get("identities"):
        lines += [f"**Remembered identities.** {heading(part)}; {USUAL_WALLETS:,} wallets, latency at {QUIET_RATE:,} live events/s:", "",
                  *places_table("identities", part["rows"]), ""]
    if part := figures.get("batches"):
        lines += [f"**Batches.** {heading(part)}; {part['events']:,} usage events of {USUAL_WALLETS:,} wallets, latency at "
                  f"{BUSY_RATE:,} live events/s:", "",
                  *batches_table(part["rows"]), "", "![Against the size of batches](images/growth-batches.svg)", ""]
    return "\n".join(lines).strip()


def images(figures: dict[str, Any]) -> dict[str, str]:
    drawn = {}
    if part := figures.get("wallets"):
        rows = part["rows"]
        drawn["growth-wallets.svg"] = plot(
            "As wallets grow", f"{part['events']:,} usage events each, {part['date']}", "wallets",
            [*load_panels(rows, "wallets"), latency_panel(rows, "wallets", QUIET_RATE), restore_panel(rows, "wallets")],
            [row["wallets"] for row in rows])
    if part := figures.get("batches"):
        rows = part["rows"]
        transactions = Panel("Transaction, from begin to commit", "ms", [loads_curve("mean", rows, "batch", "transaction_ms")])
        drawn["growth-batches.svg"] = plot(
            "As batches grow", f"{part['events']:,} usage events of {USUAL_WALLETS:,} wallets, {part['date']}", "ledger.batch_events_max",
            [*load_panels(rows, "batch"), latency_panel(rows, "batch", BUSY_RATE), transactions], [row["batch"] for row in rows])
    return drawn


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder, ExitStack() as cleanup:
        growth = Growth(options, Path(folder), cleanup, figures)
        warm_up(*growth.backlog(USUAL_WALLETS, options.events), options.warm_up)
        for part in options.only or PARTS:
            growth.run(part)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="usage events of a backlog")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=3, help="rounds before them that do not count")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part of it")
    parser.add_argument("--wallets", action="append", type=int, help="numbers of wallets, in place of the usual ones")
    parser.add_argument("--batch", action="append", type=int, help="sizes of batches, in place of the usual ones")
    parser.add_argument("--live-seconds", type=int, default=20, help="how long latency is measured, after a warm-up of as long")
    parser.add_argument("--publish", action="store_true", help="put tables and plots into docs/performance.md")
    parser.add_argument("--again", action="store_true", help="measure nothing: take the figures of the last run")
    add_settings_option(parser)
    options = parser.parse_args()
    options.wallets, options.batch = options.wallets or WALLETS, options.batch or BATCHES
    figures = last_figures(TARGET)

    def work() -> None:
        if not options.again:
            measure(options, figures)
        print("\n" + document(figures))
        if options.publish:
            publish(TARGET, document(figures), images(figures))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
