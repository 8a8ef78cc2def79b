"""How long shards stand still while instances come, go and die, under live load.

    make bench-rebalance                          2,000 live events a second, three rounds
    make bench-rebalance BENCH="--rounds 1"       shorter

One instance serves all shards. A second one joins without any state, leaves in order, joins again with the local state that
it kept, and is killed with -9 and not started again: a round. A reader of committed records follows the ledger all the while.
How long a shard stood still is the longest time around the change in which none of its records came, so the pace of
the load is part of it. A shard stays if the same instance had it before and after; all others move.
Targets: where an instance comes or leaves, shards that stay pause for less than 3 s, and shards that move are served within
5 s where their new instance has held them or has their local state; those of a killed one are served within session timeout
and transaction timeout and 5 s more.
Exit code 1: an event was not charged, or twice. All topics, the consumer group and the database are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True

from deployment import BINARY, SHARDS, BenchError, Deployment, Instance, add_settings_option, run
from live import KAFKA_TIMEOUT_S, LiveEvents, event, send, wallet_id

# After ours: it says what to do where this module is not there.
from confluent_kafka import Consumer, Producer, TopicPartition

PART = "rebalance"
WALLETS = 20_000
TOPUP_USD = 250
STAY_S_TARGET, MOVE_S_TARGET = 3.0, 5.0
# The defaults, said here because the target of a kill rests on them.
SESSION_S, TRANSACTION_S = 10.0, 10.0
RESTORE_S = 5.0
# Before a change: the load must be as usual. After it: what comes late is part of it.
QUIET_S, SETTLE_S = 5.0, 6.0
WAIT_S, POLL_S = 90.0, 0.1


class Follower:
    """Reads the ledger as it is committed: when each shard's records came, and which events were charged."""

    def __init__(self, deployment: Deployment) -> None:
        self.consumer = Consumer({**deployment.consumer_settings("read_committed"), "fetch.wait.max.ms": 20})
        self.consumer.assign([TopicPartition(deployment.topic("ledger", PART), shard, 0) for shard in range(SHARDS)])
        self.lock = threading.Lock()
        self.came: dict[int, list[float]] = defaultdict(list)
        self.charged: dict[str, int] = defaultdict(int)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self) -> None:
        while not self.stopping.is_set():
            for message in self.consumer.consume(1_000, timeout=0.05):
                if message.error() is not None:
                    continue
                at = time.monotonic()
                entry = json.loads(message.value())["entries"][0]
                with self.lock:
                    self.came[message.partition()].append(at)
                    if entry["entry_type"] == "charged":
                        self.charged[entry["event_id"]] += 1
        self.consumer.close()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()

    def pauses_s(self, since: float) -> dict[int, float]:
        """Of each shard: the longest time without a record, from the last one before then until now."""
        with self.lock:
            pauses = {}
            for shard in range(SHARDS):
                times = [at for at in self.came[shard] if at >= since - QUIET_S]
                times.append(time.monotonic())
                pauses[shard] = max(later - earlier for earlier, later in zip([since, *times], times) if later > since)
            return pauses

    def has_records_since(self, since: float) -> bool:
        with self.lock:
            return all(self.came[shard] and self.came[shard][-1] > since for shard in range(SHARDS))


@dataclass
class Times:
    """The longest pauses of a kind of change, over all rounds."""

    stay_s: list[float] = field(default_factory=list)
    move_s: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2_000, help="live events a second")
    parser.add_argument("--rounds", type=int, default=3)
    add_settings_option(parser)
    options = parser.parse_args()
    return run(options, lambda deployment: measure(deployment, options))


def measure(deployment: Deployment, options: argparse.Namespace) -> None:
    config = deployment.write_config(PART)
    deployment.command(BINARY, config, "init")
    with ExitStack() as running:
        Rebalances(deployment, config, running, options.rate).run(options.rounds)


