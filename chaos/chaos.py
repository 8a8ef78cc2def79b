"""Three instances, Kafka, ClickHouse and their connections under fire, and the proof that no credit went wrong.

    make chaos MINUTES=10 SEED=1
    make chaos MINUTES=10 SEED=1 BROKERS=3      every partition on three brokers, two of which must have a record

Faults come one after the other in an order that the seed decides, every kind once per round; one in four hits before the
one before is recovered from. At the end the load stops, and everything that was sent is accounted for (proof.py).
Exit code: 0 proven, every kind fired often enough, no instance ended by itself or badly; 1 it failed; 75 no verdict, for the
harness could not go on; 130 interrupted.
Report, logs and configuration stay in the stack's folder, under chaos/.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# No __pycache__ beside the sources.
sys.dont_write_bytecode = True

try:
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

    import cluster as clusters
    import report
    from cluster import LEDGER_GROUP, SHARDS, SINK_GROUP, TOPICS, ChaosError, Cluster, clock
    from faults import FAULTS
    from load import Load
    from processes import StackError
    from proof import Result, prove
    from reading import ends
except ModuleNotFoundError as missing:
    sys.exit(f"chaos: Python module {missing.name} is not there: run `make chaos`, which uses the stack's Python")

EVENTS_PER_S = 300
# In a run of at least so many minutes every kind must have come three times; in a shorter one, once.
LONG_MINUTES = 10
OVERLAP_SHARE = 0.25
RECOVER_WAIT_S = 180
# After so long an operator looks whether the broker left a transaction open.
LOOK_FOR_HANGING_S = 70
POLL_S = 0.25
ANSWER_WAIT_S = 5
WATCH_S = 0.2
# From the end of the load until everything must agree.
PROOF_WAIT_S = 240
# As `creditstream` ends where it may be tried again.
EXIT_NO_VERDICT = 75


class Run:
    """One run, and what it learnt."""

    def __init__(self, cluster: Cluster, minutes: float, seed: int, kinds: list[str]) -> None:
        self.cluster, self.minutes, self.seed, self.kinds = cluster, minutes, seed, kinds
        self.chance = random.Random(seed)
        self.load = Load(cluster, seed, EVENTS_PER_S)
        self.admin = cluster.admin()
        self.began = time.monotonic()
        self.began_at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self.events: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.overlapped = 0
        self.aborted: list[str] = []
        self._ended = threading.Event()
        self._state = ""

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:8.1f} s  {text}", flush=True)

    def run(self) -> bool:
        """From nothing to the report; whether it passed."""
        self.cluster.prepare()
        self.say(f"Kafka at {self.cluster.brokers} and ClickHouse at {self.cluster.clickhouse_url} are up")
        self.load.set_up()
        for instance in self.cluster.instances:
            self.cluster.start_instance(instance)
        watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        watcher.start()
        self.load.start()
        recovered_s = self.recover()
        if recovered_s is None:
            self.failures.append(f"the instances did not begin to serve within {RECOVER_WAIT_S} s: {self._state}")
        else:
            self.say(f"three instances serve all {SHARDS} shards; {EVENTS_PER_S} events/s")
            self.fire()
        result, proof_s = self.settle()
        for instance in self.cluster.instances:
            self.cluster.end_instance(instance, signal.SIGTERM)
        self._ended.set()
        watcher.join()
        return self.report(result, proof_s)

    def fire(self) -> None:
        """Rounds of all kinds until the time is over and every kind came often enough, in at most twice the time: a transaction
        that the broker leaves open takes more than a minute of it."""
        needed = 3 if self.minutes >= LONG_MINUTES else 1
        end = time.monotonic() + self.minutes * 60
        last = end + self.minutes * 60
        number = 0
        while True:
            kind = self._kind(number)
            is_enough = number >= needed * len(self.kinds)
            if time.monotonic() > (end if is_enough else last):
                break
            self._fire_one(number, kind)
            number += 1
        fired = report.kinds(self.events)
        self.failures += [f"{kind} fired {fired[kind]['fired']} times, not {needed}"
                          for kind in self.kinds if fired[kind]["fired"] < needed]

    def _kind(self, number: int) -> str:
        """The order within a round depends on seed and round alone."""
        order = sorted(self.kinds)
        random.Random(f"{self.seed}/{number // len(order)}").shuffle(order)
        return order[number % len(order)]

    def _fire_one(self, number: int, kind: str) -> None:
        chance = random.Random(f"{self.seed}/{number}/{kind}")
        overlaps = chance.random() < OVERLAP_SHARE
        at = clock()
        detail = FAULTS[kind](self.cluster, self.load, chance)
        recovered_s = None
        if overlaps:
            self.overlapped += 1
            outcome = "the next one follows at once"
        else:
            recovered_s = self.recover()
            outcome = f"recovered after {recovered_s:.1f} s" if recovered_s is not None else "NOT RECOVERED"
            if recovered_s is None:
                self.failures.append(f"{kind} ({detail}) at {at}: not recovered within {RECOVER_WAIT_S} s: {self._state}")
        self.say(f"{kind}: {detail}; {outcome}")
        self.events.append({"at": at, "kind": kind, "detail": detail, "overlapped": overlaps,
                            "recovered_s": recovered_s})

    def recover(self) -> float | None:
        """Seconds until all serve again and have passed what was there at the call; None if that does not come."""
        began = time.monotonic()
        look_at = began + LOOK_FOR_HANGING_S
        targets: dict[str, dict[tuple[str, int], int]] = {}
        while time.monotonic() - began < RECOVER_WAIT_S:
            if time.monotonic() > look_at:
                look_at += LOOK_FOR_HANGING_S
                if aborted := self.cluster.abort_hanging():
                    self.aborted.append(f"{clock()}: {aborted} partitions")
                    self.say(f"the broker had left transactions open in {aborted} partitions; aborted")
            try:
                if not targets:
                    targets = {
                        # Not the wallet events: they are quiet, and what is quiet after a reset commits nothing.
                        LEDGER_GROUP: ends(self.cluster.brokers, [TOPICS["generation"], TOPICS["intake"]]),
                        SINK_GROUP: ends(self.cluster.brokers, [TOPICS["ledger"]])}
                if self._serves() and all(self._passed(group, wanted) for group, wanted in targets.items()):
                    return time.monotonic() - began
            except KafkaException as error:
                self._state = str(error)
                # A client may hold on to a coordinator that is gone.
                self.admin = self.cluster.admin()
            time.sleep(POLL_S)
        return None

    def _serves(self) -> bool:
        metrics = [instance.metrics() if instance.is_ready() else None for instance in self.cluster.instances]
        owned = [None if one is None else one.sum("shards_owned") for one in metrics]
        self._state = f"shards by instance {owned}"
        return None not in owned and sum(count or 0 for count in owned) == SHARDS

    def _passed(self, group: str, wanted: dict[tuple[str, int], int]) -> bool:
        request = [ConsumerGroupTopicPartitions(group)]
        answer = self.admin.list_consumer_group_offsets(request, request_timeout=ANSWER_WAIT_S)[group].result()
        committed = {(one.topic, one.partition): one.offset for one in answer.topic_partitions}
        behind = [f"{topic}/{number} at {committed.get((topic, number), 0)} of {end}"
                  for (topic, number), end in wanted.items() if committed.get((topic, number), 0) < end]
        self._state = f"{group}: {len(behind)} partitions behind, {behind[:2]}"
        return not behind

    def settle(self) -> tuple[Result, float]:
        """Stop the load, and compare until all agree or time is over. What was doubled or lost stays so."""
        self.say("load stops")
        self.load.stop()
        began = time.monotonic()
        while True:
            result = prove(self.cluster, self.load.books)
            took_s = time.monotonic() - began
            if not result.faults or took_s > PROOF_WAIT_S:
                return result, took_s
            self.say(f"not quiet yet: {result.faults[0]}")
            time.sleep(3)

    def report(self, result: Result, proof_s: float) -> bool:
        findings = list(self.cluster.findings)
        passed = not (result.faults or findings or self.failures)
        version = subprocess.run([str(self.cluster.binary), "--version"], capture_output=True, text=True, check=False)
        facts = {
            "passed": passed, "proven": not result.faults, "began": self.began_at, "minutes": self.minutes,
            "seed": self.seed, "brokers": len(self.cluster.kafka), "command": self._command(),
            "version": version.stdout.strip(), "events_per_s": EVENTS_PER_S, "shards": SHARDS, "copies": self.load.copies,
            "generator_retries": self.load.sent_again_by_generator, "doubles": result.doubles, "lost": result.lost,
            "proof_s": round(proof_s, 1), "overlapped": self.overlapped, "aborted": self.aborted, "gave_up": self.cluster.gave_up,
            "kinds": report.kinds(self.events),
            "figures": result.figures, "faults": result.faults, "findings": findings, "failures": self.failures,
            "events": self.events}
        print("\n" + report.write(self.cluster.folder, facts))
        print(f"report: {self.cluster.folder / 'report.md'} and report.json; logs beside it")
        return passed

    def _command(self) -> str:
        brokers = len(self.cluster.kafka)
        return f"make chaos MINUTES={self.minutes:g} SEED={self.seed}" + (f" BROKERS={brokers}" if brokers > 1 else "")

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_S):
            self.cluster.watch()

    def close(self) -> None:
        self._ended.set()
        self.load.close()
        self.cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults from a seed, and the proof of every credit.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--only", default="", metavar="KIND,KIND", help=f"of {', '.join(FAULTS)}")
    options = parser.parse_args()
    kinds = [kind for kind in options.only.split(",") if kind] or list(FAULTS)
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    binary = os.environ.get("CREDITSTREAM_BIN") or clusters.CHECKOUT / "target" / "release" / "creditstream"
    # A run that is ended must end its children, whoever asks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run = Run(clusters.build(Path(binary).absolute(), options.brokers), options.minutes, options.seed, kinds)
        try:
            return 0 if run.run() else 1
        finally:
            run.close()
    except (ChaosError, StackError, KafkaException) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return EXIT_NO_VERDICT
    except KeyboardInterrupt:
        print("chaos: interrupted; everything that it started has ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
