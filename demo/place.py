"""Where the demo works: addresses, names of its own, and a fresh start.

Owns: the list of everything that the demo makes. Invariant: only what stands in this file is ever deleted, so that
a demo beside real data leaves them alone. Must not: start or end processes.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

CHECKOUT = Path(__file__).resolve().parent.parent
DATABASE = "credits_demo"
LEDGER_GROUP = "demo-ledger"
SINK_GROUP = "demo-sink"
INSTANCE = "demo-1"
GENERATION, WALLET = "demo.generation.events", "demo.wallet.events"
LEDGER, PROGRESS, INTAKE = "demo.credits.ledger", "demo.credits.progress", "demo.credits.intake"
# By the key of [topics] in the settings.
TOPICS = {
    "generation": GENERATION, "wallet": WALLET, "ledger": LEDGER, "wallets": "demo.credits.wallets",
    "progress": PROGRESS, "alerts": "demo.credits.alerts", "alerts_dead": "demo.credits.alerts.dead",
    "quarantine": "demo.credits.quarantine", "intake": INTAKE,
}
# The local Prometheus scrapes these.
HTTP_PORTS = (39100, 39101, 39102)
ANSWER_WAIT_S = 10
# Longer than the session (45 s for the sink) of a member that was killed: until then its group is not empty.
CLEAN_WAIT_S = 50
# Of the caller's settings, what says where the components are. Nothing else may lead the demo to other topics.
KEPT_SETTINGS = ("CREDITSTREAM__KAFKA__", "CREDITSTREAM__CLICKHOUSE__URL", "CREDITSTREAM__CLICKHOUSE__USER",
                 "CREDITSTREAM__CLICKHOUSE__PASSWORD")


class DemoError(Exception):
    """Something that the person who runs the demo must know; the message says what to do."""


@dataclass(frozen=True)
class Place:
    """Everything that must be there, found."""

    binary: Path
    folder: Path
    brokers: str
    clickhouse_url: str
    clickhouse_user: str
    clickhouse_password: str
    prometheus_url: str
    environment: dict[str, str]
    lock: int

    @property
    def config(self) -> Path:
        return self.folder / "creditstream.toml"

    @property
    def log(self) -> Path:
        return self.folder / "creditstream.log"

    def books(self, part: str) -> Path:
        """Where the generator writes what must come of a part of the events."""
        return self.folder / f"books-{part}.json"


def find() -> Place:
    """Find binary and components, or say what is missing and how it comes about."""
    binary = Path(os.environ.get("CREDITSTREAM_BIN") or CHECKOUT / "target" / "release" / "creditstream").absolute()
    if not os.access(binary, os.X_OK):
        raise DemoError(f"{shown(binary)} is not there: `make build` builds it (CREDITSTREAM_BIN names another one)")
    addresses = {**_stack_addresses(), **os.environ}
    kept = {name: value for name, value in addresses.items()
            if not name.startswith("CREDITSTREAM__") or name.startswith(KEPT_SETTINGS)}
    folder = Path(os.environ.get("CREDITSTREAM_STACK_DIR") or CHECKOUT / ".stack").absolute() / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(
        binary=binary, folder=folder,
        brokers=addresses["CREDITSTREAM__KAFKA__BROKERS"],
        clickhouse_url=addresses["CREDITSTREAM__CLICKHOUSE__URL"].rstrip("/"),
        clickhouse_user=addresses.get("CREDITSTREAM__CLICKHOUSE__USER", "default"),
        clickhouse_password=addresses.get("CREDITSTREAM__CLICKHOUSE__PASSWORD", ""),
        prometheus_url=addresses["CREDITSTREAM_PROMETHEUS_URL"].rstrip("/"),
        environment=kept, lock=_lock(folder / "lock"))
    _check_answers(place)
    return place


def _stack_addresses() -> dict[str, str]:
    script = CHECKOUT / "stack" / "stack.py"
    lines = subprocess.run([sys.executable, str(script), "env"], capture_output=True, text=True, check=False)
    if lines.returncode != 0:
        raise DemoError(f"the stack does not say its addresses: {lines.stderr.strip()}")
    words = [word for word in shlex.split(lines.stdout) if "=" in word]
    return dict(word.split("=", 1) for word in words)


def _lock(path: Path) -> int:
    """Children hold it too: what a demo that was killed left running is noticed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 100).decode(errors="replace").strip() or "unknown"
        raise DemoError(f"another demo runs, or left a process behind (pids {owner}): end it first") from error
    note_pids(descriptor, [])
    return descriptor


