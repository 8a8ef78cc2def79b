"""Whether it lasts: full load until 100,000,000 identities of 1,000,000 wallets are remembered, then 20,000 live events/s for long.

    make bench-soak                                       65 minutes, 45 GB of disk
    make bench-soak BENCH="--events 5700000"              a tenth of the identities
    make bench-soak BENCH="--live-minutes 5 --publish"    a shorter live part; table and plot go into docs/performance.md
    make bench-soak BENCH="--again --publish"             nothing is measured: table and plot of what the last run left

A backlog of --events usage events and another one of 2,000,000 events of 100,000 wallets are made. The ledger stage goes through the
small one, through the large one, and, while the instance of that has nothing to do, through the small one again. Then that
instance gets live events: a minute of 1,000/s, and --live-minutes of --live-rate. Every 10 seconds all is read that could
grow: memory, file handles, threads, lag, the local store, Kafka's files. At last it is started again, from the local store and
without it. Nothing is forgotten meanwhile: all lies within the horizon. The local store is bounded by its identities, some 43 bytes
each, of which those that are being merged are there twice until the next checkpoint, and by the checkpoint of wallets. For the live
part the usage topic gets a retention of 64 MiB a partition, and the compacted topics small segments; else all would be above 40 GB.

Figures go to bench-soak.json in the stack's folder as they come. Each target is told with whether it was met: throughput of the
last 5,000,000 records at least 0.8 of the small case, RSS at most 2 GB, and in the live part no growth of RSS beyond what
the filters of new identities take, of lag or file handles, and all data below 40 GB. All topics, groups and databases are
deleted at the end. Exit code 1: something did not get through; no figure makes it fail.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

sys.dont_write_bytecode = True

from deployment import BINARY, OUTPUTS, SOURCES, START_WAIT_S, BenchError, Deployment, Instance, add_settings_option, exit_code
from document import heading, last_figures, publish, run_facts, save, table
from latency import Latency
from load import (
    EVENTS_PER_S_MIN, Load, Reading, another, full_load, metrics_of, of_last, readings_of, warm_up, while_even)
from plot import Panel, Series, plot
from restore import restart, show
from steady import generating, latency_at

from components import Stack

TARGET = "bench-soak"
PART = "soak"
SMALL_WALLETS, SMALL_EVENTS = 100_000, 2_000_000
LAST_RECORDS = 5_000_000
THROUGHPUT_RATIO_MIN, RSS_MB_MAX, DATA_BYTES_MAX = 0.8, 2_000, 40e9
# Of the live part, where RSS, lag and file handles are compared with the end.
SETTLED_S = 300
# More than this is growth; less is how an allocator breathes, or which segments happen to be merged.
RSS_GROWTH_MAX, FILES_GROWTH_MAX = 1.1, 20
QUIET_RATE, QUIET_S = 1_000, 20
QUIET_SEED, LIVE_SEED = 2, 3
POLL_S, SAMPLE_S, MINUTE_S = 0.5, 10, 60
# How long the last live events may take.
DRAIN_S = 60

# For planning, as measured: bytes a record on the broker's disk, its own and what is written of it (ledger, wallets, intake), and
# what it leaves. Live batches are small, compress less, and each has its markers: the ledger takes 205 there, all others 20.
SOURCE_BYTES, OUTPUT_BYTES, LIVE_BYTES, IDENTITIES_EACH, IDENTITY_BYTES = 87, 162 + 18 + 5, 205 + 20, 1.75, 43
# Kept as they are, the live part's usage and states of wallets would take 110 and 138 bytes a record more, and all data more than is
# allowed. So before it the source gets a bound, for each of its partitions, and compacted topics segments that are soon compacted.
SEGMENT_BYTES, SOURCE_BYTES_MAX = 16 * 2 ** 20, 64 * 2 ** 20
COMPACTED = ("wallets", "progress")
# Of what a broker looks at once in five minutes only, and has not yet compacted.
RETAINED_BYTES = 3e9
# Contracts, top-ups and the rest, for each wallet.
WALLET_RECORDS = 1.6
FILTER_BYTES = 3.5
# A wallet in a checkpoint, at most, and identities that are not sealed yet.
WALLET_BYTES, RECENT_MAX = 1_000, 1_000_000
# More than planned: a restore without a local store fills one anew, small topics, indices.
SPARE_BYTES = 5e9


@dataclass(frozen=True)
class Sample(Reading):
    """What an instance has done, and all that it holds by then."""

    files: int
    threads: int
    store_bytes: int
    # Of each topic on the broker's disk.
    topics_bytes: dict[str, int]

    @classmethod
    def of_reading(cls, reading: Reading, instance: Instance, deployment: Deployment) -> Sample:
        process = Path("/proc") / str(instance.process.pid)
        return cls(
            **asdict(reading), files=len(os.listdir(process / "fd")), threads=len(os.listdir(process / "task")),
            store_bytes=disk_bytes(deployment.folder / PART), topics_bytes=topics_bytes(deployment))

    @property
    def kafka_bytes(self) -> int:
        return sum(self.topics_bytes.values())

    @property
    def data_bytes(self) -> int:
        return self.store_bytes + self.kafka_bytes

    def print(self, since: Reading, what: str = "") -> None:
        load = Load.between(since, self)
        print(f"{self.processed:,} records, {load.records_per_s:,.0f}/s, ours {load.own_micros:.1f} µs/record, broker's "
              f"{load.broker_micros:.1f}; about {self.processed * IDENTITIES_EACH / 1e6:,.1f} M identities, store "
              f"{self.store_bytes / 1e6:,.0f} MB, Kafka {self.kafka_bytes / 1e6:,.0f} MB; RSS {self.rss_mb:,} MB, {self.files} files, "
              f"{self.threads} threads, lag {self.lag:,}{what}", flush=True)


@dataclass(frozen=True)
class Minute:
    """Latency within one of the live part; none: nothing was charged."""

    at: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Verdict:
    """What was asked for, and what came."""

    what: str
    found: str
    asked: str
    is_met: bool

    def print(self) -> None:
        print(f"{self.what}: {self.found} ({'met' if self.is_met else 'MISSED'}: {self.asked})")


class Soak:
    """One run, in the order of its methods."""

    def __init__(self, options: argparse.Namespace, folder: Path, cleanup: ExitStack, figures: dict[str, Any]) -> None:
        self.options, self.figures = options, figures
        self.large = another(options.set, options.events, options.wallets, folder, "-large", cleanup)
        self.small = another(options.set, options.small_events, options.small_wallets, folder, "-small", cleanup)

    def run(self) -> None:
        planned = planned_bytes(self.options)
        if planned > DATA_BYTES_MAX:
            raise BenchError(f"{planned / 1e9:.0f} GB of data are expected, allowed are {DATA_BYTES_MAX / 1e9:.0f}: fewer --events, "
                             "--live-minutes or a lower --live-rate")
        check_room(planned, self.large.deployment.folder)
        records, small_records = self.large.preload(BINARY), self.small.preload(BINARY)
        print(f"{records:,} and {small_records:,} records preloaded; {planned / 1e9:.1f} GB of data expected", flush=True)
        warm_up(self.small, small_records, self.options.warm_up)
        self.figures["small"] = [self.small_round(small_records, 1)]
        deployment = self.large.deployment
        with deployment.ledger_stage(BINARY, PART) as instance:
            self.fill(instance, records)
            self.figures["small"].append(self.small_round(small_records, 2))
            self.quiet(instance)
            self.bound_topics()
            self.live(instance)
            instance.stop()
            self.start_again(deployment)
        self.save()

    def small_round(self, records: int, number: int) -> list[dict[str, Any]]:
        """Readings of the small case."""
        with self.small.deployment.ledger_stage(BINARY, f"small{number}") as instance:
            readings = full_load(instance, self.small.deployment, records)
        Load.between(readings[0], readings[-1]).print(f"small case, round {number}")
        return [asdict(reading) for reading in readings]

    def fill(self, instance: Instance, records: int) -> None:
        """The whole backlog."""
        deployment = self.large.deployment
        samples: list[Sample] = []
        for reading in readings_of(instance, deployment, records, POLL_S):
            if not samples or reading.at >= samples[-1].at + SAMPLE_S or reading.processed >= records:
                samples.append(Sample.of_reading(reading, instance, deployment))
                samples[-1].print(samples[-2] if len(samples) > 1 else samples[-1])
                self.figures["full"] = [asdict(sample) for sample in samples]
                self.save()

    def quiet(self, instance: Instance) -> None:
        """Latency where little comes."""
        deployment = self.large.deployment
        latency = latency_at(QUIET_RATE, QUIET_S, instance, deployment, deployment.config_of(PART), self.options.wallets, QUIET_SEED)
        quiet = minute(0, latency)
        print(f"{QUIET_RATE:,} live events/s: {told(quiet)}", flush=True)
        self.figures["quiet"] = asdict(quiet)

    def bound_topics(self) -> None:
        """The ledger is kept for ever; what else is read no more may go. Not before: a backlog must be there to be read."""
        deployment = self.large.deployment
        source = {"segment.bytes": SEGMENT_BYTES, "retention.bytes": SOURCE_BYTES_MAX}
        deployment.configure(deployment.topic("generation", PART), source)
        for key in COMPACTED:
            deployment.configure(deployment.topic(key, PART), {"segment.bytes": SEGMENT_BYTES})

    def live(self, instance: Instance) -> None:
        deployment, seconds = self.large.deployment, self.options.live_minutes * 60
        samples: list[Sample] = []
        minutes: list[Minute] = []
        config = deployment.config_of(PART)
        with generating(deployment, config, self.options.live_rate, seconds, self.options.wallets, LIVE_SEED):
            begun = time.monotonic()
            since, metrics = begun, metrics_of(instance)
            while (now := time.monotonic()) < begun + seconds:
                samples.append(Sample.of_reading(Reading.of(instance, deployment), instance, deployment))
                what = ""
                if now >= since + MINUTE_S or now + SAMPLE_S >= begun + seconds:
                    after = metrics_of(instance)
                    minutes.append(minute(now - begun, Latency.between(metrics, after)))
                    since, metrics, what = now, after, f"; {told(minutes[-1])}"
                samples[-1].print(samples[-2] if len(samples) > 1 else samples[-1], what)
                self.figures["live"] = {
                    "rate": self.options.live_rate, "samples": [asdict(sample) for sample in samples],
                    "minutes": [asdict(one) for one in minutes]}
                self.save()
                time.sleep(max(0.0, min(now + SAMPLE_S, begun + seconds) - time.monotonic()))
        self.figures["live"]["drained_s"] = self.drain(instance)
        self.figures["live"]["end"] = asdict(Sample.of_reading(Reading.of(instance, deployment), instance, deployment))

    def drain(self, instance: Instance) -> float:
        """Seconds until nothing waits any more."""
        begun = time.monotonic()
        while (lag := Reading.of(instance, self.large.deployment).lag) > 0:
            if time.monotonic() > begun + DRAIN_S:
                raise BenchError(f"{lag:,} records still wait {DRAIN_S} s after the last live event")
            time.sleep(POLL_S)
        return time.monotonic() - begun

    def start_again(self, deployment: Deployment) -> None:
        """From the local store, which says how many identities there are; and from the topics."""
        config, processed = deployment.config_of(PART), self.figures["live"]["end"]["processed"]
        wait_s = START_WAIT_S + processed / EVENTS_PER_S_MIN
        store = restart(deployment, config, "store", wait_s)
        show("with the local store", store)
        self.figures["restored"] = {"store": asdict(store)}
        self.save()
        if not self.options.no_topics:
            shutil.rmtree(deployment.folder / PART)
            topics = restart(deployment, config, "topics", wait_s)
            show("from the topics", topics)
            self.figures["restored"]["topics"] = asdict(topics)

    def save(self) -> None:
        save(TARGET, self.figures)


def disk_bytes(folder: Path) -> int:
    """Blocks, not lengths: Kafka's indices are files with holes. What goes meanwhile counts as gone."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total


