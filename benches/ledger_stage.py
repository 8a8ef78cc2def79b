"""What an event costs in the ledger stage: a preloaded backlog through the real binary and the local Kafka.

    make bench-ledger                                     2,000,000 events of 100,000 wallets, one round after warm-ups
    make bench-ledger BENCH="--events 300000 --rounds 3"  fewer events, three times
    make bench-ledger BENCH="--binary A --binary B --rounds 2"  two builds in turn, over the same events

Each round is a deployment of its own over the same source topics, without a sink, so that builds can be compared in one
sitting. After each come two transactional pass-throughs of the same records (benches/pass_through.rs), which is what Kafka
itself allows here and now: a bare one, 400 bytes out for each record, and one that writes what the ledger stage wrote. The
numbers to look at are the CPU time per event and the ratios to those: events/s also depends on what else the machine does.
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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True

from deployment import BINARY, OUTPUTS, START_WAIT_S, BenchError, Deployment, Instance, add_settings_option, cpu_seconds, spread
from parts import parts

POLL_S = 0.25
# A round that is slower than this hangs.
EVENTS_PER_S_MIN = 5_000
# Not an outcome of the record: it is counted again where it goes, or was counted before.
NOT_FINAL = ("handed_over", "skipped")
# What the pass-through writes for each record, bytes.
PASSED_BYTES = 400
PROFILE_S = 8


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

    def print(self, what: str) -> None:
        print(f"  pass-through {what}: {self.records_per_s:,.0f} records/s, broker's {self.broker_micros:.2f} µs/record", flush=True)


@dataclass(frozen=True)
class Round:
    """From the first committed batch to the last; CPU in µs an event."""

    events_per_s: float
    seconds: float
    own_micros: float
    broker_micros: float
    rss_mb: int
    thread_micros: dict[str, float]
    bare: Passed | None = None
    like: Passed | None = None

    @classmethod
    def between(cls, first: Reading, last: Reading) -> Round:
        events = max(last.processed - first.processed, 1)
        seconds = last.at - first.at
        micros = 1e6 / events
        return cls(events / seconds, seconds, (last.cpu_s - first.cpu_s) * micros, (last.broker_cpu_s - first.broker_cpu_s) * micros,
                   last.rss_mb, {name: cpu * micros for name, cpu in (last.threads_s - first.threads_s).most_common()})

    def print(self, name: str) -> None:
        print(f"{name}: {self.events_per_s:,.0f} events/s, ours {self.own_micros:.2f} µs/event, "
              f"broker's {self.broker_micros:.2f} µs/event, RSS {self.rss_mb} MB, {self.seconds:.1f} s")
        threads = ", ".join(f"{name} {cpu:.2f}" for name, cpu in self.thread_micros.items() if cpu >= 0.01)
        print(f"  by thread, µs/event: {threads}", flush=True)
        for what, passed in ((f"of {PASSED_BYTES} bytes", self.bare), ("of the same records and bytes", self.like)):
            if passed is not None:
                passed.print(what)


class Bench:
    """The source topics, and rounds over them."""

    def __init__(self, options: argparse.Namespace, folder: Path, suffix: str = "") -> None:
        self.options = options
        self.deployment = Deployment(options.set, folder, suffix)

    def preload(self, binary: Path, runs: list[list[str]] | None = None) -> int:
        """Fill the source topics with what `runs` of the generator make, by default one of the usual mix; the number of records."""
        if runs is None:
            runs = [[
                "--events", str(self.options.events), "--wallets", str(self.options.wallets),
                "--duplicates", "1", "--wrong-keys", "5"]]
        config = self.deployment.write_config("preload")
        self.deployment.command(binary, config, "init")
        limit_s = START_WAIT_S + self.options.events / EVENTS_PER_S_MIN
        summaries = [self.deployment.command(binary, config, "generate", *run, limit_s=limit_s) for run in runs]
        return sum(int(json.loads(summary)["records"]) for summary in summaries)

    def round(self, binary: Path, number: int, records: int) -> Round:
        """One deployment, from its first committed batch to its last, and the pass-throughs."""
        part, program = f"round{number}", self.options.pass_through
        with self.deployment.ledger_stage(binary, part) as instance:
            done = Round.between(*self.measure(instance, records))
            instance.stop()
            if program is None:
                return done
            like = self.pass_through(program, f"like{number}", records, str(self.deployment.config_of(part)))
        return replace(done, like=like, bare=self.pass_through(program, f"bare{number}", records, str(PASSED_BYTES)))

    def profile(self, binary: Path) -> dict[str, float]:
        """A stretch of one more round, which is given up then; see `parts`."""
        with self.deployment.ledger_stage(binary, "profile") as instance:
            deadline = time.monotonic() + START_WAIT_S
            while self.read(instance).processed == 0:
                if time.monotonic() > deadline:
                    raise BenchError("nothing was processed when time was up")
                time.sleep(POLL_S)
            return parts(instance.process.pid, self.deployment.folder, PROFILE_S)

    def pass_through(self, program: Path, part: str, records: int, what: str) -> Passed:
        """The same records through nothing but Kafka. `what`: bytes of each, or the configuration of who wrote what is to be
        written again."""
        config = self.deployment.write_config(part)
        self.deployment.command(self.options.binary[0], config, "init")
        broker_cpu_s = self.deployment.broker_cpu_s()
        process = subprocess.Popen(
            [str(program.absolute()), str(config), str(records), what], env=self.deployment.environment(),
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


def rounds(bench: Bench) -> dict[Path, list[Round]]:
    """Those that count, by binary."""
    options = bench.options
    binaries = options.binary
    records = bench.preload(binaries[0])
    print(f"{records:,} records preloaded", flush=True)
    done: dict[Path, list[Round]] = {binary: [] for binary in binaries}
    number = 0
    for warm_up in range(1 - options.warm_up, 1):
        bench.round(binaries[0], warm_up, records).print(f"warm-up {binaries[0]}")
    for _ in range(options.rounds):
        for binary in binaries:
            number += 1
            done[binary].append(bench.round(binary, number, records))
            done[binary][-1].print(f"round {number} {binary}")
    return done


def ratio(of: list[Round], beside: Callable[[Round], Passed | None]) -> str:
    """Between each round and the pass-through after it."""
    each = [done.events_per_s / passed.records_per_s for done in of if (passed := beside(done)) is not None]
    return spread(each, 2)


def summary(binary: Path, of: list[Round]) -> None:
    rates = [done.events_per_s for done in of]
    print(f"median {binary}: {spread(rates)} events/s, "
          f"ours {median(done.own_micros for done in of):.2f} µs/event, broker's {median(done.broker_micros for done in of):.2f}")
    if all(done.bare and done.like for done in of):
        print(f"pass-through (a) of {PASSED_BYTES} bytes: {median(done.bare.records_per_s for done in of):,.0f} records/s")
        print(f"pass-through (b) of the same records and bytes: {median(done.like.records_per_s for done in of):,.0f} records/s")
        print(f"ratio c/a: {ratio(of, lambda done: done.bare)}")
        print(f"ratio c/b: {ratio(of, lambda done: done.like)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000, help="usage events to preload")
    parser.add_argument("--wallets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each binary")
    parser.add_argument("--warm-up", type=int, default=4, help="rounds before them that do not count: a broker that has just "
                        "started takes twice the CPU for a record, and less with each round (default: 4)")
    parser.add_argument("--binary", type=Path, action="append", help="default: target/release/creditstream")
    parser.add_argument("--pass-through", type=Path, help="the program built from benches/pass_through.rs")
    parser.add_argument("--profile", action="store_true", help="in a further round, the share of each part of the work (perf)")
    parser.add_argument("--json", type=Path, help="where the figures of the first binary go")
    add_settings_option(parser)
    options = parser.parse_args()
    options.binary = [path.absolute() for path in options.binary or [BINARY]]
    with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder:
        bench = Bench(options, Path(folder))
        try:
            done = rounds(bench)
            shares = bench.profile(options.binary[0]) if options.profile else {}
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            bench.deployment.close()
    for binary, of in done.items():
        summary(binary, of)
    if shares:
        print("of our CPU time: " + ", ".join(f"{part} {share:.1%}" for part, share in shares.items()))
    if options.json is not None:
        rounds_of_first = [asdict(one) for one in done[options.binary[0]]]
        figures = {"events": options.events, "wallets": options.wallets, "rounds": rounds_of_first, "parts": shares}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