def note_pids(lock: int, children: list[int]) -> None:
    """For whoever meets the lock: this demo and its children, and no process that has ended."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, " ".join(map(str, [os.getpid(), *children])).encode(), 0)


def _check_answers(place: Place) -> None:
    try:
        admin(place).list_topics(timeout=ANSWER_WAIT_S)
    except KafkaException as error:
        raise DemoError(f"Kafka at {place.brokers} does not answer: `make stack-up` starts it") from error
    try:
        urllib.request.urlopen(place.clickhouse_url + "/ping", timeout=ANSWER_WAIT_S).close()
    except OSError as error:
        raise DemoError(f"ClickHouse at {place.clickhouse_url} does not answer: `make stack-up` starts it") from error


def admin(place: Place) -> AdminClient:
    """A client that keeps quiet: what it meets is said by whoever asks."""
    return AdminClient({"bootstrap.servers": place.brokers, "log_level": 2})


def free_http_address() -> str:
    """The first free address that Prometheus looks at."""
    for port in HTTP_PORTS:
        with socket.socket() as probe:
            # As the server will: a port whose last connections only linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return f"127.0.0.1:{port}"
            except OSError:
                continue
    raise DemoError(f"ports {HTTP_PORTS} are all in use: end the creditstream that runs there")


def write_config(place: Place, http_address: str) -> None:
    """The settings that differ, in a file that further commands can be given too."""
    topics = "\n".join(f'{key} = "{name}"' for key, name in TOPICS.items())
    place.config.write_text(f"""# Written by demo/demo.py at every run.
[kafka]
brokers = "{place.brokers}"
[topics]
{topics}
[ledger]
group = "{LEDGER_GROUP}"
instance = "{INSTANCE}"
# A restart within the session timeout gets its shards back at once.
static_membership = true
[sink]
group = "{SINK_GROUP}"
[store]
path = "{place.folder / 'store'}"
# Often: the demo is short, and is to show a restart from checkpoints.
checkpoint_seconds = 1
[clickhouse]
url = "{place.clickhouse_url}"
database = "{DATABASE}"
[http]
listen = "{http_address}"
[log]
format = "human"
""", encoding="utf-8")


def clean(place: Place) -> None:
    """Delete what an earlier demo made, and wait until it is gone: names are used again."""
    client = admin(place)
    _delete_groups(client)
    there = set(client.list_topics(timeout=ANSWER_WAIT_S).topics).intersection(TOPICS.values())
    if there:
        for future in client.delete_topics(sorted(there), operation_timeout=ANSWER_WAIT_S).values():
            future.result()
    deadline = time.monotonic() + CLEAN_WAIT_S
    while set(client.list_topics(timeout=ANSWER_WAIT_S).topics).intersection(TOPICS.values()):
        if time.monotonic() > deadline:
            raise DemoError(f"topics of an earlier demo are still there after {CLEAN_WAIT_S} s: try again")
        time.sleep(0.1)
    shutil.rmtree(place.folder / "store", ignore_errors=True)
    for old in (place.log, *place.folder.glob("books-*.json")):
        old.unlink(missing_ok=True)


def _delete_groups(client: AdminClient) -> None:
    """A group can be deleted when its last member's session has ended."""
    deadline = time.monotonic() + CLEAN_WAIT_S
    for group in (LEDGER_GROUP, SINK_GROUP):
        while True:
            try:
                client.delete_consumer_groups([group])[group].result()
                break
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.GROUP_ID_NOT_FOUND:
                    break
                # A broker that has just started does not know yet which groups it coordinates.
                passing = (
                    KafkaError.NON_EMPTY_GROUP,
                    KafkaError.NOT_COORDINATOR,
                    KafkaError.COORDINATOR_NOT_AVAILABLE,
                    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
                )
                if code not in passing or time.monotonic() > deadline:
                    raise DemoError(f"consumer group {group} cannot be deleted: {error}") from error
                time.sleep(0.5)


def shown(path: Path) -> str:
    """As a person in the checkout types it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