class Rebalances:
    """One measurement, in the order of its methods."""

    def __init__(self, deployment: Deployment, config: Path, running: ExitStack, rate: int) -> None:
        self.deployment, self.config, self.running = deployment, config, running
        self.live = LiveEvents(deployment, PART, rate, WALLETS)
        self.times: dict[str, Times] = defaultdict(Times)

    def start(self, name: str, store: str) -> Instance:
        settings = {"ledger.instance": name, "store.path": str(self.deployment.folder / store)}
        return self.running.enter_context(self.deployment.instance(BINARY, self.config, name, settings=settings))

    def run(self, rounds: int) -> None:
        self.first = self.start("first", "store-first")
        self.load()
        self.follower = Follower(self.deployment)
        self.live.start()
        begun = time.monotonic()
        try:
            for number in range(rounds):
                self.round(number)
        finally:
            self.live.stop()
        rate = self.live.sent / (time.monotonic() - begun)
        self.check_books()
        self.report(rate)

    def load(self) -> None:
        producer = Producer(self.deployment.producer_settings())
        for number in range(WALLETS):
            wallet = wallet_id(number)
            data = f'{{"topup_id":"t","amount_usd":{TOPUP_USD}}}'
            send(producer, self.deployment.topic("wallet", PART), wallet, event("topup", "topup.purchased", wallet, data))
        if producer.flush(KAFKA_TIMEOUT_S) > 0:
            raise BenchError("the broker did not take all top-ups")
        wait_until("all wallets have their credits",
                   lambda: self.first.metrics().sum("events_total", outcome="granted") == WALLETS)

    def round(self, number: int) -> None:
        store = f"store-second-{number}"
        second = self.changed("a second instance joins, without state", lambda: self.start(f"second-{number}", store))
        self.changed("it leaves", second.stop, gone=second)
        second = self.changed("it joins again, with local state", lambda: self.start(f"again-{number}", store))
        self.changed("it is killed, and not started again", lambda: kill(second), gone=second)

    def changed(self, what: str, act: Callable[[], Instance | None], gone: Instance | None = None) -> Instance:
        """Do it, wait until all shards are served again, and note how long each of them stood still."""
        time.sleep(QUIET_S)
        others = [self.first] if gone is None else [self.first, gone]
        before = owners(others)
        since = time.monotonic()
        come = act()
        serving = [self.first] if come is None else [self.first, come]
        wait_until(f"{what}: all shards are served", lambda: all(one.is_ready() for one in serving)
                   and sum(one.metrics().sum("shards_owned") for one in serving) == SHARDS)
        ready = time.monotonic()
        wait_until(f"{what}: records of all shards", lambda: self.follower.has_records_since(ready))
        time.sleep(SETTLE_S)
        pauses, after = self.follower.pauses_s(since), owners(serving)
        times = self.times[what]
        stayed = [pauses[shard] for shard in range(SHARDS) if before[shard] == after[shard]]
        moved = [pauses[shard] for shard in range(SHARDS) if before[shard] != after[shard]]
        times.stay_s.extend(stayed)
        times.move_s.extend(moved)
        print(f"{what}: {len(stayed)} shards stay, {longest(stayed)}; {len(moved)} move, {longest(moved)}", flush=True)
        return come or self.first

    def check_books(self) -> None:
        """Every event that was sent is charged once."""
        wait_until("all events are charged", lambda: len(self.follower.charged) >= self.live.sent)
        self.follower.stop()
        doubles = [name for name, count in self.follower.charged.items() if count > 1]
        if doubles or len(self.follower.charged) != self.live.sent:
            raise BenchError(f"{self.live.sent:,} events were sent, {len(self.follower.charged):,} are charged, "
                             f"{len(doubles):,} of them more than once: {doubles[:3]}")

    def report(self, rate: float) -> None:
        build = next(labels for labels, _ in self.first.metrics().of("build_info"))
        print(f"creditstream {build['version']}, commit {build['revision']}; {len(os.sched_getaffinity(0))} cores, "
              f"load {os.getloadavg()[0]:.2f}; {rate:,.0f} live events/s, {SHARDS} shards; every event charged once")
        killed_s = SESSION_S + TRANSACTION_S + RESTORE_S
        for what, times in self.times.items():
            if "without state" in what:
                move = "(no target)"
            else:
                target = killed_s if "killed" in what else MOVE_S_TARGET
                move = f"({verdict(max(times.move_s) < target)}: within {target:.0f} s)"
            # The others are restored with the shards of the one that was killed, and so wait for its open transaction.
            stay = ("(no target)" if "killed" in what else
                    f"({verdict(max(times.stay_s) < STAY_S_TARGET)}: below {STAY_S_TARGET:.0f} s)")
            print(f"{what}: shards that stay {longest(times.stay_s)} {stay}; that move {longest(times.move_s)} {move}")


def kill(instance: Instance) -> None:
    instance.process.kill()
    instance.process.wait()


def owners(instances: list[Instance]) -> dict[int, str]:
    """Which instance reads each shard's intake."""
    found: dict[int, str] = {}
    for instance in instances:
        for labels, _ in instance.metrics().of("lag_records"):
            if labels["topic"].endswith("intake"):
                found[int(labels["partition"])] = instance.address
    if len(found) != SHARDS:
        raise BenchError(f"not every shard has an owner: {found}")
    return found


def longest(pauses_s: list[float]) -> str:
    return f"at most {max(pauses_s):.2f} s" if pauses_s else "none"


def verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
