"""What is under fire: Kafka brokers and a ClickHouse engine of their own, three instances, proxies in between.

Owns: every process, mount and file of a run, all under one folder. Invariant: nothing that this run did not start is
signalled, and the shared local stack is not touched. Must not: decide what breaks (faults.py) or what is right (proof.py).
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path += [str(CHECKOUT / "stack"), str(CHECKOUT / "benches")]

from confluent_kafka.admin import AdminClient

import processes
from components import COMPONENTS, Stack, java, kafka_is_healthy, kafka_properties
from deployment import Metrics
from proxy import Link, Proxies

INSTANCES = 3
# Enough for two each; every partition is one more log to recover after a kill of the broker.
SHARDS = 6
# Short, so that a frozen instance is given up within a run of minutes.
SESSION_TIMEOUT_MS = 6_000
STORE_MIB = 64
# Below the range of passing ports. ClickHouse; each broker and its controller; then per instance: metrics, its way to
# ClickHouse, its ways to each broker, and where they lead.
PORT_BASE = 29_300
COMPONENT_WAIT_S = 90
STOP_WAIT_S = 45
BEGIN_WAIT_S = 15
# An instance that gives up just as the broker is back is noticed by then.
NOTICE_WAIT_S = 3
EXIT_UNAVAILABLE = 69
# What the tool says of a transaction that is not open any more.
NOT_OPEN = "Could not find any open transactions"
COMMAND_WAIT_S = 120
DATABASE = "chaos"
LEDGER_GROUP, SINK_GROUP = "chaos-ledger", "chaos-sink"
TOPICS = {
    "generation": "chaos.generation.events", "wallet": "chaos.wallet.events", "ledger": "chaos.credits.ledger",
    "wallets": "chaos.credits.wallets", "progress": "chaos.credits.progress", "alerts": "chaos.credits.alerts",
    "alerts_dead": "chaos.credits.alerts.dead", "quarantine": "chaos.credits.quarantine",
    "intake": "chaos.credits.intake",
}


class ChaosError(Exception):
    """The run itself cannot go on; the message says why."""


@dataclass(frozen=True)
class Broker:
    """One Kafka broker, a controller too."""

    number: int
    port: int
    controller_port: int

    @property
    def name(self) -> str:
        return f"kafka-{self.number}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def voter(self) -> str:
        return f"{self.number}@127.0.0.1:{self.controller_port}"


@dataclass
class Instance:
    """One creditstream, its folder and its ways to Kafka and ClickHouse."""

    name: str
    folder: Path
    http_port: int
    # One for each broker.
    kafka_links: list[Link]
    clickhouse_link: Link
    process: subprocess.Popen[bytes] | None = None
    # Whether it is meant to run: an end by itself is then a finding.
    is_wanted: bool = False

    @property
    def config(self) -> Path:
        return self.folder / "creditstream.toml"

    @property
    def log(self) -> Path:
        return self.folder / "creditstream.log"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def links(self) -> list[Link]:
        return [*self.kafka_links, self.clickhouse_link]

    def has_begun(self) -> bool:
        return self._get("/livez") is not None

    def is_ready(self) -> bool:
        return self._get("/readyz") is not None

    def metrics(self) -> Metrics | None:
        """None while it does not answer."""
        text = self._get("/metrics")
        return None if text is None else Metrics.parse(text)

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return None


@dataclass
class Cluster:
    """All of it."""

    binary: Path
    folder: Path
    stack: Stack
    kafka: list[Broker]
    instances: list[Instance]
    proxies: Proxies
    # Ends of instances that nobody asked for.
    findings: list[str] = field(default_factory=list)
    # Those that were started while the broker was away, and gave up, as they must: a supervisor starts them again.
    gave_up: list[str] = field(default_factory=list)
    # When Kafka answered again; None: it is away.
    kafka_back_at: float | None = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    mounts: list[Path] = field(default_factory=list)
    kafka_id: str = field(default_factory=lambda: base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))

    @property
    def brokers(self) -> str:
        return ",".join(broker.address for broker in self.kafka)

    @property
    def clickhouse_url(self) -> str:
        return f"http://127.0.0.1:{self.stack.port_of('clickhouse')}"

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})

    # --- components ---------------------------------------------------------------------------------------------------

    def start_clickhouse(self) -> None:
        component = COMPONENTS["clickhouse"]
        component.prepare(self.stack)
        address = self.stack.local_address(component)
        processes.start(self.stack.folder, "clickhouse", component.command(self.stack), address)
        self._wait_for("clickhouse", address, component.is_healthy)

    def start_brokers(self, brokers: list[Broker]) -> None:
        """Start them, and wait until they answer: none of three does before there are two."""
        for broker in brokers:
            properties = self.stack.configuration(f"{broker.name}.properties")
            self.stack.write_configuration(properties.name, kafka_properties(self.stack) + self._properties(broker))
            if not (self.stack.data(broker.name) / "meta.properties").exists():
                self._format(broker, properties)
            processes.start(self.stack.folder, broker.name, [*java(self.stack), "kafka.Kafka", str(properties)], broker.address)
        for broker in brokers:
            self._wait_for(broker.name, broker.address, kafka_is_healthy)
        self.kafka_back_at = time.monotonic()

    def _format(self, broker: Broker, properties: Path) -> None:
        self.stack.data(broker.name).mkdir(parents=True)
        ended = subprocess.run(
            [*java(self.stack), "kafka.tools.StorageTool", "format", f"--cluster-id={self.kafka_id}", "-c", str(properties)],
            capture_output=True, text=True, timeout=COMMAND_WAIT_S, check=False)
        if ended.returncode != 0:
            raise ChaosError(f"the storage of {broker.name} could not be formatted: {ended.stderr[-1500:]}")

    def _wait_for(self, name: str, address: str, is_healthy: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + COMPONENT_WAIT_S
        while not is_healthy(address):
            if processes.read_record(self.stack.folder, name) is None or time.monotonic() > deadline:
                log = processes.log_path(self.stack.folder, name)
                raise ChaosError(f"{name} does not start; the end of {log}:\n{processes.last_lines(log)}")
            time.sleep(0.1)

    def stop_broker(self, broker: Broker) -> None:
        self._note_absence()
        processes.stop(self.stack.folder, [broker.name], STOP_WAIT_S)

    def kill_broker(self, broker: Broker) -> None:
        self._note_absence()
        self._kill(broker.name)

    def kill_clickhouse(self) -> None:
        self._kill("clickhouse")

    def _note_absence(self) -> None:
        """One of three is no absence."""
        if len(self.kafka) == 1:
            self.kafka_back_at = None

    def _kill(self, name: str) -> None:
        record = processes.read_record(self.stack.folder, name)
        if record is None:
            raise ChaosError(f"{name} ended by itself; see {processes.log_path(self.stack.folder, name)}")
        os.kill(record.pid, signal.SIGKILL)
        processes.stop(self.stack.folder, [name], STOP_WAIT_S)

    def abort_hanging(self) -> int:
        """What docs/runbooks.md says about a transaction that a broker left open; how many partitions had one. A broker
        that starts again can take a transaction for complete whose markers it never wrote."""
        aborted = 0
        # It lists what is open for longer than so many minutes: one is the least.
        tables = [self._transactions("find-hanging", "--broker-id", str(broker.number), "--max-transaction-timeout", "1")
                  for broker in self.kafka]
        for line in [line for table in tables for line in table.splitlines()[1:]]:
            topic, partition, _, _, _, start_offset = line.split()[:6]
            try:
                self._transactions("abort", "--topic", topic, "--partition", partition, "--start-offset", start_offset)
                aborted += 1
            except ChaosError as error:
                # It ended between the two commands: an instance came back and settled it.
                if NOT_OPEN not in str(error):
                    raise
        return aborted

    def _transactions(self, *arguments: str) -> str:
        """Kafka's own tool for transactions; its stdout."""
        ended = subprocess.run(
            [*java(self.stack), "org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", self.brokers, *arguments],
            capture_output=True, text=True, timeout=COMMAND_WAIT_S, check=False)
        if ended.returncode != 0:
            raise ChaosError(f"kafka-transactions {arguments[0]} ended with {ended.returncode}: {ended.stderr[-1500:]}")
        return ended.stdout

    def _properties(self, broker: Broker) -> str:
        """What a broker has beyond the local stack's: a listener for each instance, whose advertised address is the instance's
        proxy, a way back soon after it was killed, and replicas on the others. Of two lines with the same name the last
        counts."""
        names = [f"P{number}" for number in range(len(self.instances))]
        links = [instance.kafka_links[broker.number - 1] for instance in self.instances]
        listen = [f"{name}://127.0.0.1:{link.target_port}" for name, link in zip(names, links)]
        advertise = [f"{name}://127.0.0.1:{link.port}" for name, link in zip(names, links)]
        protocols = [f"{name}:PLAINTEXT" for name in (*names, "PLAINTEXT", "CONTROLLER")]
        own, controller = f"PLAINTEXT://{broker.address}", f"CONTROLLER://127.0.0.1:{broker.controller_port}"
        replicas, needed = len(self.kafka), min(2, len(self.kafka))
        return (f"node.id={broker.number}\ncontroller.quorum.voters={','.join(one.voter for one in self.kafka)}\n"
                f"log.dirs={self.stack.data(broker.name)}\n"
                f"listeners={','.join([own, controller, *listen])}\n"
                f"advertised.listeners={','.join([own, *advertise])}\n"
                f"listener.security.protocol.map={','.join(protocols)}\n"
                "inter.broker.listener.name=PLAINTEXT\n"
                "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=1000\n"
                "num.recovery.threads.per.data.dir=4\n"
                f"min.insync.replicas={needed}\n"
                f"offsets.topic.num.partitions=3\noffsets.topic.replication.factor={replicas}\n"
                f"transaction.state.log.num.partitions=3\ntransaction.state.log.replication.factor={replicas}\n"
                f"transaction.state.log.min.isr={needed}\n")

    # --- instances ----------------------------------------------------------------------------------------------------

    def start_instance(self, instance: Instance) -> None:
        """In a session of its own: Ctrl-C reaches the harness, which then ends its children in order."""
        with self.lock, instance.log.open("ab") as log:
            instance.process = subprocess.Popen(
                [str(self.binary), "--config", str(instance.config), "run"], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=clean_environment(), start_new_session=True)
            instance.is_wanted = True

    def end_instance(self, instance: Instance, number: signal.Signals) -> None:
        """By SIGKILL or SIGTERM. One that does not end well after SIGTERM is a finding."""
        with self.lock:
            process = instance.process
            assert process is not None
            if instance.is_wanted and process.poll() is not None:
                self._note_end(instance, process.returncode)
            instance.is_wanted = False
        # Without its handler, in the first moments of a process, SIGTERM just ends it.
        deadline = time.monotonic() + BEGIN_WAIT_S
        while number == signal.SIGTERM and not instance.has_begun() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        try:
            code = process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.findings.append(f"{instance.name} did not end within {STOP_WAIT_S} s of {number.name}; {instance.log}")
            process.kill()
            process.wait()
            return
        if number == signal.SIGTERM and code != 0:
            self.findings.append(f"{instance.name} ended with {code} after SIGTERM at {clock()}; {instance.log}")

    def watch(self) -> None:
        """Start again what ended by itself, as a supervisor does, and note it."""
        with self.lock:
            for instance in self.instances:
                if instance.is_wanted and instance.process is not None and instance.process.poll() is not None:
                    self._note_end(instance, instance.process.returncode)
                    self.start_instance(instance)

    def _note_end(self, instance: Instance, code: int) -> None:
        is_kafka_away = self.kafka_back_at is None or time.monotonic() - self.kafka_back_at < NOTICE_WAIT_S
        if code == EXIT_UNAVAILABLE and is_kafka_away:
            self.gave_up.append(f"{instance.name} at {clock()}")
            return
        self.findings.append(f"{instance.name} ended by itself with {code} at {clock()}; {instance.log}")

    def command(self, *arguments: str) -> str:
        """A command of creditstream to its end, by the direct way; its stdout."""
        ended = subprocess.run(
            [str(self.binary), "--config", str(self.folder / "direct.toml"), "--format", "json", *arguments],
            env=clean_environment(), capture_output=True, text=True, timeout=COMMAND_WAIT_S, check=False)
        if ended.returncode != 0:
            raise ChaosError(f"`creditstream {arguments[0]}` ended with {ended.returncode}: {ended.stderr[-1500:]}")
        return ended.stdout

    # --- beginning and end --------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Components, topics, tables, and stores on small file systems of their own."""
        for instance in self.instances:
            instance.store.mkdir(parents=True)
            made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STORE_MIB}m", "chaos", str(instance.store)],
                                  capture_output=True, text=True, check=False)
            if made.returncode != 0:
                raise ChaosError("a store of limited size, to be filled, needs the right to mount a tmpfs "
                                 f"(root, CAP_SYS_ADMIN): {made.stderr.strip()}")
            self.mounts.append(instance.store)
            self._write_config(instance.config, instance)
        self._write_config(self.folder / "direct.toml", None)
        self.start_clickhouse()
        self.start_brokers(self.kafka)
        self.command("init")

    def _write_config(self, path: Path, instance: Instance | None) -> None:
        topics = "\n".join(f'{key} = "{name}"' for key, name in TOPICS.items())
        kafka = ",".join(f"127.0.0.1:{link.port}" for link in instance.kafka_links) if instance else self.brokers
        clickhouse = instance.clickhouse_link.port if instance else self.stack.port_of("clickhouse")
        path.write_text(f"""# Written by chaos/cluster.py at every run.
[kafka]
brokers = "{kafka}"
[topics]
shards = {SHARDS}
replication_factor = {len(self.kafka)}
{topics}
[ledger]
group = "{LEDGER_GROUP}"
instance = "{instance.name if instance else 'direct'}"
session_timeout_ms = {SESSION_TIMEOUT_MS}
[sink]
group = "{SINK_GROUP}"
retry_ms_max = 2000
[store]
path = "{instance.store if instance else ''}"
# Often, and most identities on disk: what is deleted or damaged is to be something.
checkpoint_seconds = 2
identities_in_memory = 10000
[clickhouse]
url = "http://127.0.0.1:{clickhouse}"
database = "{DATABASE}"
[http]
listen = "{f'127.0.0.1:{instance.http_port}' if instance else ''}"
[log]
format = "human"
""", encoding="utf-8")

    def close(self) -> None:
        """End everything; logs and the report stay, data go."""
        with self.lock:
            for instance in self.instances:
                instance.is_wanted = False
                if instance.process is not None and instance.process.poll() is None:
                    instance.process.send_signal(signal.SIGCONT)
                    instance.process.kill()
                    instance.process.wait()
        processes.stop(self.stack.folder, [*(broker.name for broker in self.kafka), "clickhouse"], STOP_WAIT_S)
        self.proxies.close()
        for mount in self.mounts:
            subprocess.run(["umount", str(mount)], check=False)
        shutil.rmtree(self.stack.folder / "data", ignore_errors=True)