def topics_bytes(deployment: Deployment) -> dict[str, int]:
    """Of the partitions of each topic; a deleted one that still has its files is another folder, and counts."""
    kafka = Stack.from_environment().data("kafka")
    return {key: sum(disk_bytes(folder) for folder in kafka.glob(f"{deployment.topic(key, PART)}-*")) for key in SOURCES + OUTPUTS}


def planned_bytes(options: argparse.Namespace) -> float:
    """All data of the large case in the end."""
    backlog, live = options.events + WALLET_RECORDS * options.wallets, options.live_rate * options.live_minutes * 60
    identities = (backlog + live) * IDENTITIES_EACH
    return (backlog * (SOURCE_BYTES + OUTPUT_BYTES) + live * LIVE_BYTES + min(RETAINED_BYTES, live * 250)
            + identities * IDENTITY_BYTES + WALLET_BYTES * options.wallets)


def check_room(planned: float, folder: Path) -> None:
    """Before half an hour is spent."""
    for place in (folder, Stack.from_environment().folder):
        free = shutil.disk_usage(place).free
        if free < planned + SPARE_BYTES:
            raise BenchError(f"{free / 1e9:.0f} GB are free where {place.name} is, needed are {(planned + SPARE_BYTES) / 1e9:.0f}")


def store_bound(identities: float, wallets: int) -> float:
    """Bytes that the local store may have: every identity twice, one that is in memory too, and two checkpoints of wallets."""
    return 2 * (IDENTITY_BYTES * (identities + RECENT_MAX) + WALLET_BYTES * wallets)


