"""The first of a month: the allocations of all wallets fall due in one second, while usage goes on.

    make bench-month                                    1,000,000 wallets, 1,000 live events a second
    make bench-month BENCH="--wallets 200000"           fewer wallets
    make bench-month BENCH="--set ledger.workers=2"     another setting of the ledger stage

Every wallet begins a contract one month before an instant T that is a few minutes ahead, through the real binary and the
local Kafka. From before T until all is posted, usage is sent with the time as it is. At T all allocations fall due.
Targets: they are posted at 60,000 a second or faster, in bounded steps; live events are in the balance within 500 ms
(p99). Said for each is whether it was met. Exit code 1: the run did not get through, or a wallet did not get exactly one
allocation. All topics, the consumer group and the database are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

sys.dont_write_bytecode = True

from deployment import BINARY, SHARDS, BenchError, Deployment, Instance, Metrics, add_settings_option, machine_cpu_seconds, run
from latency import Latency
from live import KAFKA_TIMEOUT_S, LiveEvents, event, send, text_of, wallet_id

# After ours: it says what to do where this module is not there.
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

ALLOCATIONS_PER_S_TARGET = 60_000
LATENCY_S_TARGET = 0.5
# No step may be larger than what is computed in some 100 ms.
STEP_RECORDS_TARGET = 20_000

PART = "month"
PLAN, ALLOCATION = "lite", 200
# From the start of loading to T: for starting, and for as many wallets a second to be loaded and saved.
LEAD_S, LEAD_WALLETS_PER_S = 45, 7_000
# Live events before T: not looked at, then the baseline.
WARM_UP_S, BASELINE_S = 5, 20
# Slower than this, the posting hangs.
POSTED_PER_S_MIN, PATIENCE_S = 5_000, 60
POLL_S = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wallets", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1_000, help="live events a second")
    add_settings_option(parser)
    options = parser.parse_args()
    return run(options, lambda deployment: measure(deployment, options))


def measure(deployment: Deployment, options: argparse.Namespace) -> None:
    with deployment.ledger_stage(BINARY, PART) as instance:
        FirstOfMonth(deployment, instance, options).run()


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    at: float
    metrics: Metrics
    cpu_s: float
    broker_cpu_s: float
    machine_cpu_s: float

    @property
    def granted(self) -> int:
        return self.metrics.sum("credits_total", flow="granted")

    @property
    def charged(self) -> int:
        return self.metrics.sum("events_total", outcome="charged")

    @property
    def transactions(self) -> int:
        return self.metrics.sum("transactions_total")


class FirstOfMonth:
    """One run, in the order of its methods."""

    def __init__(self, deployment: Deployment, instance: Instance, options: argparse.Namespace) -> None:
        self.deployment, self.instance = deployment, instance
        self.wallets, self.rate = options.wallets, options.rate
        lead = timedelta(seconds=LEAD_S + self.wallets / LEAD_WALLETS_PER_S)
        self.due_at = (datetime.now(UTC) + lead).replace(microsecond=0)
        self.starts_at, self.months_before = a_month_before(self.due_at)
        self.live = LiveEvents(deployment, PART, self.rate, self.wallets)

    def run(self) -> None:
        self.load()
        quiet = self.wait_until_quiet()
        ends_before = ends_of(self.deployment, self.deployment.topic("ledger", PART))
        load_average = os.getloadavg()[0]
        self.live.start()
        try:
            self.sleep_until(-BASELINE_S)
            baseline = self.read(), self.read_at(-1)
            readings = self.watch_posting()
        finally:
            self.live.stop()
        readings.append(self.wait_until_charged())
        step, step_with_events = self.check_ledger(ends_before)
        self.report_machine(load_average, quiet)
        self.report(baseline, readings, step, step_with_events)

    def load(self) -> None:
        """Every wallet's contract, and the allocations due before T."""
        begun = time.monotonic()
        producer = Producer(self.deployment.producer_settings())
        topic = self.deployment.topic("wallet", PART)
        data = json.dumps({"contract_id": "c1", "plan": PLAN, "starts_at": text_of(self.starts_at)})
        for number in range(self.wallets):
            wallet = wallet_id(number)
            send(producer, topic, wallet, event("start", "contract.started", wallet, data))
        if producer.flush(KAFKA_TIMEOUT_S) > 0:
            raise BenchError("the broker did not take all contracts")
        self.granted_before = self.wallets * ALLOCATION * self.months_before
        while (granted := self.read().granted) < self.granted_before:
            if self.seconds_to_due() < WARM_UP_S + BASELINE_S:
                raise BenchError(f"{granted:,} of {self.granted_before:,} credits were granted in time: fewer --wallets")
            time.sleep(POLL_S)
        print(f"{self.wallets:,} wallets loaded in {time.monotonic() - begun:.0f} s; "
              f"their next allocation is due at {text_of(self.due_at)}", flush=True)

    def wait_until_quiet(self) -> bool:
        """Until the latest states of all wallets are saved, or live events must begin."""
        last, since = -1, time.monotonic()
        while self.seconds_to_due() > WARM_UP_S + BASELINE_S:
            transactions = self.read().transactions
            if transactions != last:
                last, since = transactions, time.monotonic()
            time.sleep(POLL_S)
        return time.monotonic() - since > 2

    def watch_posting(self) -> list[Reading]:
        """Readings from the last one before the first allocation to the first one after the last."""
        readings = [self.read_at(-0.5)]
        granted_after = self.granted_before + self.wallets * ALLOCATION
        deadline = time.monotonic() + PATIENCE_S + self.wallets / POSTED_PER_S_MIN
        while (now := self.read()).granted < granted_after:
            if now.granted == self.granted_before:
                readings.clear()
            readings.append(now)
            if time.monotonic() > deadline:
                raise BenchError(f"{self.posted(now):,} of {self.wallets:,} allocations were posted when time was up")
            time.sleep(POLL_S)
        return [*readings, now]

    def wait_until_charged(self) -> Reading:
        """All live events are in a balance: none that waited is left out of the figures."""
        deadline = time.monotonic() + PATIENCE_S
        while (now := self.read()).charged < self.live.sent:
            if time.monotonic() > deadline:
                raise BenchError(f"{now.charged:,} of {self.live.sent:,} live events were charged when time was up")
            time.sleep(POLL_S)
        found = now.granted, now.metrics.sum("credits_total", flow="charged"), now.metrics.sum("quarantined_events_total")
        expected = self.granted_before + self.wallets * ALLOCATION, self.live.sent, 0
        if found != expected:
            raise BenchError(f"credits granted, credits charged, events quarantined: {found}, expected {expected}")
        return now

    def check_ledger(self, ends_before: list[int]) -> tuple[int, int]:
        """Exactly one allocation for each wallet, in the ledger itself. The largest step: records of allocations in one
        transaction, and all of its records."""
        allocations = bytearray(self.wallets)
        # What one transaction posts has one posted time.
        steps: Counter[str] = Counter()
        records: Counter[str] = Counter()
        due_times: Counter[str] = Counter()
        for value in read_from(self.deployment, self.deployment.topic("ledger", PART), ends_before):
            record = json.loads(value)
            entry = record["entries"][0]
            records[entry["posted_at"]] += 1
            if "event_id" in entry:
                continue
            steps[entry["posted_at"]] += 1
            due_times[entry["event_time"]] += 1
            number = int(record["wallet_id"].removeprefix("ws_"))
            if entry["entry_type"] != "granted" or entry["credits"] != ALLOCATION or allocations[number]:
                raise BenchError(f"expected one allocation of {ALLOCATION} credits a wallet, found also: {value.decode()}")
            allocations[number] = 1
        if (missing := allocations.count(0)) > 0:
            raise BenchError(f"{missing:,} wallets got no allocation")
        if any(datetime.fromisoformat(due) != self.due_at for due in due_times):
            raise BenchError(f"all allocations are due at {text_of(self.due_at)}, found {dict(due_times)}")
        return max(steps.values()), max(records[posted_at] for posted_at in steps)

    def report_machine(self, load_average: float, quiet: bool) -> None:
        build = next(labels for labels, _ in self.read().metrics.of("build_info"))
        settings = f", {' '.join(self.deployment.settings)}" if self.deployment.settings else ""
        print(f"creditstream {build['version']}, commit {build['revision']}{settings}; "
              f"{len(os.sched_getaffinity(0))} cores, load {load_average:.2f} before live events began; "
              f"wallets were {'all saved' if quiet else 'still being saved'} then")

    def report(self, baseline: tuple[Reading, Reading], readings: list[Reading], step: int, step_with_events: int) -> None:
        first, posted, last = readings[0], readings[-2], readings[-1]
        seconds = posted.at - first.at
        rate = self.wallets / seconds
        before, during = (Latency.between(begun.metrics, ended.metrics) for begun, ended in (baseline, (first, last)))
        print(f"allocations posted: {self.wallets:,} in {seconds:.1f} s, {rate:,.0f} a second; begun "
              f"{first.at - self.due_monotonic():+.1f} s after they were due"
              f" ({verdict(rate >= ALLOCATIONS_PER_S_TARGET)}: at least {ALLOCATIONS_PER_S_TARGET:,})")
        print(f"largest step: {step:,} allocations, {step_with_events:,} ledger records in all"
              f" ({verdict(step_with_events <= STEP_RECORDS_TARGET)}: at most {STEP_RECORDS_TARGET:,})")
        print(f"event to balance, before:  {told(before)}")
        print(f"event to balance, posting: {told(during)}"
              f" ({verdict(during.quantile_s(0.99) < LATENCY_S_TARGET)}: p99 below {LATENCY_S_TARGET * 1000:.0f} ms)")
        count = growth(first, posted, "transaction_duration_seconds_count")
        spent_s = growth(first, posted, "transaction_duration_seconds_sum")
        print(f"while posting: {(posted.charged - first.charged) / seconds:,.0f} live events/s charged; "
              f"{count:,.0f} transactions of {spent_s / max(count, 1) * 1000:.0f} ms; cores used: "
              f"ours {(posted.cpu_s - first.cpu_s) / seconds:.2f}, "
              f"broker's {(posted.broker_cpu_s - first.broker_cpu_s) / seconds:.2f}, "
              f"in all {(posted.machine_cpu_s - first.machine_cpu_s) / seconds:.2f}")
        print("each wallet got exactly one allocation; credits granted and charged are exactly right")

    def posted(self, reading: Reading) -> int:
        return (reading.granted - self.granted_before) // ALLOCATION

    def read(self) -> Reading:
        metrics = self.instance.metrics()
        cpu_s = self.instance.cpu_s(), self.deployment.broker_cpu_s(), machine_cpu_seconds()
        return Reading(time.monotonic(), metrics, *cpu_s)

    def read_at(self, seconds_after_due: float) -> Reading:
        self.sleep_until(seconds_after_due)
        return self.read()

    def sleep_until(self, seconds_after_due: float) -> None:
        time.sleep(max(0.0, self.seconds_to_due() + seconds_after_due))

    def seconds_to_due(self) -> float:
        return (self.due_at - datetime.now(UTC)).total_seconds()

    def due_monotonic(self) -> float:
        return time.monotonic() + self.seconds_to_due()


