"""The components of the local stack: their addresses, configuration, commands and signs of life.

Owns: what each of Kafka, the ClickHouse front, Prometheus and Alertmanager needs to run on 127.0.0.1. Invariant: a
component whose address is given by the environment is never started, configured or wiped here.
Must not: download anything (install.py), start or end processes (processes.py).
"""

from __future__ import annotations

import base64
import os
import re
import socket
import struct
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import install
from processes import StackError, last_lines, log_path

CHECKOUT = Path(__file__).resolve().parent.parent
HEALTH_TIMEOUT_S = 2.0
# Where instances of creditstream serve /metrics: config/ and the tests use the same ports.
CREDITSTREAM_PORTS = (39100, 39101, 39102)


@dataclass(frozen=True)
class Component:
    """One component, as far as all are alike."""

    name: str
    port_variable: str
    port_default: int
    address_variable: str
    is_url: bool
    prepare: Callable[[Stack], None]
    command: Callable[[Stack], list[str]]
    is_healthy: Callable[[str], bool]
    version: Callable[[Stack], str]
    more_ports: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Stack:
    """Where everything is: the folder, and the environment that was in force at the start."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> Stack:
        folder = os.environ.get("CREDITSTREAM_STACK_DIR") or str(CHECKOUT / ".stack")
        return cls(Path(folder).resolve(), dict(os.environ))

    def port(self, variable: str, default: int) -> int:
        text = self.environment.get(variable) or str(default)
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise StackError(f"{variable} must be a port from 1 to 65535, not {text!r}")
        return int(text)

    def port_of(self, name: str) -> int:
        component = COMPONENTS[name]
        return self.port(component.port_variable, component.port_default)

    def local_address(self, component: Component) -> str:
        address = f"127.0.0.1:{self.port(component.port_variable, component.port_default)}"
        return f"http://{address}" if component.is_url else address

    def address(self, component: Component) -> str:
        return self.environment.get(component.address_variable) or self.local_address(component)

    def is_external(self, component: Component) -> bool:
        """Our own address in the environment (after `eval "$(stack.py env)"`) is no other component."""
        return self.address(component).rstrip("/") != self.local_address(component)

    def data(self, name: str) -> Path:
        return self.folder / "data" / name

    def configuration(self, name: str) -> Path:
        return self.folder / "conf" / name

    def write_configuration(self, name: str, text: str) -> None:
        path = self.configuration(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


# --- Kafka -----------------------------------------------------------------------------------------------------------

CONTROLLER_PORT = ("CREDITSTREAM_STACK_KAFKA_CONTROLLER_PORT", 39093)


def kafka_properties(stack: Stack) -> str:
    broker, controller = stack.port_of("kafka"), stack.port(*CONTROLLER_PORT)
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={stack.data("kafka")}

# One broker: nothing can be replicated. Few partitions of the inner topics start faster.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=10
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# A topic that nobody made is a mistake to be seen, as in production.
auto.create.topics.enable=false
# The first member of a group does not wait for others; short sessions for tests of lost members.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500

# Topics may raise max.message.bytes up to this.
replica.fetch.max.bytes=16777216
# A week, as Kafka's default; topics that need more say so. Checked seldom: no surprise in the middle of a test.
log.retention.hours=168
log.retention.check.interval.ms=300000
"""


def prepare_kafka(stack: Stack) -> None:
    stack.write_configuration("kafka.properties", kafka_properties(stack))
    data = stack.data("kafka")
    if (data / "meta.properties").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [*java(stack), "kafka.tools.StorageTool", "format", "--ignore-formatted",
               # As one argument: an id may begin with a dash.
               f"--cluster-id={cluster_id}", "-c", str(stack.configuration("kafka.properties"))]
    log = log_path(stack.folder, "kafka")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise StackError(f"Kafka's storage could not be formatted; the end of {log}:\n{last_lines(log)}")


def java(stack: Stack) -> list[str]:
    """The JVM with Kafka's classes; the star is the JVM's own, no shell reads it."""
    return [
        install.java(stack.folder), "-Xmx512m", "-XX:+UseTransparentHugePages", "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "-cp", str(install.kafka_folder(stack.folder) / "*"),
    ]


def kafka_command(stack: Stack) -> list[str]:
    return [*java(stack), "kafka.Kafka", str(stack.configuration("kafka.properties"))]


def kafka_is_healthy(address: str) -> bool:
    """A broker answers ApiVersions (key 18, version 0) only once it serves requests."""
    return any(_answers_api_versions(one.strip()) for one in address.split(","))


