"""How long an instance takes until it serves: with its local store, and without any.

    make bench-restore                                              100,000 wallets, 2,000,000 usage events
    make bench-restore BENCH="--wallets 1000000 --events 20000000"  what the targets are for; 30 minutes, 12 GB of disk

The ledger stage charges the events, all of which lie inside the horizon, and is killed with -9 as soon as all are charged. Then it
is started with its local store, stopped in order, started again, and at last started without the store, so that all is read
from the topics. Measured is what the instance says (restore_duration_seconds), and the time from the start of the process
until it is ready.
Targets, for 1,000,000 wallets and 20,000,000 entries: at most 10 s from the local store, at most 90 s from the topics; for
any number, 250,000 entries a second from the topics. Exit code 1: an event was not charged, or not all of the wallets were
there again. All topics, the consumer group and the database are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True

from deployment import BINARY, START_WAIT_S, BenchError, Deployment, Instance, add_settings_option, run

PART = "restore"
STORE_S_TARGET, TOPICS_S_TARGET, ENTRIES_PER_S_TARGET = 10.0, 90.0, 250_000
FULL_WALLETS, FULL_ENTRIES = 1_000_000, 20_000_000
# Slower than this, it hangs.
EVENTS_PER_S_MIN = 5_000
POLL_S = 0.2


@dataclass(frozen=True)
class Restored:
    """What an instance said of its start."""

    ready_s: float
    restore_s: float
    entries: int
    ledger_s: float
    wallets: int
    identities: int
    cpu_s: float
    broker_cpu_s: float
    rss_mb: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=FULL_ENTRIES // 10, help="usage events")
    parser.add_argument("--wallets", type=int, default=FULL_WALLETS // 10)
    add_settings_option(parser)
    options = parser.parse_args()
    return run(options, lambda deployment: measure(deployment, options))


def measure(deployment: Deployment, options: argparse.Namespace) -> None:
    config = deployment.write_config(PART)
    deployment.command(BINARY, config, "init")
    store = deployment.folder / PART
    wait_s = START_WAIT_S + options.events / EVENTS_PER_S_MIN
    begun = time.monotonic()
    with deployment.instance(BINARY, config, "fill") as instance:
        summary = json.loads(deployment.command(
            BINARY, config, "generate", "--events", str(options.events), "--wallets", str(options.wallets),
            "--duplicates", "0", "--bad", "0", "--wrong-keys", "0", limit_s=wait_s))
        while (decided := decided_of(instance)) < summary["records"]:
            if time.monotonic() > begun + wait_s:
                raise BenchError(f"{decided:,} of {summary['records']:,} records were decided when time was up")
            time.sleep(POLL_S)
        build = next(labels for labels, _ in instance.metrics().of("build_info"))
        instance.process.kill()
        instance.process.wait()
    print(f"{summary['records']:,} records charged in {time.monotonic() - begun:.0f} s; the local store has "
          f"{sum(path.stat().st_size for path in store.rglob('*') if path.is_file()) / 1e6:,.0f} MB", flush=True)

    killed = restart(deployment, config, "killed", wait_s)
    show("with the local store, killed before", killed)
    in_order = restart(deployment, config, "in-order", wait_s)
    show("with the local store, stopped in order before", in_order)
    shutil.rmtree(store)
    without = restart(deployment, config, "without", wait_s)
    show("without a local store", without)
    found = {one.wallets for one in (in_order, killed, without)}
    if len(found) != 1:
        raise BenchError(f"not the same wallets each time: {found}")

    print(f"creditstream {build['version']}, commit {build['revision']}; {len(os.sched_getaffinity(0))} cores, "
          f"load {os.getloadavg()[0]:.2f}; {without.wallets:,} wallets, {without.entries:,} entries, "
          f"{without.identities:,} identities")
    is_full = without.wallets >= FULL_WALLETS and without.entries >= FULL_ENTRIES
    slowest = max(in_order.restore_s, killed.restore_s)
    print(f"from the local store: at most {slowest:.1f} s ({verdict(slowest <= STORE_S_TARGET, is_full)}: {STORE_S_TARGET:.0f} s)")
    print(f"from the topics: {without.restore_s:.1f} s ({verdict(without.restore_s <= TOPICS_S_TARGET, is_full)}: "
          f"{TOPICS_S_TARGET:.0f} s)")
    rate = without.entries / without.restore_s
    print(f"from the topics: {rate:,.0f} entries/s in all, {without.entries / without.ledger_s:,.0f} of the ledger "
          f"({verdict(rate >= ENTRIES_PER_S_TARGET, True)}: {ENTRIES_PER_S_TARGET:,})")


def restart(deployment: Deployment, config: Path, name: str, wait_s: float) -> Restored:
    """Start it, wait until it is ready, and stop it again."""
    begun, broker_cpu_s = time.monotonic(), deployment.broker_cpu_s()
    with deployment.instance(BINARY, config, name) as instance:
        while not instance.is_ready():
            if time.monotonic() > begun + wait_s:
                raise BenchError(f"{name}: not ready when time was up")
            time.sleep(POLL_S)
        ready_s = time.monotonic() - begun
        return restored_of(instance, ready_s, deployment.broker_cpu_s() - broker_cpu_s)


def restored_of(instance: Instance, ready_s: float, broker_cpu_s: float) -> Restored:
    lines = [json.loads(line) for line in instance.log.read_text().splitlines() if line.startswith("{")]
    read = [line for line in lines if line.get("message") == "ledger read"]
    taken = next(line for line in lines if line.get("message") == "partitions taken over")
    restore_s = sum(value for _, value in instance.metrics().of("restore_duration_seconds_sum"))
    return Restored(ready_s, restore_s, sum(line["entries"] for line in read), max(sum(line["seconds"] for line in read), 1e-3),
                    taken["wallets"], taken["identities"], instance.cpu_s(), broker_cpu_s, instance.rss_mb())


def decided_of(instance: Instance) -> int:
    counts = instance.metrics().of("events_total")
    return int(sum(value for labels, value in counts if labels["outcome"] not in ("handed_over", "skipped")))


def show(how: str, restored: Restored) -> None:
    print(f"{how}: {restored.restore_s:.1f} s, ready after {restored.ready_s:.1f} s; {restored.entries:,} entries read in "
          f"{restored.ledger_s:.1f} s; CPU ours {restored.cpu_s:.1f} s, broker's {restored.broker_cpu_s:.1f} s; "
          f"RSS {restored.rss_mb:,} MB", flush=True)


def verdict(is_met: bool, is_asked: bool) -> str:
    if not is_asked:
        return "asked of 1,000,000 wallets and 20,000,000 entries"
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
