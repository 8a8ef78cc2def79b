"""What an event costs in the ledger stage: a preloaded backlog through the real binary and the local Kafka.

    make bench-ledger                                     2,000,000 events of 100,000 wallets, one round
    make bench-ledger BENCH="--events 300000 --rounds 3"  fewer events, three times
    make bench-ledger BENCH="--binary A --binary B --rounds 2"  two builds in turn, over the same events

Each round is a deployment of its own over the same source topics, without a sink, so that builds can be compared in one
sitting. The number to look at is the CPU time per event: events/s also depends on what else the machine does.
All topics, the consumer groups and the database are deleted at the end. Exit code 1: a round did not get through.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.append(str(CHECKOUT / "stack"))

try:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient
except ModuleNotFoundError as missing:
    sys.exit(f"bench: Python module {missing.name} is not there: run `make bench-ledger`, which uses the stack's Python")

import processes
from components import COMPONENTS, Stack

POLL_S = 0.1
START_WAIT_S = 60
STOP_WAIT_S = 60
# A round that is slower than this hangs.
EVENTS_PER_S_MIN = 5_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Not an outcome of the record: it is counted again where it goes, or was counted before.
NOT_FINAL = ("handed_over", "skipped")
EVENTS_TOTAL = re.compile(r'^creditstream_events_total\{(.*)\} (\S+)$', re.MULTILINE)
OUTCOME = re.compile(r'outcome="(\w+)"')
SOURCES = ("generation", "wallet")
OUTPUTS = ("ledger", "wallets", "progress", "alerts", "alerts_dead", "quarantine", "intake")


class BenchError(Exception):
    """What went wrong, and what to do."""


@dataclass
class Reading:
    """All counters at one moment."""

    at: float
    processed: int
    cpu_s: float
    broker_cpu_s: float
    rss_mb: int
    threads_s: Counter[str] = field(default_factory=Counter)


def cpu_seconds(stat: Path) -> tuple[str, float]:
    """Name and CPU time, user and system, of a process or thread; 0 if it is gone."""
    try:
        name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
    except OSError:
        return "", 0.0
    fields = rest.split()
    return name, (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Bench:
    """The source topics, and rounds over them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.stack = Stack.from_environment()
        self.name = f"bench-{os.getpid()}"
        self.brokers = self.stack.address(COMPONENTS["kafka"])
        self.clickhouse = self.stack.address(COMPONENTS["clickhouse"]).rstrip("/")
        record = processes.read_record(self.stack.folder, "kafka")
        # A broker that somebody else runs cannot be measured.
        self.broker_pid = record.pid if record else None
        self.topics: set[str] = set()
        self.groups: set[str] = set()

    def preload(self, binary: Path) -> int:
        """Fill the source topics; the number of records."""
        config = self.write_config("preload")
        self.command(binary, config, "init")
        summary = self.command(
            binary, config, "generate", "--events", str(self.options.events), "--wallets", str(self.options.wallets),
            "--duplicates", "1", "--wrong-keys", "5")
        return int(json.loads(summary)["records"])

    def command(self, binary: Path, config: Path, *arguments: str) -> str:
        """Run a command to its end; its stdout."""
        limit_s = START_WAIT_S + self.options.events / EVENTS_PER_S_MIN
        ended = subprocess.run(
            [str(binary), "--config", str(config), "--format", "json", *arguments], env=self.environment(),
            capture_output=True, text=True, timeout=limit_s, check=False)
        if ended.returncode != 0:
            raise BenchError(f"`creditstream {' '.join(arguments)}` ended with {ended.returncode}: {ended.stderr[-2000:]}")
        return ended.stdout

    def environment(self) -> dict[str, str]:
        """Without settings of the caller: those of the file are in force. `--set` is for others."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CREDITSTREAM__")}
        settings = dict(setting.split("=", 1) for setting in self.options.set)
        return {**clean, **{f"CREDITSTREAM__{name.upper().replace('.', '__')}": value for name, value in settings.items()}}

    def write_config(self, part: str) -> Path:
        """Sources that all rounds share, and everything else of a name of its own."""
        names = {key: f"{self.name}.{key}" for key in SOURCES} | {key: f"{self.name}.{part}.{key}" for key in OUTPUTS}
        self.topics.update(names.values())
        group = f"{self.name}-{part}"
        self.groups.add(group)
        topics = "\n".join(f'{key} = "{name}"' for key, name in names.items())
        path = self.folder / f"{part}.toml"
        path.write_text(f"""[kafka]