def _answers_api_versions(address: str) -> bool:
    host, _, port = address.rpartition(":")
    client = b"stack"
    request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
    try:
        with socket.create_connection((host, int(port)), timeout=HEALTH_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(10)
    except (OSError, ValueError):
        return False
    # Size, correlation id 1, error code 0. A TLS listener answers otherwise, or closes: not healthy in plain text.
    return len(answer) == 10 and struct.unpack(">ih", answer[4:]) == (1, 0)


# --- ClickHouse ------------------------------------------------------------------------------------------------------


def prepare_clickhouse(stack: Stack) -> None:
    stack.data("clickhouse").mkdir(parents=True, exist_ok=True)


def clickhouse_command(stack: Stack) -> list[str]:
    front = Path(__file__).resolve().parent / "clickhouse_front.py"
    command = [str(install.venv_python(stack.folder)), str(front),
               "--data", str(stack.data("clickhouse")), "--port", str(stack.port_of("clickhouse"))]
    users = stack.environment.get("CREDITSTREAM_STACK_CLICKHOUSE_USERS")
    return [*command, "--users", str(Path(users).resolve())] if users else command


def http_answers(path: str) -> Callable[[str], bool]:
    def is_healthy(address: str) -> bool:
        try:
            with urllib.request.urlopen(address.rstrip("/") + path, timeout=HEALTH_TIMEOUT_S) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError, urllib.error.URLError):
            return False

    return is_healthy


# --- Prometheus and Alertmanager -------------------------------------------------------------------------------------


def prepare_prometheus(stack: Stack) -> None:
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in CREDITSTREAM_PORTS)
    alertmanager = re.sub(r"^https?://", "", stack.address(COMPONENTS["alertmanager"])).rstrip("/")
    rules = CHECKOUT / "config" / "prometheus" / "rules" / "*.yml"
    stack.write_configuration("prometheus.yml", f"""\
# Written by stack/components.py at every `up`.
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: ["{rules}"]
alerting:
  alertmanagers:
    - static_configs: [{{ targets: ["{alertmanager}"] }}]
scrape_configs:
  - job_name: creditstream
    static_configs: [{{ targets: [{targets}] }}]
""")
    stack.data("prometheus").mkdir(parents=True, exist_ok=True)


def prometheus_command(stack: Stack) -> list[str]:
    return [
        str(install.debian_binary(stack.folder, "prometheus")),
        f"--config.file={stack.configuration('prometheus.yml')}",
        f"--storage.tsdb.path={stack.data('prometheus')}",
        "--storage.tsdb.retention.time=7d",
        f"--web.listen-address=127.0.0.1:{stack.port_of('prometheus')}",
        # For POST /-/reload, by which `up` makes a running Prometheus read new rules.
        "--web.enable-lifecycle",
    ]


def alertmanager_yml() -> str:
    """The shipped configuration with its routes, inhibition and templates, but nobody is called, and at once."""
    folder = CHECKOUT / "config" / "alertmanager"
    shipped, _, receivers = (folder / "alertmanager.yml").read_text(encoding="utf-8").partition("\nreceivers:\n")
    shipped = re.sub(r"group_wait: \S+", "group_wait: 0s", shipped)
    shipped = re.sub(r"group_interval: \S+", "group_interval: 1s", shipped)
    shipped = shipped.replace('"templates/', f'"{folder}/templates/')
    names = "\n".join(re.findall(r"^  - name: .+$", receivers, re.MULTILINE))
    return f"""\
# Written by stack/components.py at every `up`, from config/alertmanager/alertmanager.yml. Alerts are kept, to be asked
# for at /api/v2/alerts; nobody is called.
{shipped}
receivers:
{names}
"""


def prepare_alertmanager(stack: Stack) -> None:
    stack.write_configuration("alertmanager.yml", alertmanager_yml())
    stack.data("alertmanager").mkdir(parents=True, exist_ok=True)


def alertmanager_command(stack: Stack) -> list[str]:
    return [
        str(install.debian_binary(stack.folder, "prometheus-alertmanager")),
        f"--config.file={stack.configuration('alertmanager.yml')}",
        f"--storage.path={stack.data('alertmanager')}",
        f"--web.listen-address=127.0.0.1:{stack.port_of('alertmanager')}",
        "--cluster.listen-address=",
    ]


COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component("clickhouse", "CREDITSTREAM_STACK_CLICKHOUSE_PORT", 38123, "CREDITSTREAM__CLICKHOUSE__URL", True,
                  prepare_clickhouse, clickhouse_command, http_answers("/ping"),
                  lambda stack: "chdb-core " + install.pinned_python("chdb-core")),
        Component("prometheus", "CREDITSTREAM_STACK_PROMETHEUS_PORT", 39090, "CREDITSTREAM_PROMETHEUS_URL", True,
                  prepare_prometheus, prometheus_command, http_answers("/-/ready"),
                  lambda stack: install.debian_version(stack.folder, "prometheus")),
        Component("alertmanager", "CREDITSTREAM_STACK_ALERTMANAGER_PORT", 39094, "CREDITSTREAM_ALERTMANAGER_URL", True,
                  prepare_alertmanager, alertmanager_command, http_answers("/-/ready"),
                  lambda stack: install.debian_version(stack.folder, "prometheus-alertmanager")),
        # Last, for its formatting takes seconds in which the others already start.
        Component("kafka", "CREDITSTREAM_STACK_KAFKA_PORT", 39092, "CREDITSTREAM__KAFKA__BROKERS", False,
                  prepare_kafka, kafka_command, kafka_is_healthy,
                  lambda stack: "Apache Kafka " + install.pinned_kafka(), (CONTROLLER_PORT,)),
    )
}