def minute(at: float, latency: Latency) -> Minute:
    if latency.count == 0:
        return Minute(at, None, None)
    return Minute(at, latency.quantile_s(0.5) * 1000, latency.quantile_s(0.99) * 1000)


def told(one: Minute) -> str:
    return "nothing was charged" if one.p50_ms is None else f"p50 {one.p50_ms:.0f} ms, p99 {one.p99_ms:.0f} ms"


def samples_of(figures: list[dict[str, Any]]) -> list[Sample]:
    return [Sample(**one) for one in figures]


def identities_each(figures: dict[str, Any]) -> float:
    """Of a record: counted at the start from the local store."""
    restored = figures.get("restored")
    return restored["store"]["identities"] / figures["live"]["end"]["processed"] if restored else IDENTITIES_EACH


def settled(samples: list[Sample]) -> Sample:
    """After the first minutes of the live part; of a shorter one, halfway."""
    wanted = samples[0].at + min(SETTLED_S, (samples[-1].at - samples[0].at) / 2)
    return next(sample for sample in samples if sample.at >= wanted)


def around(samples: list[Sample], ends: bool) -> list[Sample]:
    """Of so long at the end or at the beginning."""
    length = min(SETTLED_S, (samples[-1].at - samples[0].at) / 2)
    return [sample for sample in samples if (sample.at >= samples[-1].at - length if ends else sample.at <= samples[0].at + length)]


