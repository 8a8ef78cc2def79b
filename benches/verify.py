"""How fast `creditstream verify` compares sources, ledger, wallets and ClickHouse.

    make bench-verify                          1,000,000 usage events of 100,000 wallets
    make bench-verify BENCH="--events 300000"  fewer

Events are charged and written to ClickHouse, the instance stops, and `verify` runs three times over all of it. Target: 200,000
entries a second. Exit code 1: it did not get through, or the verdict was not "equal". All topics, the consumer groups and the
database are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True

from deployment import BINARY, START_WAIT_S, BenchError, Deployment, add_settings_option, run

PART = "verify"
ENTRIES_PER_S_TARGET = 200_000
RUNS = 3
POLL_S = 0.5
# Slower than this, it hangs.
EVENTS_PER_S_MIN = 3_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="usage events")
    parser.add_argument("--wallets", type=int, default=100_000)
    add_settings_option(parser)
    options = parser.parse_args()
    return run(options, lambda deployment: measure(deployment, options))


def measure(deployment: Deployment, options: argparse.Namespace) -> None:
    config = deployment.write_config(PART, f'[sink]\ngroup = "{deployment.name}-sink"\n')
    deployment.groups.add(f"{deployment.name}-sink")
    deployment.command(BINARY, config, "init")
    wait_s = START_WAIT_S + options.events / EVENTS_PER_S_MIN
    fill(deployment, config, options, wait_s)
    rates = []
    for _ in range(RUNS):
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads(deployment.command(BINARY, config, "verify", limit_s=wait_s))
        seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        rates.append(report["entries"] / seconds)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{report['entries']:,} entries in {seconds:.1f} s: {rates[-1]:,.0f} a second; CPU {cpu_s:.1f} s; "
              f"equal: {report['equal']}", flush=True)
        if not report["equal"]:
            raise BenchError("something differs")
    verdict = "met" if median(rates) >= ENTRIES_PER_S_TARGET else "MISSED"
    print(f"median {median(rates):,.0f} entries/s ({verdict}: {ENTRIES_PER_S_TARGET:,}); {len(os.sched_getaffinity(0))} cores, "
          f"load {os.getloadavg()[0]:.2f}")


def fill(deployment: Deployment, config: Path, options: argparse.Namespace, wait_s: float) -> None:
    """Until all is charged, and ClickHouse has it."""
    begun = time.monotonic()
    with deployment.instance(BINARY, config, "fill", ("ledger", "sink")) as instance:
        summary = json.loads(deployment.command(
            BINARY, config, "generate", "--events", str(options.events), "--wallets", str(options.wallets), limit_s=wait_s))
        while True:
            metrics = instance.metrics()
            decided = sum(value for labels, value in metrics.of("events_total") if labels["outcome"] not in ("handed_over", "skipped"))
            if decided >= summary["records"] and metrics.sum("lag_records", stage="sink") == 0:
                break
            if time.monotonic() > begun + wait_s:
                raise BenchError(f"{decided:,.0f} of {summary['records']:,} records were decided when time was up")
            time.sleep(POLL_S)
    print(f"{summary['records']:,} records charged and in ClickHouse after {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