def told(latency: Latency) -> str:
    return (f"p50 {latency.quantile_s(0.5) * 1000:.0f} ms, p99 {latency.quantile_s(0.99) * 1000:.0f} ms, "
            f"{latency.above(LATENCY_S_TARGET):,} of {latency.count:,} events above {LATENCY_S_TARGET * 1000:.0f} ms")


def growth(first: Reading, last: Reading, name: str) -> float:
    """Of a metric without labels, between two readings."""
    def value(reading: Reading) -> float:
        return sum(value for _, value in reading.metrics.of(name))

    return value(last) - value(first)


def verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


def a_month_before(at: datetime) -> tuple[datetime, int]:
    """The same day of the month before, and 1; where it has no such day, of the one before that, and 2."""
    for months in (1, 2):
        year, month = divmod(at.year * 12 + at.month - 1 - months, 12)
        try:
            return at.replace(year=year, month=month + 1), months
        except ValueError:
            continue
    raise BenchError(f"no month has this day: {at}")


def ends_of(deployment: Deployment, topic: str) -> list[int]:
    consumer = Consumer(deployment.consumer_settings("read_uncommitted"))
    try:
        partitions = [TopicPartition(topic, shard) for shard in range(SHARDS)]
        return [consumer.get_watermark_offsets(partition, timeout=KAFKA_TIMEOUT_S)[1] for partition in partitions]
    finally:
        consumer.close()


def read_from(deployment: Deployment, topic: str, offsets: list[int]) -> Iterator[bytes]:
    """Values of all committed records from these offsets to the end as of now."""
    ends = ends_of(deployment, topic)
    consumer = Consumer(deployment.consumer_settings("read_committed"))
    deadline = time.monotonic() + PATIENCE_S + sum(ends) / POSTED_PER_S_MIN
    open_partitions = {shard for shard in range(SHARDS) if offsets[shard] < ends[shard]}
    try:
        consumer.assign([TopicPartition(topic, shard, offsets[shard]) for shard in open_partitions])
        while open_partitions:
            if time.monotonic() > deadline:
                raise BenchError(f"{topic} was not read to its end when time was up")
            for message in consumer.consume(10_000, timeout=1):
                error = message.error()
                if error is None:
                    yield message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    # A transaction that is still open ends before that end.
                    if message.offset() >= ends[message.partition()]:
                        open_partitions.discard(message.partition())
                else:
                    raise BenchError(f"{topic}: {error.str()}")
    finally:
        consumer.close()


if __name__ == "__main__":
    sys.exit(main())
