"""How fast the sink writes to ClickHouse, and how fast ClickHouse takes the same inserts from a client that does nothing else.

    make bench-sink                                       1,000,000 events of 100,000 wallets, five rounds
    make bench-sink BENCH="--events 300000 --rounds 1"    fewer events, one round
    make bench-sink BENCH="--binary A --binary B"         two builds in turn, over the same ledger
    make bench-sink BENCH="--shared"                      ClickHouse on the same cores as the sink

The ledger stage first makes a ledger of the events, and ends. A warm-up round has the sink read it through a proxy that
records its inserts. Then, in turn and each into an empty database: the recorded inserts, byte for byte, over as many
connections as the sink had at a time, or over 2 where the warm-up was faster with them, which is ClickHouse's own limit; and
the sink, with nothing between it and ClickHouse, from the first entry on. Each ratio is between a sink and the mean of the
limits before and after it. A rate is taken from the first acknowledged insert until the last is acknowledged and ClickHouse
has merged: how much of its merging it does while it inserts, and how much afterwards, is chance.

ClickHouse is an engine of this run's own. As it would have a machine of its own, it has half of the cores for itself, and the
sink, or the client, has the others; with --shared both have all of them, and the ratio mostly says how their needs compare.
The broker that the sink reads from runs wherever it likes, and so does whatever else the machine does: how many cores that
took stands in each line. All topics and groups are deleted at the end. Exit code 1: a round did not get through.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True

import ledger_stage
from deployment import BINARY, START_WAIT_S, BenchError, Deployment, Instance, add_settings_option, cpu_seconds, machine_cpu_seconds, spread
from engine import Engine, engine
from inserts import Recording, Sender, recorded

PART = "ledger"
POLL_S = 0.05
# A sink that has read everything and inserts nothing for so long has ended.
QUIET_S = 5
# A round that is slower than this hangs.
ENTRIES_PER_S_MIN = 1_000
CONNECTIONS_FEW = 2
ENTRIES = "ledger_entries"
# Written by the sink's own statements, not from records.
COMPUTED = ("usage_by_day", "credits_by_day")


@dataclass(frozen=True)
class Cpu:
    """CPU seconds so far, by who used them."""

    used: Counter[str]

    def since(self, before: Cpu) -> Counter[str]:
        return Counter({name: seconds - before.used[name] for name, seconds in self.used.items()})


@dataclass(frozen=True)
class Round:
    """From the first acknowledged insert, which is not counted, to the last, and the merges after it."""

    seconds: float
    entries: int
    rows: int
    cpu: Counter[str]

    @property
    def entries_per_s(self) -> float:
        return self.entries / self.seconds

    def print(self, name: str) -> None:
        micros = {who: self.cpu[who] / max(self.entries, 1) * 1e6 for who in ("sink", "clickhouse", "kafka", "client")}
        others = self.cpu["machine"] - sum(self.cpu[who] for who in micros)
        print(f"{name}: {self.entries_per_s:,.0f} entries/s, {self.rows / self.seconds:,.0f} rows/s, {self.seconds:.1f} s; CPU in µs/entry: "
              + ", ".join(f"{who} {value:.2f}" for who, value in micros.items() if value >= 0.01)
              + f"; others had {others / self.seconds:.2f} cores", flush=True)


class Bench:
    """A ledger, and rounds over it."""

    def __init__(self, options: argparse.Namespace, folder: Path, clickhouse: Engine) -> None:
        self.options, self.folder = options, folder
        self.ledger = ledger_stage.Bench(options, folder)
        self.deployment: Deployment = self.ledger.deployment
        self.deployment.clickhouse, self.deployment.pids["clickhouse"] = clickhouse.url, clickhouse.pid
        self.config = folder / f"{PART}.toml"
        # Known once the ledger was read to its end.
        self.entries = 0

    def cpu(self, instance: Instance | None = None) -> Cpu:
        used = Counter({name: self.deployment.component_cpu_s(name) for name in ("clickhouse", "kafka")})
        used["sink"] = instance.cpu_s() if instance else 0.0
        used["client"] = cpu_seconds(Path("/proc/self/stat"))[1]
        used["machine"] = machine_cpu_seconds()
        return Cpu(used)

    def record(self, binary: Path) -> Recording:
        """The warm-up: one round of the sink through a proxy."""
        folder = self.folder / "inserts"
        folder.mkdir()
        with recorded(self.deployment.clickhouse, folder) as proxy:
            self.sink(binary, "warm-up", proxy.url).print(f"warm-up, recorded, {binary}")
            recording = proxy.recording
        tables = Counter(insert.table for insert in recording.inserts)
        print(f"  {len(recording.inserts)} inserts of {recording.byte_count / 1e6:,.0f} MB, at most {recording.together_max} at a time: "
              + ", ".join(f"{table} {count}" for table, count in tables.most_common()), flush=True)
        return recording

    def sink(self, binary: Path, name: str, url: str) -> Round:
        """The sink alone, from the first entry of the ledger to its last."""
        part = "sink_" + name.replace("-", "_")
        group = f"{self.deployment.name}-{part}"
        self.deployment.groups.add(group)
        with self.deployment.another_database(binary, self.config, part) as database:
            settings = {"clickhouse.database": database, "clickhouse.url": url, "sink.group": group}
            with self.deployment.instance(binary, self.config, part, ("sink",), settings) as instance:
                return self.measure(instance, database)

    def measure(self, instance: Instance, database: str) -> Round:
        """Polls the rows that were acknowledged: the last change is the last insert."""
        deadline = time.monotonic() + START_WAIT_S + self.options.events / ENTRIES_PER_S_MIN
        first: tuple[float, Counter[str], Cpu] | None = None
        last_at, last, cpu = 0.0, Counter[str](), self.cpu(instance)
        while True:
            now = time.monotonic()
            metrics = instance.metrics()
            rows = Counter({labels["table"]: int(value) for labels, value in metrics.of("clickhouse_rows_total")
                            if labels["table"] not in COMPUTED and value > 0})
            if rows != last:
                last_at, last, cpu = now, rows, self.cpu(instance)
                first = first or (last_at, last, cpu)
            is_read = metrics.sum("lag_records", stage="sink") == 0 and last[ENTRIES] >= max(self.entries, 1)
            if first and is_read and self.is_merging(database):
                last_at, cpu = time.monotonic(), self.cpu(instance)
            if first and is_read and now - last_at > QUIET_S:
                break
            if now > deadline:
                raise BenchError(f"the sink had written {last[ENTRIES]:,} entries when time was up")
            time.sleep(POLL_S)
        self.entries = last[ENTRIES]
        written = last - first[1]
        return Round(last_at - first[0], written[ENTRIES], written.total(), cpu.since(first[2]))

    def limit(self, recording: Recording, connections: int) -> Round:
        """ClickHouse, and nothing but a client that sends it the same inserts."""
        binary, part = self.options.binary[0], f"limit_{connections}"
        with self.deployment.another_database(binary, self.config, part) as database:
            before = self.cpu()
            sent = Sender(self.deployment.clickhouse, database, recording).send(connections)
            last_at, cpu = sent.last_at, self.cpu()
            while time.monotonic() - last_at < QUIET_S:
                if self.is_merging(database):
                    last_at, cpu = time.monotonic(), self.cpu()
                time.sleep(POLL_S)
        if sent.rows[ENTRIES] != self.entries:
            raise BenchError(f"the recording has {sent.rows[ENTRIES]:,} entries, the ledger {self.entries:,}")
        written = sent.rows - sent.first
        return Round(last_at - sent.first_at, written[ENTRIES], written.total(), cpu.since(before))

    def is_merging(self, database: str) -> bool:
        """Whether ClickHouse merges what was inserted; merges of the tables by day are small, and of the sink alone."""
        sql = f"SELECT count() FROM system.merges WHERE database = '{database}' AND table NOT IN {COMPUTED}"
        with urllib.request.urlopen(self.deployment.clickhouse, sql.encode(), timeout=START_WAIT_S) as answer:
            return answer.read() != b"0\n"


def rounds(bench: Bench, recording: Recording) -> None:
    binaries, url = bench.options.binary, bench.deployment.clickhouse
    own: dict[Path, list[Round]] = {binary: [] for binary in binaries}
    ratios: dict[Path, list[float]] = {binary: [] for binary in binaries}
    limits: list[Round] = []

    def limit(name: str, connections: int) -> Round:
        of = bench.limit(recording, connections)
        of.print(f"{name}, ClickHouse alone, {connections} connections")
        return of

    warm = {connections: limit("warm-up", connections) for connections in (recording.together_max, CONNECTIONS_FEW)}
    connections = max(warm, key=lambda count: warm[count].entries_per_s)
    for number in range(1, bench.options.rounds + 1):
        limits.append(limit(f"round {number}", connections))
        for place, binary in enumerate(binaries):
            own[binary].append(bench.sink(binary, f"{number}-{place}", url))
            own[binary][-1].print(f"round {number}, sink {binary}")
            limits.append(limit(f"round {number}", connections))
            # The limit at the time of the sink, where the machine becomes slower or faster.
            beside = (limits[-2].entries_per_s + limits[-1].entries_per_s) / 2
            ratios[binary].append(own[binary][-1].entries_per_s / beside)

    def medians(of: list[Round]) -> str:
        rows_per_s = median(round.rows / round.seconds for round in of)
        return f"{median(round.entries_per_s for round in of):,.0f} entries/s, {rows_per_s:,.0f} rows/s"

    print(f"median ClickHouse alone, {connections} connections: {medians(limits)}")
    for binary in binaries:
        print(f"median sink {binary}: {medians(own[binary])}")
        print(f"sink ÷ ClickHouse alone: {spread(ratios[binary], 2)}")
    if bench.options.json is not None:
        figures = {"sink": [asdict(done) for done in own[binaries[0]]], "limit": [asdict(done) for done in limits],
                   "ratios": ratios[binaries[0]]}
        bench.options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="usage events that the ledger is made of")
    parser.add_argument("--wallets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary", type=Path, action="append", help="default: target/release/creditstream")
    parser.add_argument("--json", type=Path, help="where the figures of the first binary go")
    parser.add_argument("--shared", action="store_true", help="ClickHouse has no cores of its own")
    add_settings_option(parser)
    options = parser.parse_args()
    options.binary = [path.absolute() for path in options.binary or [BINARY]]
    all_cores = sorted(os.sched_getaffinity(0))
    half = len(all_cores) // 2
    of_clickhouse, of_sink = (all_cores, all_cores) if options.shared or half == 0 else (all_cores[:half], all_cores[half:])
    try:
        with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder, engine(Path(folder), set(of_clickhouse)) as clickhouse:
            bench = Bench(options, Path(folder), clickhouse)
            try:
                measure(bench, set(of_sink))
            finally:
                bench.deployment.close()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def measure(bench: Bench, cores: set[int]) -> None:
    binary = bench.options.binary[0]
    records = bench.ledger.preload(binary)
    with bench.deployment.ledger_stage(binary, PART) as instance:
        bench.ledger.measure(instance, records)
        instance.stop()
        # Whatever is started from here on inherits it.
        os.sched_setaffinity(0, cores)
        print(f"a ledger of {records:,} records; ClickHouse on {len(os.sched_getaffinity(bench.deployment.pids['clickhouse']))} cores, "
              f"the sink on {len(cores)}, {'shared' if bench.options.shared else 'apart'}; load {os.getloadavg()[0]:.2f}", flush=True)
        rounds(bench, bench.record(binary))


if __name__ == "__main__":
    sys.exit(main())
