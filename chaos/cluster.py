"""What is under fire: a Kafka broker and a ClickHouse engine of their own, three instances, proxies in between.

Owns: every process, mount and file of a run, all under one folder. Invariant: nothing that this run did not start is
signalled, and the shared local stack is not touched. Must not: decide what breaks (faults.py) or what is right (proof.py).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path += [str(CHECKOUT / "stack"), str(CHECKOUT / "benches")]

from confluent_kafka.admin import AdminClient

import processes
from components import COMPONENTS, Stack, java
from deployment import Metrics
from proxy import Link, Proxies

INSTANCES = 3
# Enough for two each; every partition is one more log to recover after a kill of the broker.
SHARDS = 6
# Short, so that a frozen instance is given up within a run of minutes.
SESSION_TIMEOUT_MS = 6_000
STORE_MIB = 64
# Below the range of passing ports. Kafka, its controller, ClickHouse; then per instance: metrics, its way to Kafka, its way to ClickHouse.
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


@dataclass
class Instance:
    """One creditstream, its folder and its ways to Kafka and ClickHouse."""

    name: str
    folder: Path
    http_port: int
    kafka_link: Link
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
        return [self.kafka_link, self.clickhouse_link]

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
    instances: list[Instance]
    proxies: Proxies
    # Ends of instances that nobody asked for.
    findings: list[str] = field(default_factory=list)
    # Those that were started while the broker was away, and gave up, as they must: a supervisor starts them again.
    gave_up: list[str] = field(default_factory=list)
    # When the broker answered again; None: it is away.
    kafka_back_at: float | None = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    mounts: list[Path] = field(default_factory=list)

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.stack.port_of('kafka')}"

    @property
    def clickhouse_url(self) -> str:
        return f"http://127.0.0.1:{self.stack.port_of('clickhouse')}"

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})

    # --- components ---------------------------------------------------------------------------------------------------

    def start_component(self, name: str) -> None:
        """Start Kafka or ClickHouse, and wait until it answers."""
        component = COMPONENTS[name]
        component.prepare(self.stack)
        if name == "kafka":
            self._add_listeners()
        address = self.stack.local_address(component)
        processes.start(self.stack.folder, name, component.command(self.stack), address)
        deadline = time.monotonic() + COMPONENT_WAIT_S
        while not component.is_healthy(address):
            if processes.read_record(self.stack.folder, name) is None or time.monotonic() > deadline:
                log = processes.log_path(self.stack.folder, name)
                raise ChaosError(f"{name} does not start; the end of {log}:\n{processes.last_lines(log)}")
            time.sleep(0.1)
        if name == "kafka":
            self.kafka_back_at = time.monotonic()

    def stop_component(self, name: str) -> None:
        self._note_absence(name)
        processes.stop(self.stack.folder, [name], STOP_WAIT_S)

    def _note_absence(self, name: str) -> None:
        if name == "kafka":
            self.kafka_back_at = None

    def kill_component(self, name: str) -> None:
        self._note_absence(name)
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
        table = self._transactions("find-hanging", "--broker-id", "1", "--max-transaction-timeout", "1").splitlines()
        for line in table[1:]:
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

    def _add_listeners(self) -> None:
        """A listener for each instance, whose advertised address is the instance's proxy; and a broker that may come
        back soon after it was killed. Of two lines with the same name the last counts."""
        kafka, controller = self.stack.port_of("kafka"), self.stack.port("CREDITSTREAM_STACK_KAFKA_CONTROLLER_PORT", 0)
        names = [f"P{number}" for number in range(len(self.instances))]
        links = [instance.kafka_link for instance in self.instances]
        listen = [f"{name}://127.0.0.1:{link.target_port}" for name, link in zip(names, links)]
        advertise = [f"{name}://127.0.0.1:{link.port}" for name, link in zip(names, links)]
        protocols = [f"{name}:PLAINTEXT" for name in (*names, "PLAINTEXT", "CONTROLLER")]
        own = f"PLAINTEXT://127.0.0.1:{kafka}"
        with self.stack.configuration("kafka.properties").open("a", encoding="utf-8") as file:
            file.write(f"listeners={','.join([own, f'CONTROLLER://127.0.0.1:{controller}', *listen])}\n"
                       f"advertised.listeners={','.join([own, *advertise])}\n"
                       f"listener.security.protocol.map={','.join(protocols)}\n"
                       "inter.broker.listener.name=PLAINTEXT\n"
                       "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=1000\n"
                       "num.recovery.threads.per.data.dir=4\n"
                       "offsets.topic.num.partitions=3\ntransaction.state.log.num.partitions=3\n")

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
        for name in ("clickhouse", "kafka"):
            self.start_component(name)
        self.command("init")

    def _write_config(self, path: Path, instance: Instance | None) -> None:
        topics = "\n".join(f'{key} = "{name}"' for key, name in TOPICS.items())
        kafka = instance.kafka_link.port if instance else self.stack.port_of("kafka")
        clickhouse = instance.clickhouse_link.port if instance else self.stack.port_of("clickhouse")
        path.write_text(f"""# Written by chaos/cluster.py at every run.
[kafka]
brokers = "127.0.0.1:{kafka}"
[topics]
shards = {SHARDS}
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
        processes.stop(self.stack.folder, ["kafka", "clickhouse"], STOP_WAIT_S)
        self.proxies.close()
        for mount in self.mounts:
            subprocess.run(["umount", str(mount)], check=False)
        shutil.rmtree(self.stack.folder / "data", ignore_errors=True)


def build(binary: Path) -> Cluster:
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
    if (folder / "pids").exists():
        processes.stop(folder, ["kafka", "clickhouse"], STOP_WAIT_S)
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
    ports = list(range(PORT_BASE, PORT_BASE + 3 + 4 * INSTANCES))
    taken = [port for port in ports if not processes.port_is_free(port)]
    if taken:
        raise ChaosError(f"ports {taken} are in use: another run, or another program")
    stack = Stack(folder, {"CREDITSTREAM_STACK_KAFKA_PORT": str(ports[0]),
                           "CREDITSTREAM_STACK_KAFKA_CONTROLLER_PORT": str(ports[1]),
                           "CREDITSTREAM_STACK_CLICKHOUSE_PORT": str(ports[2])})
    instances = []
    for number in range(INSTANCES):
        http, to_kafka, kafka, to_clickhouse = ports[3 + 4 * number:7 + 4 * number]
        name = f"i{number + 1}"
        instances.append(Instance(name, folder / name, http, Link(to_kafka, kafka), Link(to_clickhouse, ports[2])))
    return Cluster(binary, folder, stack, instances, Proxies([link for one in instances for link in one.links]))


def clean_environment() -> dict[str, str]:
    """Without settings of the caller: those of the files are in force."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CREDITSTREAM__")}


def clock() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())
