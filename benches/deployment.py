"""A deployment for one measurement: the real binary, with topics, groups and a database of its own on the local stack.

Owns: names, configuration files, the process under measurement, and that all of it is deleted in the end.
Must not: send events, or judge what was measured.
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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.append(str(CHECKOUT / "stack"))

try:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
except ModuleNotFoundError as missing:
    sys.exit(f"bench: Python module {missing.name} is not there: use `make bench-…`, which runs the stack's Python")

import processes
from components import COMPONENTS, Stack

BINARY = Path(os.environ.get("CREDITSTREAM_BIN") or CHECKOUT / "target" / "release" / "creditstream").absolute()
# What `make release` leaves.
OPTIMISED = CHECKOUT / "target" / "optimised" / "creditstream"
SHARDS = 12
START_POLL_S = 0.1
START_WAIT_S = 60
STOP_WAIT_S = 60
DROP_WAIT_S = 60
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SOURCES = ("generation", "wallet")
OUTPUTS = ("ledger", "wallets", "progress", "alerts", "alerts_dead", "quarantine", "intake")
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


class BenchError(Exception):
    """What went wrong, and what to do."""


@dataclass(frozen=True)
class Metrics:
    """One answer of /metrics."""

    samples: list[tuple[str, dict[str, str], float]]

    @classmethod
    def parse(cls, text: str) -> Metrics:
        found = SAMPLE.findall(text)
        return cls([(name, dict(LABEL.findall(labels)), float(value)) for name, labels, value in found])

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of each series of a name."""
        return ((labels, value) for found, labels, value in self.samples if found == f"creditstream_{name}")

    def sum(self, name: str, **wanted: str) -> int:
        """Of all series that have these labels."""
        return int(sum(value for labels, value in self.of(name) if wanted.items() <= labels.items()))


@dataclass(frozen=True)
class Instance:
    """The process under measurement."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def is_ready(self) -> bool:
        """Whether it serves all shards that it was given."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=10):
                return True
        except urllib.error.HTTPError:
            return False

    def metrics(self) -> Metrics:
        if self.process.poll() is not None:
            raise BenchError(f"creditstream ended with {self.process.returncode}:\n{tail(self.log)}")
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as answer:
            return Metrics.parse(answer.read().decode())

    def cpu_s(self) -> float:
        return cpu_seconds(Path("/proc") / str(self.process.pid) / "stat")[1]

    def rss_mb(self) -> int:
        return processes.rss_mb(self.process.pid)

    def stop(self) -> None:
        """In order, or by force if that takes too long; nothing if it has ended."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Deployment:
    """Everything of one name. Parts of it share the source topics, and nothing else."""

    def __init__(self, settings: list[str], folder: Path, suffix: str = "") -> None:
        self.settings, self.folder = settings, folder
        stack = Stack.from_environment()
        self.name = f"bench-{os.getpid()}{suffix}"
        self.brokers = stack.address(COMPONENTS["kafka"])
        self.clickhouse = stack.address(COMPONENTS["clickhouse"]).rstrip("/")
        # What somebody else runs cannot be measured.
        records = {name: processes.read_record(stack.folder, name) for name in ("kafka", "clickhouse")}
        self.pids = {name: record.pid for name, record in records.items() if record}
        self.topics: set[str] = set()
        self.groups: set[str] = set()
        self.databases = {self.database}

    def topic(self, key: str, part: str) -> str:
        return f"{self.name}.{key}" if key in SOURCES else f"{self.name}.{part}.{key}"

    def write_config(self, part: str, more: str = "") -> Path:
        """Sources that all parts share, and everything else of a name of its own; `more`: further tables."""
        names = {key: self.topic(key, part) for key in SOURCES + OUTPUTS}
        self.topics.update(names.values())
        group = f"{self.name}-{part}"
        self.groups.add(group)
        topics = "\n".join(f'{key} = "{name}"' for key, name in names.items())
        path = self.config_of(part)
        path.write_text(f"""[kafka]
