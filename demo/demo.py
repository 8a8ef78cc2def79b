"""300,000 generation events through Kafka, creditstream and ClickHouse, a crash in the middle, a proof at the end.

    make demo                                             everything, in about a minute
    .stack/venv/bin/python demo/demo.py --prove           only the proof, of what the last run left

Exit code: 0 the proof holds; 1 it does not, or something is missing or went wrong (the message says what).
The story is `Demo.run`; place.py says where, pipeline.py runs the processes, sources.py reads what the proof needs,
proof.py compares, show.py prints.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

# No __pycache__ beside the sources.
sys.dont_write_bytecode = True

try:
    from confluent_kafka import KafkaException

    import place as places
    import report
    import sources
    from pipeline import Pipeline, Scrape, quantile
    from place import DemoError, Place
    from proof import Proof
    from show import Bar, Screen
except ModuleNotFoundError as missing:
    sys.exit(f"demo: Python module {missing.name} is not there: run `make demo`, which uses the stack's Python")

BACKLOG_EVENTS = 240_000
LIVE_EVENTS = 60_000
LIVE_PER_SECOND = 5_000
FAULT_OPTIONS = ("--wallets", "1000", "--duplicates", "1", "--bad", "0.5", "--late", "2", "--wrong-keys", "5")
# Often enough to hit the middle of a backlog that takes seconds.
POLL_S = 0.03
# Seldom enough not to be measured itself.
LIVE_POLL_S = 0.25
CLICKHOUSE_POLL_S = 0.25
# Nothing moving for so long means that it will not.
STALL_S = 60


class Demo:
    """One run. What it learns on the way is reported at the end."""

    def __init__(self, place: Place, screen: Screen) -> None:
        self.place, self.screen = place, screen
        self.pipeline = Pipeline(place, places.free_http_address())
        self.records_total = 0
        # Final outcomes that were committed before the running process began to count its own.
        self.committed_before = 0
        self.was_killed = False
        self.figures: list[list[str | int]] = []
        now = datetime.now(timezone.utc)
        began, live_from = now - timedelta(days=2), now - timedelta(minutes=5)
        self.backlog_window = ("--start", rfc3339(began), "--end", rfc3339(live_from))
        self.live_window = ("--start", rfc3339(live_from), "--end", rfc3339(now))

    def run(self) -> bool:
        """From nothing to the proof; whether it holds."""
        try:
            self.prepare()
            self.work_off_backlog_through_a_crash()
            self.go_live()
            ledger = self.wait_for_clickhouse()
            self.pipeline.stop()
            self.screen.step("pipeline stopped by SIGTERM; all that follows is read from Kafka and ClickHouse")
        finally:
            self.pipeline.close()
        proof = Proof(self.place, self.screen)
        progress = sources.progress(self.place)
        report.results(self.place, self.screen, proof, progress, self.figures)
        if not self.was_killed:
            proof.faults.append("the process was not killed in the middle")
        return proof.prove(ledger, progress)

    def prepare(self) -> None:
        """Own topics, tables and settings; contracts and top-ups posted; usage waiting in Kafka."""
        places.clean(self.place)
        sources.drop_database(self.place)
        places.write_config(self.place, self.pipeline.http_address)
        self.pipeline.command("init")
        self.screen.step(f"topics demo.* and database {places.DATABASE} made anew")
        self.begin_pipeline("")
        options = ("--seed", "1", "--events", str(BACKLOG_EVENTS), *self.backlog_window)
        setup = self.send("setup", "--phase", "setup", *options)
        self.records_total = setup + BACKLOG_EVENTS + LIVE_EVENTS
        self.wait_for_records(setup)
        self.screen.step(f"{setup:,} contracts, top-ups and adjustments of 1,000 wallets sent and posted")
        self.pipeline.stop()
        self.screen.step("pipeline stopped by SIGTERM: usage piles up")
        began_s = time.monotonic()
        self.send("usage-1", "--phase", "usage", *options)
        self.screen.step(f"{BACKLOG_EVENTS:,} usage events sent in {time.monotonic() - began_s:.1f} s: "
                         "1 % twice, 0.5 % bad, 2 % late, 5 % wrongly keyed")

    def work_off_backlog_through_a_crash(self) -> None:
        """Kills the process when half of everything is processed, and starts it again."""
        backlog_end = self.records_total - LIVE_EVENTS
        before = self.committed_before = sources.progress(self.place).final
        began = time.monotonic()
        self.begin_pipeline(" again")
        first = self.wait_for_records(before + 1)
        half = self.records_total // 2
        last = self.wait_for_records(half)
        pid = self.pipeline.process.pid if self.pipeline.process else 0
        code = self.pipeline.kill()
        killed = time.monotonic()
        committed = sources.progress(self.place).final
        self.was_killed = code == -signal.SIGKILL and before < committed < backlog_end
        self.screen.step(f"KILLED: SIGKILL to process {pid}, "
                         f"with {committed:,} of {self.records_total:,} records committed")
        self.committed_before = committed
        self.begin_pipeline(" again under the same name")
        resumed = self.wait_for_records(committed + 1)
        end = self.wait_for_records(backlog_end)
        self.screen.step(f"backlog worked off: {backlog_end:,} of {self.records_total:,} records")
        self.figures += [
            ["events/s of the backlog, before the kill", rate(first, last)],
            ["events/s of the backlog, after the restart", rate(resumed, end)],
            ["seconds from the kill to the next commit seen", f"{resumed[0] - killed:.1f}"],
            ["events/s of the backlog in all, from first start to last commit, crash included",
             rate((began, before), end)],
        ]

    def go_live(self) -> None:
        """Events at a steady pace, for the time from event to balance: a backlog's age would say nothing."""
        before = self.pipeline.scrape()
        self.screen.step(f"live: {LIVE_EVENTS:,} events at {LIVE_PER_SECOND:,}/s")
        generator = self.pipeline.generate(
            "usage-2", "--phase", "usage", "--seed", "2", "--events", str(LIVE_EVENTS),
            "--rate", str(LIVE_PER_SECOND), *FAULT_OPTIONS, *self.live_window)
        self.wait_for_records(self.records_total, generator)
        self.pipeline.generated(generator)
        after = self.pipeline.scrape()
        self.screen.step(f"live ended: {self.records_total:,} of {self.records_total:,} records")
        self.figures += self.latency(before, after)

    def latency(self, before: Scrape, after: Scrape) -> list[list[str | int]]:
        """Median and 99th percentile of the live phase."""
        (median, count), (p99, _) = quantile(before, after, 0.5), quantile(before, after, 0.99)
        return [["ms from event to balance, live, median", round(median * 1_000)],
                ["ms from event to balance, live, p99", round(p99 * 1_000)],
                ["    of postings", count]]

    def begin_pipeline(self, how: str) -> None:
        """Start, and say so."""
        pid = self.pipeline.start()
        self.screen.step(f"pipeline started{how}: process {pid}, http://{self.pipeline.http_address}/metrics")

    def send(self, part: str, *options: str) -> int:
        """Generate a part to its end; how many records that were."""
        return int(self.pipeline.generated(self.pipeline.generate(part, *options, *FAULT_OPTIONS))["records"])

    def wait_for_records(self, target: int, generator: subprocess.Popen[str] | None = None) -> tuple[float, int]:
        """Until so many records are processed; when, and how many then."""
        bar = Bar(self.screen, self.records_total or target, "records")
        processed, moved = -1, time.monotonic()
        while True:
            now = time.monotonic()
            seen = self.committed_before + self.pipeline.scrape().processed
            if seen != processed:
                processed, moved = seen, now
            if processed >= target:
                return now, processed
            if generator is not None and generator.poll() not in (None, 0):
                self.pipeline.generated(generator)
            if now - moved > STALL_S:
                raise DemoError(f"{processed:,} of {target:,} records processed, and no more for {STALL_S} s\n"
                                f"{self.pipeline.log_tail()}")
            bar.show(processed)
            time.sleep(POLL_S if generator is None else LIVE_POLL_S)

    def wait_for_clickhouse(self) -> dict[str, sources.WalletSum]:
        """Read the ledger topic, and wait until ClickHouse holds as much. What differs then is the proof's to say."""
        began = time.monotonic()
        ledger = sources.ledger_topic(self.place)
        entries = sum(wallet.seq for wallet in ledger.values())
        self.screen.step(f"ledger topic read: {entries:,} entries of {len(ledger):,} wallets")
        wanted = sources.Stored(entries, entries, sum(wallet.charged for wallet in ledger.values()),
                                sources.books(self.place)["outcomes"]["quarantined"])
        bar = Bar(self.screen, entries, "entries in ClickHouse")
        stored, moved = sources.stored(self.place), time.monotonic()
        while not stored.reaches(wanted) and time.monotonic() - moved < STALL_S:
            self.pipeline.check_runs()
            bar.show(stored.entries)
            time.sleep(CLICKHOUSE_POLL_S)
            before, stored = stored, sources.stored(self.place)
            moved = time.monotonic() if stored != before else moved
        if stored.reaches(wanted):
            self.screen.step(f"ClickHouse holds them {time.monotonic() - began:.1f} s after the last commit")
        else:
            self.screen.step(f"ClickHouse does not hold them all, and nothing new for {STALL_S} s: {stored}")
        return ledger


def rate(begin: tuple[float, int], end: tuple[float, int]) -> int:
    """Records per second between two sightings."""
    return round((end[1] - begin[1]) / max(end[0] - begin[0], 0.001))


def rfc3339(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def prove_again(place: Place, screen: Screen) -> bool:
    """The proof of what the last run left, read anew."""
    return Proof(place, screen).prove(sources.ledger_topic(place), sources.progress(place))


def main() -> int:
    parser = argparse.ArgumentParser(description="Events through Kafka and ClickHouse, with a proof at the end.")
    parser.add_argument("--prove", action="store_true", help="only prove again what the last run left")
    options = parser.parse_args()
    screen = Screen()
    # A demo that is ended must end its children, whoever asks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        place = places.find()
        is_proven = prove_again(place, screen) if options.prove else Demo(place, screen).run()
        report.verdict(screen, is_proven)
        if not options.prove:
            report.look_around(place, screen)
        return 0 if is_proven else 1
    except (DemoError, KafkaException) as error:
        screen.clear_bar()
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        screen.clear_bar()
        print("demo: interrupted; everything that it started has ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