brokers = "{self.brokers}"
[topics]
shards = 12
{topics}
[ledger]
group = "{group}"
instance = "bench"
[store]
path = "{self.folder / part}"
[clickhouse]
url = "{self.clickhouse}"
database = "{self.database}"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
""", encoding="utf-8")
        return path

    @property
    def database(self) -> str:
        """`init` makes it; no round writes to it."""
        return self.name.replace("-", "_")

    def round(self, binary: Path, number: int, records: int) -> tuple[Reading, Reading]:
        """One deployment, from its first committed batch to its last."""
        part = f"round{number}"
        config = self.write_config(part)
        self.command(binary, config, "init")
        log = self.folder / f"{part}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(binary), "--config", str(config), "run", "--role", "ledger"], env=self.environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            return self.measure(process, log, records)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.delete({topic for topic in self.topics if f".{part}." in topic})

    def measure(self, process: subprocess.Popen[bytes], log: Path, records: int) -> tuple[Reading, Reading]:
        deadline = time.monotonic() + START_WAIT_S
        while (address := address_in(log)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"creditstream did not start:\n{log.read_text()[-2000:]}")
            time.sleep(POLL_S)
        deadline = time.monotonic() + START_WAIT_S + records / EVENTS_PER_S_MIN
        first = None
        while True:
            if process.poll() is not None:
                raise BenchError(f"creditstream ended with {process.returncode}:\n{log.read_text()[-2000:]}")
            now = self.read(process.pid, address)
            if first is None and now.processed > 0:
                first = now
            if first is not None and now.processed >= records:
                return first, now
            if time.monotonic() > deadline:
                raise BenchError(f"{now.processed} of {records} records were processed when time was up")
            time.sleep(POLL_S)

    def read(self, pid: int, address: str) -> Reading:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        processed = sum(
            int(float(value)) for labels, value in EVENTS_TOTAL.findall(text)
            if (outcome := OUTCOME.search(labels)) and outcome[1] not in NOT_FINAL)
        folder = Path("/proc") / str(pid)
        broker_s = cpu_seconds(Path("/proc") / str(self.broker_pid) / "stat")[1] if self.broker_pid else 0.0
        threads: Counter[str] = Counter()
        for task in folder.glob("task/*/stat"):
            name, seconds = cpu_seconds(task)
            threads[name] += seconds
        return Reading(time.monotonic(), processed, cpu_seconds(folder / "stat")[1], broker_s, processes.rss_mb(pid), threads)

    def delete(self, topics: set[str]) -> None:
        """Only what this run made."""
        client = AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})
        there = topics & set(client.list_topics(timeout=10).topics)
        if there:
            for future in client.delete_topics(sorted(there), operation_timeout=30).values():
                future.result()
        self.topics -= topics

    def close(self) -> None:
        try:
            self.delete(set(self.topics))
            client = AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})
            for future in client.delete_consumer_groups(sorted(self.groups)).values():
                try:
                    future.result()
                except KafkaException:
                    # Never used, or its member's session has not ended yet: it ends by itself then.
                    pass
            statement = f"DROP DATABASE IF EXISTS {self.database}".encode()
            urllib.request.urlopen(urllib.request.Request(self.clickhouse, data=statement), timeout=30).close()
        except (KafkaException, OSError) as error:
            print(f"bench: not everything of {self.name} was deleted: {error}", file=sys.stderr)


def address_in(log: Path) -> str | None:
    for line in log.read_text().splitlines():
        if "serving /metrics" in line:
            return str(json.loads(line)["address"])
    return None


def report(binary: Path, number: int, first: Reading, last: Reading) -> None:
    events = max(last.processed - first.processed, 1)
    seconds = last.at - first.at

    def micros(cpu_s: float) -> float:
        return cpu_s / events * 1e6

    print(
        f"round {number} {binary}: {events / seconds:,.0f} events/s, ours {micros(last.cpu_s - first.cpu_s):.2f} µs/event, "
        f"broker's {micros(last.broker_cpu_s - first.broker_cpu_s):.2f} µs/event, RSS {last.rss_mb} MB, {seconds:.1f} s")
    threads = (last.threads_s - first.threads_s).most_common()
    print("  by thread, µs/event: " + ", ".join(f"{name} {micros(cpu):.2f}" for name, cpu in threads if micros(cpu) >= 0.01),
          flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000, help="usage events to preload")
    parser.add_argument("--wallets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each binary")
    parser.add_argument("--binary", type=Path, action="append", help="default: target/release/creditstream")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting of the rounds")
    options = parser.parse_args()
    binaries = [path.absolute() for path in options.binary or [CHECKOUT / "target" / "release" / "creditstream"]]
    with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder:
        bench = Bench(options, Path(folder))
        try:
            records = bench.preload(binaries[0])
            print(f"{records:,} records preloaded", flush=True)
            turns = [binary for _ in range(options.rounds) for binary in binaries]
            for number, binary in enumerate(turns, start=1):
                report(binary, number, *bench.round(binary, number, records))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
