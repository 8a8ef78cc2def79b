"""How the ledger stage keeps its speed where events are not the usual mix, or workers more than one, and how late balances are.

    make bench-mixes                             three rounds of each, 15 minutes
    make bench-mixes BENCH="--only workers"      a part: mixes, workers or latency

Each mix is a backlog of its own: the usual one (100,000 wallets, 5 % of the records with another key than the wallet's), none
at home (every key another one: all is handed over), one wallet with half of all events, and every wallet about once. All are
gone through in turn, so that a ratio is that of a round. Then the usual mix by 1, 2 and 4 workers in one process, in turn.
Last, events as they happen, at 1,000 a second and at half of the usual throughput: from a record's Kafka timestamp to the return of
the commit that made it count. All topics and groups are deleted at the end. Exit code 1: something did not get through.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.dont_write_bytecode = True

from deployment import BINARY, add_settings_option, exit_code, spread
from ledger_stage import Bench, Round
from load import another
from steady import latency_at

USUAL, WALLETS = "the usual mix", 100_000
WORKERS = (1, 2, 4)
LIVE_RATE, LIVE_S = 1_000, 20
PARTS = ("mixes", "workers", "latency")


def mixes(events: int) -> dict[str, list[list[str]]]:
    """What is generated for each, one after the other."""
    usage = ["--phase", "usage", "--wrong-keys", "5"]
    half = ["--events", str(events // 2)]
    return {
        USUAL: [["--events", str(events), "--wallets", str(WALLETS), "--wrong-keys", "5"]],
        "nothing at home": [["--events", str(events), "--wallets", str(WALLETS), "--wrong-keys", "100"]],
        "one wallet has half": [
            [*half, "--wallets", str(WALLETS), "--wrong-keys", "5"],
            [*half, "--wallets", "1", "--seed", "2", *usage]],
        "every wallet about once": [["--events", str(events), "--wallets", str(events), *usage]],
    }


class Mixes:
    """The backlogs, and rounds over them."""

    def __init__(self, options: argparse.Namespace, folder: Path, cleanup: ExitStack) -> None:
        self.options, self.folder, self.cleanup = options, folder, cleanup
        self.number = 0
        self.preloaded: dict[str, tuple[Bench, int]] = {}

    def bench(self, name: str) -> tuple[Bench, int]:
        """A backlog, made once, and how many records it has."""
        if name not in self.preloaded:
            bench = self.another(f"-mix{len(self.preloaded)}")
            records = bench.preload(BINARY, mixes(self.options.events)[name])
            print(f"{name}: {records:,} records", flush=True)
            self.preloaded[name] = bench, records
        return self.preloaded[name]

    def another(self, suffix: str) -> Bench:
        return another(self.options.set, self.options.events, WALLETS, self.folder, suffix, self.cleanup)

    def round(self, name: str, settings: tuple[str, ...] = ()) -> Round:
        bench, records = self.bench(name)
        self.number += 1
        bench.deployment.settings = [*self.options.set, *settings]
        done = bench.round(BINARY, self.number, records)
        done.print(f"{name}{''.join(f', {setting}' for setting in settings)}")
        return done

    def warm_up(self) -> float:
        """What a broker needs that has just started; events/s of the last round."""
        return [self.round(USUAL).events_per_s for _ in range(self.options.warm_up)][-1]

    def compare_mixes(self) -> None:
        names = list(mixes(self.options.events))
        done = [{name: self.round(name) for name in names} for _ in range(self.options.rounds)]
        for name in names:
            rates = [each[name].events_per_s for each in done]
            ratios = [each[name].events_per_s / each[USUAL].events_per_s for each in done]
            print(f"median {name}: {spread(rates)} events/s; ratio to {USUAL}: {spread(ratios, 2)}", flush=True)

    def compare_workers(self) -> None:
        done = [{count: self.round(USUAL, (f"ledger.workers={count}",)) for count in WORKERS} for _ in range(self.options.rounds)]
        for count in WORKERS:
            rates = [each[count].events_per_s for each in done]
            ratios = [each[count].events_per_s / each[1].events_per_s for each in done]
            print(f"median of {count} workers: {spread(rates)} events/s; ratio to one: {spread(ratios, 2)}", flush=True)

    def latency(self, rate: int) -> None:
        """Live events at that rate, the first seconds of which do not count."""
        deployment = self.another(f"-live{rate}").deployment
        with deployment.ledger_stage(BINARY, "live") as instance:
            latency = latency_at(rate, LIVE_S, instance, deployment, deployment.config_of("live"), WALLETS)
        print(f"{rate:,} live events/s: to the committed balance p50 {latency.quantile_s(0.5) * 1000:.0f} ms, "
              f"p99 {latency.quantile_s(0.99) * 1000:.0f} ms, of {latency.count:,} events", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="usage events of each mix")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds before them that do not count")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part of it")
    add_settings_option(parser)
    options = parser.parse_args()
    wanted = options.only or PARTS

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder, ExitStack() as cleanup:
            run = Mixes(options, Path(folder), cleanup)
            usual = run.warm_up()
            if "mixes" in wanted:
                run.compare_mixes()
            if "workers" in wanted:
                run.compare_workers()
            if "latency" in wanted:
                for rate in (LIVE_RATE, round(usual / 2, -3)):
                    run.latency(int(rate))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