def build(binary: Path, brokers: int) -> Cluster:
    """Find what is needed, clear what an earlier run left, and lay everything out."""
    if not os.access(binary, os.X_OK):
        raise ChaosError(f"{binary} is not there: `make build` builds it (CREDITSTREAM_BIN names another one)")
    shared = Stack.from_environment().folder
    folder = shared / "chaos"
    shared.mkdir(parents=True, exist_ok=True)
    # Held until this process ends, however it does.
    lock = os.open(shared / "chaos.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ChaosError("another run is under way") from error
    processes.stop(folder, [path.stem for path in (folder / "pids").glob("*.json")], STOP_WAIT_S)
    for store in folder.glob("i*/store"):
        if store.is_mount():
            subprocess.run(["umount", str(store)], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The broker is started often, and never runs long enough to pay for a second compiler.
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    # What was downloaded once is used as it is.
    for name in ("downloads", "venv"):
        (folder / name).symlink_to(shared / name)
    ports = list(range(PORT_BASE, PORT_BASE + 1 + 2 * brokers + INSTANCES * (2 + 2 * brokers)))
    taken = [port for port in ports if not processes.port_is_free(port)]
    if taken:
        raise ChaosError(f"ports {taken} are in use: another run, or another program")
    port = iter(ports)
    clickhouse = next(port)
    kafka = [Broker(number, next(port), next(port)) for number in range(1, brokers + 1)]
    stack = Stack(folder, {"CREDITSTREAM_STACK_KAFKA_PORT": str(kafka[0].port),
                           "CREDITSTREAM_STACK_KAFKA_CONTROLLER_PORT": str(kafka[0].controller_port),
                           "CREDITSTREAM_STACK_CLICKHOUSE_PORT": str(clickhouse)})
    instances = []
    for number in range(1, INSTANCES + 1):
        name, http, to_clickhouse = f"i{number}", next(port), next(port)
        to_kafka = [Link(next(port), next(port)) for _ in kafka]
        instances.append(Instance(name, folder / name, http, to_kafka, Link(to_clickhouse, clickhouse)))
    proxies = Proxies([link for one in instances for link in one.links])
    return Cluster(binary, folder, stack, kafka, instances, proxies)


def clean_environment() -> dict[str, str]:
    """Without settings of the caller: those of the files are in force."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CREDITSTREAM__")}


def clock() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())
