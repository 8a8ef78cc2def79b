"""The load: events at a steady pace, by generators that keep books, and producers that send whole hours again.

Owns: what is sent, and the sum of the books. Invariant: the books count what is sent the first time; copies change no
wallet. Must not: read what came of it.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from cluster import TOPICS, ChaosError, Cluster, clean_environment
from reading import Envelope, read_topic

WALLETS = 300
BACKLOG_EVENTS = 12_000
BACKLOG_HOURS = 6
FAULT_OPTIONS = ("--wallets", str(WALLETS), "--duplicates", "1", "--bad", "0.5", "--late", "2", "--wrong-keys", "5")
# One generator after the other sends so much.
PIECE_S = 10
PIECE_WAIT_S = 240
TRIES_MAX = 5
FLUSH_WAIT_S = 120


class Load:
    """A thread that sends until it is told to stop."""

    def __init__(self, cluster: Cluster, seed: int, events_per_s: int) -> None:
        self.cluster, self.seed, self.events_per_s = cluster, seed, events_per_s
        self.books: dict[str, Any] = {}
        self.sent_again_by_generator = 0
        self.copies = 0
        self.error: str | None = None
        self._pieces = 0
        self._stopping = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._send_steadily, name="load", daemon=True)
        self._process: subprocess.Popen[str] | None = None

    def set_up(self) -> None:
        """Contracts and top-ups, and six hours of usage: the hours that are sent again."""
        now = datetime.now(timezone.utc)
        self._generate("setup", now - timedelta(days=2), now - timedelta(hours=BACKLOG_HOURS), BACKLOG_EVENTS, 0)
        self._generate("usage", now - timedelta(hours=BACKLOG_HOURS), now, BACKLOG_EVENTS, 0)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the piece under way end: its books are written then."""
        self._stopping.set()
        self._thread.join(PIECE_WAIT_S + PIECE_S)
        if self._thread.is_alive():
            raise ChaosError("the generator does not end")
        if self.error is not None:
            raise ChaosError(self.error)

    def close(self) -> None:
        """No piece begins any more, and the one under way ends with the run."""
        self._stopping.set()
        self._closing = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def send_hour_again(self, chance: random.Random) -> int:
        """All usage of one hour by its event time, as it was; the number of copies."""
        hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
        hour -= timedelta(hours=chance.randint(1, BACKLOG_HOURS - 1))
        wanted = hour.strftime("%Y-%m-%dT%H:")
        producer = Producer({
            "bootstrap.servers": self.cluster.brokers, "enable.idempotence": True, "linger.ms": 20, "log_level": 2,
            "message.timeout.ms": FLUSH_WAIT_S * 1_000})
        copies, failures = 0, []
        # Copies of before are not copied: each time there would be twice as many.
        seen: set[bytes] = set()
        for message in read_topic(self.cluster.brokers, TOPICS["generation"]):
            event = Envelope.of(message)
            if event is None or not event.time.startswith(wanted) or message.value() in seen:
                continue
            seen.add(message.value())
            producer.produce(
                message.topic(), partition=message.partition(), key=message.key(), value=message.value(),
                headers=message.headers(), on_delivery=lambda error, _: failures.append(error) if error else None)
            producer.poll(0)
            copies += 1
        left = producer.flush(FLUSH_WAIT_S)
        if left or failures:
            raise ChaosError(f"an hour could not be sent again: {left + len(failures)} records, {failures[:1]}")
        self.copies += copies
        return copies

    def _send_steadily(self) -> None:
        try:
            while not self._stopping.is_set():
                now = datetime.now(timezone.utc)
                self._generate("usage", now - timedelta(minutes=30), now, self.events_per_s * PIECE_S, self.events_per_s)
        except (ChaosError, OSError) as error:
            self.error = str(error)

    def _generate(self, phase: str, begin: datetime, end: datetime, events: int, rate: int) -> None:
        """One piece, sent until the generator says that all of it arrived: again from its beginning, as a producer
        does that does not know what became of its records."""
        self._pieces += 1
        books = self.cluster.folder / f"books-{self._pieces:04}.json"
        # Ids come from the seed: no two pieces may share one.
        arguments = ["generate", "--phase", phase, "--seed", str(self.seed * 100_000 + self._pieces),
                     "--start", rfc3339(begin), "--end", rfc3339(end), "--events", str(events), "--rate", str(rate),
                     "--books", str(books), *FAULT_OPTIONS]
        for _ in range(TRIES_MAX):
            if self._closing:
                raise ChaosError("the run was ended")
            error = self._run(arguments)
            if not error:
                _add(self.books, json.loads(books.read_text()))
                return
            self.sent_again_by_generator += 1
            time.sleep(2)
        raise ChaosError(f"the generator failed {TRIES_MAX} times: {error}")

    def _run(self, arguments: list[str]) -> str:
        """What went wrong; empty if nothing did."""
        self._process = subprocess.Popen(
            [str(self.cluster.binary), "--config", str(self.cluster.folder / "direct.toml"), *arguments],
            env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, start_new_session=True)
        try:
            _, errors = self._process.communicate(timeout=PIECE_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return f"no end within {PIECE_WAIT_S} s"
        return "" if self._process.returncode == 0 else errors[-500:] or f"exit code {self._process.returncode}"


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    """Books of pieces with different ids add up."""
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value


def rfc3339(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
