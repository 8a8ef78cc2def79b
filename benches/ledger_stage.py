"""What an event costs in the ledger stage: a preloaded backlog through the real binary and the local Kafka.

    make bench-ledger                                     2,000,000 events of 100,000 wallets, one round after a warm-up
    make bench-ledger BENCH="--events 300000 --rounds 3"  fewer events, three times
    make bench-ledger BENCH="--binary A --binary B --rounds 2"  two builds in turn, over the same events

Each round is a deployment of its own over the same source topics, without a sink, so that builds can be compared in one
sitting; after each comes a bare transactional pass-through of the same records (benches/pass_through.rs): what Kafka itself
allows here and now. The numbers to look at are the CPU time per event and the ratio to the pass-through: events/s also
depends on what else the machine does.
All topics, the consumer groups and the database are deleted at the end. Exit code 1: a round did not get through.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True

from deployment import BINARY, OUTPUTS, START_WAIT_S, BenchError, Deployment, Instance, add_settings_option, cpu_seconds

POLL_S = 0.1
# A round that is slower than this hangs.
EVENTS_PER_S_MIN = 5_000
# Not an outcome of the record: it is counted again where it goes, or was counted before.
NOT_FINAL = ("handed_over", "skipped")
# What the pass-through writes for each record, bytes.
PASSED_BYTES = 400


@dataclass
class Reading:
    """All counters at one moment."""

    at: float
    processed: int
    cpu_s: float
    broker_cpu_s: float
    rss_mb: int
    threads_s: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Passed:
    """What went through without us."""

    records_per_s: float
    broker_micros: float


class Bench:
    """The source topics, and rounds over them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.deployment = Deployment(options.set, folder)

    def preload(self, binary: Path) -> int:
        """Fill the source topics; the number of records."""
        config = self.deployment.write_config("preload")
        self.deployment.command(binary, config, "init")
        summary = self.deployment.command(
            binary, config, "generate", "--events", str(self.options.events), "--wallets", str(self.options.wallets),
            "--duplicates", "1", "--wrong-keys", "5", limit_s=START_WAIT_S + self.options.events / EVENTS_PER_S_MIN)
        return int(json.loads(summary)["records"])

    def round(self, binary: Path, number: int, records: int) -> tuple[Reading, Reading]:
        """One deployment, from its first committed batch to its last."""
        with self.deployment.ledger_stage(binary, f"round{number}") as instance:
            return self.measure(instance, records)

    def pass_through(self, program: Path, number: int, records: int) -> Passed:
        """The same records through nothing but Kafka."""
        part = f"pass{number}"
        config = self.deployment.write_config(part)
        self.deployment.command(self.options.binary[0], config, "init")
        broker_cpu_s = self.deployment.broker_cpu_s()
        process = subprocess.Popen(
            [str(program), str(config), str(records), str(PASSED_BYTES)], env=self.deployment.environment(),
            stdout=subprocess.PIPE, text=True)
        stdout, _ = process.communicate(timeout=START_WAIT_S + records / EVENTS_PER_S_MIN)
        if process.returncode != 0:
            raise BenchError(f"the pass-through ended with {process.returncode}")
        broker_cpu_s = self.deployment.broker_cpu_s() - broker_cpu_s
        self.deployment.delete({self.deployment.topic(key, part) for key in OUTPUTS})
        passed = json.loads(stdout)
        return Passed(passed["records"] / passed["seconds"], broker_cpu_s / records * 1e6)

    def measure(self, instance: Instance, records: int) -> tuple[Reading, Reading]:
        deadline = time.monotonic() + START_WAIT_S + records / EVENTS_PER_S_MIN
        first = None
        while True:
            now = self.read(instance)
            if first is None and now.processed > 0:
                first = now
            if first is not None and now.processed >= records:
                return first, now
            if time.monotonic() > deadline:
                raise BenchError(f"{now.processed} of {records} records were processed when time was up")
            time.sleep(POLL_S)

    def read(self, instance: Instance) -> Reading:
        counts = instance.metrics().of("events_total")
        processed = int(sum(value for labels, value in counts if labels["outcome"] not in NOT_FINAL))
        threads: Counter[str] = Counter()
        for task in (Path("/proc") / str(instance.process.pid)).glob("task/*/stat"):
            name, seconds = cpu_seconds(task)
            threads[name] += seconds
        return Reading(
            time.monotonic(), processed, instance.cpu_s(), self.deployment.broker_cpu_s(), instance.rss_mb(), threads)


def report(binary: Path, number: int, first: Reading, last: Reading) -> float:
    """Print a round; its events per second."""
    events = max(last.processed - first.processed, 1)
    seconds = last.at - first.at

    def micros(cpu_s: float) -> float:
        return cpu_s / events * 1e6

    name = f"round {number}" if number > 0 else "warm-up"
    print(
        f"{name} {binary}: {events / seconds:,.0f} events/s, ours {micros(last.cpu_s - first.cpu_s):.2f} µs/event, "
        f"broker's {micros(last.broker_cpu_s - first.broker_cpu_s):.2f} µs/event, RSS {last.rss_mb} MB, {seconds:.1f} s")
    threads = (last.threads_s - first.threads_s).most_common()
    print("  by thread, µs/event: " + ", ".join(f"{name} {micros(cpu):.2f}" for name, cpu in threads if micros(cpu) >= 0.01),
          flush=True)
    return events / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000, help="usage events to preload")
    parser.add_argument("--wallets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each binary")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before them that do not count: a broker that has "
                        "just started takes several times the CPU for a record (default: 1)")
    parser.add_argument("--binary", type=Path, action="append", help="default: target/release/creditstream")
    parser.add_argument("--pass-through", type=Path, help="the program built from benches/pass_through.rs")
    add_settings_option(parser)
    options = parser.parse_args()
    binaries = options.binary = [path.absolute() for path in options.binary or [BINARY]]
    rates: dict[Path, list[float]] = {binary: [] for binary in binaries}
    passed_rates: list[float] = []
    with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder:
        bench = Bench(options, Path(folder))
        try:
            records = bench.preload(binaries[0])
            print(f"{records:,} records preloaded", flush=True)
            turns = [binary for _ in range(options.rounds) for binary in binaries]
            for number, binary in enumerate([binaries[0]] * options.warm_up + turns, start=1 - options.warm_up):
                rate = report(binary, number, *bench.round(binary, number, records))
                passed = None
                if options.pass_through is not None:
                    passed = bench.pass_through(options.pass_through.absolute(), number, records)
                    print(f"  pass-through: {passed.records_per_s:,.0f} records/s, "
                          f"broker's {passed.broker_micros:.2f} µs/record", flush=True)
                if number < 1:
                    continue
                rates[binary].append(rate)
                if passed is not None:
                    passed_rates.append(passed.records_per_s)
            for binary in binaries:
                summary = f"median {binary}: {median(rates[binary]):,.0f} events/s"
                if passed_rates:
                    ratio = median(rates[binary]) / median(passed_rates)
                    summary += f"; pass-through {median(passed_rates):,.0f} records/s; ratio {ratio:.2f}"
                print(summary)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            bench.deployment.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