brokers = "{self.brokers}"
[topics]
shards = {SHARDS}
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
{more}""", encoding="utf-8")
        return path

    def config_of(self, part: str) -> Path:
        return self.folder / f"{part}.toml"

    @property
    def database(self) -> str:
        """`init` makes it; nothing is written to it."""
        return self.name.replace("-", "_")

    def command(self, binary: Path, config: Path, *arguments: str, limit_s: float = START_WAIT_S,
                settings: Mapping[str, str] = {}) -> str:
        """Run a command to its end; its stdout. `settings`: in place of those of the configuration."""
        ended = subprocess.run(
            [str(binary), "--config", str(config), "--format", "json", *arguments], env=self.environment(settings),
            capture_output=True, text=True, timeout=limit_s, check=False)
        if ended.returncode != 0:
            raise BenchError(f"`creditstream {' '.join(arguments)}` ended with {ended.returncode}: {ended.stderr[-2000:]}")
        return ended.stdout

    def environment(self, settings: Mapping[str, str] = {}) -> dict[str, str]:
        """Without settings of the caller: those of the file are in force. `--set` is for others, `settings` for one process."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CREDITSTREAM__")}
        given = {**dict(setting.split("=", 1) for setting in self.settings), **settings}
        return {**clean, **{f"CREDITSTREAM__{name.upper().replace('.', '__')}": value for name, value in given.items()}}

    @contextmanager
    def ledger_stage(self, binary: Path, part: str, roles: tuple[str, ...] = ("ledger",), more: str = "") -> Iterator[Instance]:
        """The ledger stage over topics of its own; stopped in the end, and those topics deleted. `more`: tables of its
        configuration that other roles need."""
        config = self.write_config(part, more)
        self.command(binary, config, "init")
        try:
            with self.instance(binary, config, part, roles) as instance:
                yield instance
        finally:
            self.delete({self.topic(key, part) for key in OUTPUTS})

    @contextmanager
    def instance(self, binary: Path, config: Path, name: str, roles: tuple[str, ...] = ("ledger",),
                 settings: Mapping[str, str] = {}) -> Iterator[Instance]:
        """A process of a part that is set up; stopped in the end, if it still runs. `settings`: what it has for itself."""
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(binary), "--config", str(config), "run", *(f"--role={role}" for role in roles)],
                env=self.environment(settings), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        instance = Instance(process, "", log)
        try:
            yield replace(instance, address=address_of(process, log))
        finally:
            instance.stop()

    @contextmanager
    def another_database(self, binary: Path, config: Path, part: str) -> Iterator[str]:
        """A database with the schema and without rows; dropped in the end."""
        name = f"{self.database}_{part}"
        self.databases.add(name)
        self.command(binary, config, "init", settings={"clickhouse.database": name})
        try:
            yield name
        finally:
            self.drop(name)

    def drop(self, database: str) -> None:
        statement = f"DROP DATABASE IF EXISTS {database} SYNC".encode()
        urllib.request.urlopen(urllib.request.Request(self.clickhouse, data=statement), timeout=DROP_WAIT_S).close()
        self.databases.discard(database)

    def producer_settings(self) -> dict[str, str | int]:
        """Keys go to the partitions of their shards, and what waits is sent in large pieces."""
        return {
            "bootstrap.servers": self.brokers, "partitioner": "murmur2_random", "acks": "all", "compression.type": "lz4",
            "linger.ms": 20, "batch.size": 1_000_000}

    def consumer_settings(self, isolation: str) -> dict[str, str | bool]:
        """A reader that is a member of no group."""
        return {
            "bootstrap.servers": self.brokers, "group.id": f"{self.name}-reader", "isolation.level": isolation,
            "enable.auto.commit": False, "enable.partition.eof": True}

    def broker_cpu_s(self) -> float:
        return self.component_cpu_s("kafka")

    def component_cpu_s(self, name: str) -> float:
        return cpu_seconds(Path("/proc") / str(self.pids[name]) / "stat")[1] if name in self.pids else 0.0

    def delete(self, topics: set[str]) -> None:
        """Only what this run made."""
        client = AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})
        there = topics & set(client.list_topics(timeout=10).topics)
        if there:
            for future in client.delete_topics(sorted(there), operation_timeout=30).values():
                future.result()
        self.topics -= topics

    def configure(self, topic: str, settings: Mapping[str, str | int]) -> None:
        """Settings of a topic, in place of the broker's."""
        entries = [ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        client = AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})
        for future in client.incremental_alter_configs([resource]).values():
            future.result(DROP_WAIT_S)

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
            for database in sorted(self.databases):
                self.drop(database)
        except (KafkaException, OSError) as error:
            print(f"bench: not everything of {self.name} was deleted: {error}", file=sys.stderr)


def run(options: argparse.Namespace, measure: Callable[[Deployment], None]) -> int:
    """One measurement upon a deployment of its own, which is gone in the end; the exit code."""
    def whole() -> None:
        with tempfile.TemporaryDirectory(prefix="creditstream-bench-") as folder:
            deployment = Deployment(options.set, Path(folder))
            try:
                measure(deployment)
            finally:
                deployment.close()

    return exit_code(whole)


def exit_code(work: Callable[[], None]) -> int:
    """0, or 1 once it was said what went wrong."""
    try:
        work()
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def spread(values: list[float], digits: int = 0) -> str:
    """Median, and from where to where."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting of the ledger stage")


def cpu_seconds(stat: Path) -> tuple[str, float]:
    """Name and CPU time, user and system, of a process or thread; 0 if it is gone."""
    try:
        name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
    except OSError:
        return "", 0.0
    fields = rest.split()
    return name, (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def machine_cpu_seconds() -> float:
    """CPU time of everything that runs here, whoever began it."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / TICKS_PER_S


def address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it serves /metrics, once it says so."""
    deadline = time.monotonic() + START_WAIT_S
    while True:
        for line in log.read_text().splitlines():
            if "serving /metrics" in line:
                return str(json.loads(line)["address"])
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"creditstream did not start:\n{tail(log)}")
        time.sleep(START_POLL_S)


def tail(log: Path) -> str:
    return log.read_text()[-2000:]
