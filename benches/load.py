"""The ledger stage at full load from a backlog, read again and again, and what those readings say."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployment import BINARY, START_WAIT_S, BenchError, Deployment, Instance, Metrics
from ledger_stage import NOT_FINAL, Bench

POLL_S = 0.25
# A backlog that is gone through slower than this hangs.
EVENTS_PER_S_MIN = 5_000
# On two busy cores an answer may be late. So often, and the run is given up.
TRIES = 5
# What becomes of records of the wallet topic; everything else is usage.
WALLET_OUTCOMES = ("contract", "granted", "adjusted", "limits")

R = TypeVar("R", bound="Reading")


@dataclass(frozen=True)
class Reading:
    """What an instance has done at one moment."""

    at: float
    processed: int
    of_wallets: int
    cpu_s: float
    broker_cpu_s: float
    rss_mb: int
    lag: int
    # Partitions of usage that are not at their end.
    behind: int
    transactions: int
    transactions_s: float
    batched: int

    @classmethod
    def of(cls, instance: Instance, deployment: Deployment) -> Reading:
        metrics = metrics_of(instance)
        final = [(labels, int(value)) for labels, value in metrics.of("events_total") if labels["outcome"] not in NOT_FINAL]
        lags = [(labels, int(value)) for labels, value in metrics.of("lag_records")]
        usage = deployment.topic("generation", "")
        return cls(
            at=time.monotonic(),
            processed=sum(count for _, count in final),
            of_wallets=sum(count for labels, count in final if labels["outcome"] in WALLET_OUTCOMES),
            cpu_s=instance.cpu_s(), broker_cpu_s=deployment.broker_cpu_s(), rss_mb=instance.rss_mb(),
            lag=sum(lag for _, lag in lags),
            behind=sum(1 for labels, lag in lags if labels["topic"] == usage and lag > 0),
            transactions=metrics.sum("transaction_duration_seconds_count"),
            transactions_s=sum(value for _, value in metrics.of("transaction_duration_seconds_sum")),
            batched=metrics.sum("batch_events_sum"))


@dataclass(frozen=True)
class Load:
    """Between two readings. CPU in µs a record."""

    records: int
    seconds: float
    records_per_s: float
    usage_per_s: float
    own_micros: float
    broker_micros: float
    rss_mb: int
    transaction_ms: float
    transaction_records: float

    @classmethod
    def between(cls, first: Reading, last: Reading) -> Load:
        records = last.processed - first.processed
        seconds = max(last.at - first.at, 1e-3)
        usage = records - (last.of_wallets - first.of_wallets)
        micros = 1e6 / max(records, 1)
        transactions = max(last.transactions - first.transactions, 1)
        return cls(
            records, seconds, records / seconds, usage / seconds, (last.cpu_s - first.cpu_s) * micros,
            (last.broker_cpu_s - first.broker_cpu_s) * micros, last.rss_mb,
            (last.transactions_s - first.transactions_s) / transactions * 1000, (last.batched - first.batched) / transactions)

    def print(self, name: str) -> None:
        print(f"{name}: {self.usage_per_s:,.0f} usage events/s, {self.records_per_s:,.0f} records/s, ours {self.own_micros:.2f} "
              f"µs/record, broker's {self.broker_micros:.2f}, RSS {self.rss_mb:,} MB, transactions of {self.transaction_records:,.0f} "
              f"records and {self.transaction_ms:.0f} ms, {self.seconds:.1f} s", flush=True)


def metrics_of(instance: Instance) -> Metrics:
    for _ in range(TRIES - 1):
        try:
            return instance.metrics()
        except OSError:
            time.sleep(POLL_S)
    return instance.metrics()


def while_even(readings: list[R]) -> list[R]:
    """As long as no partition of usage is at its end: after that there is less to do side by side."""
    most = max(reading.behind for reading in readings)
    last = max(place for place, reading in enumerate(readings) if reading.behind == most)
    return readings[:last + 1] if last > 0 else readings


def of_last(readings: list[R], records: int) -> Load:
    """What the last so many records took, or a few more: from the reading before them."""
    before = [reading for reading in readings if reading.processed <= readings[-1].processed - records]
    return Load.between(before[-1] if before else readings[0], readings[-1])


def readings_of(instance: Instance, deployment: Deployment, records: int, poll_s: float = POLL_S) -> Iterator[Reading]:
    """From the first record that is processed to the last."""
    deadline = time.monotonic() + START_WAIT_S + records / EVENTS_PER_S_MIN
    while (now := Reading.of(instance, deployment)).processed < records:
        if time.monotonic() > deadline:
            raise BenchError(f"{now.processed:,} of {records:,} records were processed when time was up")
        if now.processed > 0:
            yield now
        time.sleep(poll_s)
    yield now


def full_load(instance: Instance, deployment: Deployment, records: int) -> list[Reading]:
    """One backlog."""
    return list(readings_of(instance, deployment, records))


def warm_up(bench: Bench, records: int, rounds: int) -> None:
    """What a broker needs that has just started."""
    for number in range(rounds):
        with bench.deployment.ledger_stage(BINARY, f"warm{number}") as instance:
            readings = full_load(instance, bench.deployment, records)
        Load.between(readings[0], readings[-1]).print("warm-up")


def another(settings: list[str], events: int, wallets: int, folder: Path, suffix: str, cleanup: ExitStack) -> Bench:
    """A deployment of its own, gone in the end."""
    folder = folder / suffix
    folder.mkdir()
    options = argparse.Namespace(set=settings, events=events, wallets=wallets, pass_through=None, binary=[BINARY])
    bench = Bench(options, folder, suffix)
    cleanup.callback(bench.deployment.close)
    return bench