def full_verdicts(figures: dict[str, Any]) -> list[Verdict]:
    small = [[Reading(**one) for one in of] for of in figures["small"]]
    full = samples_of(figures["full"])

    def ratio(large: list[Sample], cases: list[list[Reading]]) -> tuple[float, float, float]:
        last = of_last(large, LAST_RECORDS).records_per_s
        beside = mean(Load.between(readings[0], readings[-1]).records_per_s for readings in cases)
        return last / beside, last, beside

    whole, even = ratio(full, small), ratio(while_even(full), [while_even(readings) for readings in small])
    rss_mb = max(sample.rss_mb for sample in full)
    identities = full[-1].processed * identities_each(figures)
    return [
        Verdict(f"throughput of the last {LAST_RECORDS:,} records ÷ small case",
                f"{whole[0]:.2f} ({whole[1]:,.0f} ÷ {whole[2]:,.0f} records/s; while no partition is at its end "
                f"{even[0]:.2f}, {even[1]:,.0f} ÷ {even[2]:,.0f})",
                f"at least {THROUGHPUT_RATIO_MIN}", whole[0] >= THROUGHPUT_RATIO_MIN),
        Verdict(f"RSS with {identities / 1e6:,.0f} million identities of {figures['wallets']:,} wallets",
                f"{full[-1].rss_mb:,} MB, at most {rss_mb:,} on the way", f"at most {RSS_MB_MAX:,} MB", rss_mb <= RSS_MB_MAX),
    ]


