"""The processes under demonstration: creditstream's commands, and the running pipeline with its metrics.

Owns: every child. Invariant: a child ends with the demo, and no process is signalled that is not a child of ours.
Must not: judge what the pipeline did (proof.py does, from Kafka and ClickHouse).
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field

import place as places
from place import DemoError, Place

READY_WAIT_S = 40
STOP_WAIT_S = 30
CLOSE_WAIT_S = 10
COMMAND_WAIT_S = 60
LOG_LINES = 15
# Not an outcome of the record: it is counted again where it goes, or was counted before.
NOT_FINAL = ("handed_over", "skipped")
SERIES = re.compile(r'^creditstream_(\w+?)(?:\{(.*)\})? (\S+)$', re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Scrape:
    """What /metrics said at one moment."""

    # Records with a final outcome that this process committed.
    processed: int
    # Events from arrival to balance, counted by upper bound in seconds.
    to_balance: dict[float, int]


def parse(text: str) -> Scrape:
    """Read the two families that the demo needs out of Prometheus' text format."""
    processed, buckets = 0, {}
    for name, labels_text, value in SERIES.findall(text):
        if name == "events_total":
            labels = dict(LABEL.findall(labels_text))
            processed += 0 if labels["outcome"] in NOT_FINAL else int(float(value))
        elif name == "event_to_balance_seconds_bucket":
            buckets[float(dict(LABEL.findall(labels_text))["le"])] = int(float(value))
    return Scrape(processed, buckets)


def quantile(before: Scrape, after: Scrape, share: float) -> tuple[float, int]:
    """A quantile in seconds of what came between two scrapes, and the number of observations.

    As Prometheus' histogram_quantile: linear inside the bucket; the last bound where it lies beyond."""
    counts = {bound: count - before.to_balance.get(bound, 0) for bound, count in sorted(after.to_balance.items())}
    total = max(counts.values(), default=0)
    wanted, lower, below = share * total, 0.0, 0
    for bound, count in counts.items():
        if count >= wanted and count > below:
            if bound == float("inf"):
                return lower, total
            return lower + (bound - lower) * (wanted - below) / (count - below), total
        lower, below = bound, count
    return lower, total


@dataclass
class Pipeline:
    """`creditstream run`, and the generator beside it."""

    place: Place
    http_address: str
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def command(self, *arguments: str) -> str:
        """Run a command of creditstream to its end; its stdout."""
        child = self._spawn(*arguments)
        try:
            output, _ = child.communicate(timeout=COMMAND_WAIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise DemoError(f"`creditstream {arguments[0]}` did not end within {COMMAND_WAIT_S} s\n"
                            f"{self.log_tail()}") from None
        self._forget(child)
        if child.returncode != 0:
            raise DemoError(f"`creditstream {' '.join(arguments)}` ended with {child.returncode}\n{self.log_tail()}")
        return output

    def generate(self, part: str, *arguments: str) -> subprocess.Popen[str]:
        """Begin to send events; `generated` waits for the end."""
        return self._spawn("generate", *arguments, "--books", str(self.place.books(part)))

    def generated(self, child: subprocess.Popen[str]) -> dict[str, float]:
        """What the generator says that it sent."""
        try:
            output, _ = child.communicate(timeout=COMMAND_WAIT_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the generator did not end within {COMMAND_WAIT_S} s\n{self.log_tail()}") from None
        self._forget(child)
        if child.returncode != 0:
            raise DemoError(f"the generator ended with {child.returncode}\n{self.log_tail()}")
        return json.loads(output)

    def start(self) -> int:
        """Start the pipeline, and wait until every shard is restored; its pid."""
        self.process = self._spawn("run")
        deadline = time.monotonic() + READY_WAIT_S
        while True:
            self.check_runs()
            try:
                urllib.request.urlopen(f"http://{self.http_address}/readyz", timeout=2).close()
                return self.process.pid
            except OSError:
                if time.monotonic() > deadline:
                    raise DemoError(f"creditstream is not ready after {READY_WAIT_S} s\n{self.log_tail()}") from None
                time.sleep(0.05)

    def kill(self) -> int:
        """SIGKILL; how the process ended, as the kernel tells: -9 if it was this."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        code = self.process.wait(STOP_WAIT_S)
        self._forget(self.process)
        return code

    def stop(self) -> None:
        """SIGTERM; it must end by itself, and well."""
        assert self.process is not None
        self.process.terminate()
        try:
            code = self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"creditstream did not stop within {STOP_WAIT_S} s of SIGTERM\n{self.log_tail()}") from None
        self._forget(self.process)
        self.process = None
        if code != 0:
            raise DemoError(f"creditstream ended with {code} after SIGTERM\n{self.log_tail()}")

    def scrape(self) -> Scrape:
        """Ask the running pipeline for its metrics."""
        self.check_runs()
        try:
            with urllib.request.urlopen(f"http://{self.http_address}/metrics", timeout=5) as answer:
                return parse(answer.read().decode())
        except OSError as error:
            self.check_runs()
            raise DemoError(f"/metrics does not answer: {error}\n{self.log_tail()}") from error

    def check_runs(self) -> None:
        """A pipeline that ended by itself is an answer too, and not to be waited for."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise DemoError(f"creditstream ended by itself with {self.process.returncode}\n{self.log_tail()}")

    def close(self) -> None:
        """End whatever still runs. An impatient second Ctrl-C must not leave something behind."""
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(CLOSE_WAIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.children.clear()
        places.note_pids(self.place.lock, [])
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def log_tail(self) -> str:
        """The end of the log, for a message."""
        if not self.place.log.exists():
            return "(no log yet)"
        lines = self.place.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join([f"The end of {places.shown(self.place.log)}:", *(f"  {line}" for line in lines)])

    def _spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """In a session of its own: Ctrl-C reaches the demo, which then ends its children in order."""
        command = [str(self.place.binary), "--config", str(self.place.config), "--format", "json", *arguments]
        with self.place.log.open("a") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log if arguments[0] == "run" else subprocess.PIPE, stderr=log,
                text=True, env=self.place.environment, start_new_session=True, pass_fds=[self.place.lock])
        self.children.append(child)
        places.note_pids(self.place.lock, [child.pid for child in self.children])
        return child

    def _forget(self, child: subprocess.Popen[str]) -> None:
        self.children.remove(child)
        places.note_pids(self.place.lock, [child.pid for child in self.children])