def live_verdicts(figures: dict[str, Any]) -> list[Verdict]:
    """What did not grow. RSS may by the filters of the identities that came."""
    live = figures["live"]
    samples, end = samples_of(live["samples"]), Sample(**live["end"])
    all_samples = [*samples_of(figures["full"]), *samples, end]
    early, each = settled(samples), identities_each(figures)
    filters_mb = (end.processed - early.processed) * each * FILTER_BYTES / 1e6
    identities = end.processed * each
    lags = [mean(sample.lag for sample in around(samples, ends)) for ends in (False, True)]
    most_store, most_data = (max(getattr(sample, name) for sample in all_samples) for name in ("store_bytes", "data_bytes"))
    bound = store_bound(identities, figures["wallets"])
    return [
        Verdict("RSS at the end ÷ after 5 minutes",
                f"{end.rss_mb / early.rss_mb:.2f} ({end.rss_mb:,} ÷ {early.rss_mb:,} MB; filters of new identities take "
                f"{filters_mb:,.0f} MB, without them {(end.rss_mb - filters_mb) / early.rss_mb:.2f})",
                f"without them at most {RSS_GROWTH_MAX}", end.rss_mb - filters_mb <= RSS_GROWTH_MAX * early.rss_mb),
        Verdict("lag, mean of the first and the last 5 minutes", f"{lags[0]:,.0f} and {lags[1]:,.0f} records, none "
                f"{live['drained_s']:.1f} s after the last event", "not more than a second's events more",
                lags[1] <= lags[0] + live["rate"]),
        Verdict("file handles, after 5 minutes and at the end", f"{early.files} and {end.files} (at most "
                f"{max(sample.files for sample in [*samples, end])})", f"at most {FILES_GROWTH_MAX} more",
                end.files <= early.files + FILES_GROWTH_MAX),
        Verdict("threads, after 5 minutes and at the end", f"{early.threads} and {end.threads}", "no more", end.threads <= early.threads),
        Verdict("local store, at most", f"{most_store / 1e9:.1f} GB, {end.store_bytes / identities:.0f} bytes an identity in the end",
                f"{identities / 1e6:,.0f} million identities twice, and checkpoints: {bound / 1e9:.1f} GB", most_store <= bound),
        Verdict("all data, at most", f"{most_data / 1e9:.1f} GB, of which Kafka's {end.kafka_bytes / 1e9:.1f} in the end",
                f"below {DATA_BYTES_MAX / 1e9:.0f} GB", most_data < DATA_BYTES_MAX),
    ]


def verdicts(figures: dict[str, Any]) -> list[Verdict]:
    return [*full_verdicts(figures), *live_verdicts(figures)]


def full_rows(figures: dict[str, Any]) -> list[list[str]]:
    """At 1, 3, 10, 30 million identities and so on, and at the end; each since the sample before."""
    samples, each = samples_of(figures["full"]), identities_each(figures)
    steps = [digit * 10 ** power for power in range(6, 10) for digit in (1, 3)]
    places = {next((place for place, one in enumerate(samples) if one.processed * each >= step), 0) for step in steps}
    rows = []
    for place in sorted((places | {len(samples) - 1}) - {0}):
        one, load = samples[place], Load.between(samples[place - 1], samples[place])
        rows.append([f"{one.processed * each / 1e6:,.1f}", f"{load.records_per_s:,.0f}", f"{load.own_micros:.1f}",
                     f"{load.broker_micros:.1f}", f"{one.rss_mb:,}", f"{one.store_bytes / 1e6:,.0f}", f"{one.files}"])
    return rows


def live_rows(figures: dict[str, Any]) -> list[list[str]]:
    """Every fifth minute: as it is at its end, and its latency."""
    samples, minutes = samples_of(figures["live"]["samples"]), [Minute(**one) for one in figures["live"]["minutes"]]
    rows = []
    for one in minutes[4::5] if len(minutes) > 5 else minutes:
        sample = min(samples, key=lambda sample: abs(sample.at - samples[0].at - one.at))
        rows.append([f"{one.at / 60:.0f}", f"{sample.rss_mb:,}", f"{sample.lag:,}", f"{sample.files}", f"{sample.threads}",
                     f"{sample.store_bytes / 1e6:,.0f}", f"{sample.kafka_bytes / 1e6:,.0f}",
                     *("" if value is None else f"{value:,.0f}" for value in (one.p50_ms, one.p99_ms))])
    return rows


def topics_text(figures: dict[str, Any]) -> str:
    end = Sample(**figures["live"]["end"])
    sizes = sorted(end.topics_bytes.items(), key=lambda one: -one[1])
    return "In the end, on the broker's disk: " + ", ".join(f"{key} {size / 1e6:,.0f} MB" for key, size in sizes if size >= 1e6) + "."


def restored_text(figures: dict[str, Any]) -> str:
    found = figures["restored"]
    parts = [f"from the local store {found['store']['restore_s']:,.1f} s ({found['store']['identities']:,} identities, "
             f"{found['store']['rss_mb']:,} MB resident)"]
    if topics := found.get("topics"):
        parts.append(f"from the topics {topics['restore_s']:,.0f} s ({topics['entries']:,} entries)")
    return "Started again: " + "; ".join(parts) + "."


def document(figures: dict[str, Any]) -> str:
    """As it stands in the document."""
    quiet = Minute(**figures["quiet"])
    return "\n".join([
        f"{heading(figures)}; {figures['events']:,} usage events of {figures['wallets']:,} wallets as a backlog, then "
        f"{figures['live_minutes']:g} minutes of {figures['live']['rate']:,} live events/s.", "",
        *table(["", "found", "asked for", ""], [
            [one.what, one.found, one.asked, "met" if one.is_met else "**missed**"] for one in verdicts(figures)], ":--"),
        "", "At full load, each in the 10 seconds before:", "",
        *table(["million identities", "records/s", "ours, µs/record", "broker's", "RSS, MB", "local store, MB", "file handles"],
               full_rows(figures)),
        "", f"At {QUIET_RATE:,} live events/s after that: {told(quiet)}. At {figures['live']['rate']:,}, by minute:", "",
        *table(["minute", "RSS, MB", "lag, records", "file handles", "threads", "local store, MB", "Kafka, MB", "p50, ms", "p99, ms"],
               live_rows(figures)),
        "", topics_text(figures), restored_text(figures), "", "![Against remembered identities](images/growth-identities.svg)"])


def image(figures: dict[str, Any], growth: dict[str, Any]) -> str:
    """Against identities: samples of the backlog; and what was measured at a few places, by `make bench-growth` too."""
    each, samples = identities_each(figures), samples_of(figures["full"])
    places = list(growth.get("identities", {}).get("rows", []))
    end = figures["full"][-1]["processed"] * each
    quiet, restored = figures["quiet"], figures["restored"]
    at_rest = restored["store"]["identities"]

    def points(name: str) -> list[tuple[float, float]]:
        return [(row["identities"], row[name]) for row in places]

    rates = [(now.processed * each, Load.between(before, now).records_per_s) for before, now in zip(samples, samples[1:])]
    topics = [(at_rest, restored["topics"]["restore_s"])] if "topics" in restored else []
    latencies = [Series(name, [*points(key), *([] if quiet[key] is None else [(end, quiet[key])])])
                 for name, key in (("p50", "p50_ms"), ("p99", "p99_ms"))]
    beside = "; latency and restores before the last: make bench-growth" if places else ""
    return plot("As remembered identities grow", f"{figures['wallets']:,} wallets, {figures['date']}{beside}", "identities", [
        Panel("Throughput", "records/s", [Series("throughput", rates)]),
        Panel("RSS", "MB", [Series("RSS", [(one.processed * each, one.rss_mb) for one in samples[1:]])]),
        Panel(f"Event to balance at {QUIET_RATE:,}/s", "ms", latencies),
        Panel("Restore", "s", [Series("from topics", [*points("topics_s"), *topics]),
                               Series("from local store", [*points("store_s"), (at_rest, restored["store"]["restore_s"])])]),
    ])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {
        **run_facts(TARGET), "events": options.events, "wallets": options.wallets, "live_minutes": options.live_minutes}
    with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder, ExitStack() as cleanup:
        Soak(options, Path(folder), cleanup, figures).run()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=57_000_000, help="usage events of the backlog")
    parser.add_argument("--wallets", type=int, default=1_000_000)
    parser.add_argument("--small-events", type=int, default=SMALL_EVENTS, help="usage events of the small case")
    parser.add_argument("--small-wallets", type=int, default=SMALL_WALLETS)
    parser.add_argument("--live-minutes", type=float, default=30)
    parser.add_argument("--live-rate", type=int, default=20_000, help="live events a second")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds of the small case that do not count")
    parser.add_argument("--no-topics", action="store_true", help="no restore from the topics at the end, which takes minutes")
    parser.add_argument("--publish", action="store_true", help="put table and plot into docs/performance.md")
    parser.add_argument("--again", action="store_true", help="measure nothing: take the figures of the last run")
    add_settings_option(parser)
    options = parser.parse_args()

    def work() -> None:
        figures = last_figures(TARGET) if options.again else measure(options)
        if "restored" not in figures:
            raise BenchError("the last run did not get through: there are no figures of it")
        print()
        for verdict in verdicts(figures):
            verdict.print()
        print(topics_text(figures))
        print(restored_text(figures))
        if options.publish:
            publish(TARGET, document(figures), {"growth-identities.svg": image(figures, last_figures("bench-growth"))})

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
