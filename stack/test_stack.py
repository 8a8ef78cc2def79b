"""Tests of stack.py as a person uses it: in a temporary folder, on free ports, beside whatever stack runs.

Downloads are taken from the stack of the checkout, by links: run `stack.py install` first.
Run: .stack/venv/bin/python stack/test_stack.py
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

STACK = Path(__file__).resolve().parent / "stack.py"
INSTALLED = Path(os.environ.get("CREDITSTREAM_STACK_DIR") or STACK.parent.parent / ".stack").resolve()
NAMES = ("KAFKA", "KAFKA_CONTROLLER", "CLICKHOUSE", "PROMETHEUS", "ALERTMANAGER")
ADDRESSES = ("CREDITSTREAM__KAFKA__BROKERS", "CREDITSTREAM__CLICKHOUSE__URL", "CREDITSTREAM_PROMETHEUS_URL",
             "CREDITSTREAM_ALERTMANAGER_URL")


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class StackTest(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name) / "stack"
        self.folder.mkdir()
        for name in ("downloads", "venv", "jre"):
            if (INSTALLED / name).exists():
                (self.folder / name).symlink_to(INSTALLED / name)
        self.ports = dict(zip(NAMES, free_ports(len(NAMES))))
        clean = {name: value for name, value in os.environ.items() if name not in ADDRESSES}
        self.environment = {**clean, "CREDITSTREAM_STACK_DIR": str(self.folder),
                            **{f"CREDITSTREAM_STACK_{name}_PORT": str(port) for name, port in self.ports.items()}}
        self.addCleanup(self.temporary.cleanup)
        self.addCleanup(lambda: self.stack("down"))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-B", str(STACK), *arguments]

    def stack(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), env={**self.environment, **environment}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)

    def pid(self, name: str) -> int:
        return int(json.loads((self.folder / "pids" / f"{name}.json").read_text())["pid"])

    def clickhouse(self, sql: str) -> str:
        url = f"http://127.0.0.1:{self.ports['CLICKHOUSE']}/"
        with urllib.request.urlopen(url, data=sql.encode(), timeout=20) as answer:
            return str(answer.read().decode().strip())

    def test_all_components_up_used_killed_up_again_and_wiped(self) -> None:
        done = self.stack("up")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertLess(float(re.findall(r"up in ([\d.]+) s", done.stdout)[0]), 30)
        self.assertEqual(self.stack("status").returncode, 0)
        self.clickhouse("CREATE TABLE t ENGINE = MergeTree ORDER BY n AS SELECT 7 AS n")
        topic = self.use_kafka()
        for name in ("kafka", "clickhouse"):
            os.kill(self.pid(name), signal.SIGKILL)
        time.sleep(0.2)
        told = self.stack("status")
        self.assertEqual((told.returncode, told.stdout.count("stopped")), (1, 2), told.stdout)
        done = self.stack("up")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("(clickhouse, kafka)", done.stdout)
        self.assertEqual(self.clickhouse("SELECT n FROM t"), "7")
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.ports['KAFKA']}"})
        self.assertIn(topic, admin.list_topics(timeout=10).topics)
        self.assertEqual(self.stack("wipe").returncode, 0)
        self.assertFalse((self.folder / "data").exists())
        self.assertTrue((self.folder / "venv" / "bin").exists())

    def use_kafka(self) -> str:
        """A transaction is read whole, an aborted one not at all, and offsets go with a transaction."""
        servers: dict[str, Any] = {"bootstrap.servers": f"127.0.0.1:{self.ports['KAFKA']}"}
        topic = "events"
        new = NewTopic(topic, 1, 1, config={"max.message.bytes": str(16 * 1024 * 1024)})
        admin = AdminClient(servers)
        admin.create_topics([new])[topic].result(20)
        producer = Producer({**servers, "transactional.id": "t", "message.max.bytes": 9_000_000})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, b"aborted")
        producer.flush(10)
        producer.abort_transaction(30)
        producer.begin_transaction()
        for number in range(100):
            producer.produce(topic, str(number).encode())
        producer.produce(topic, b"x" * 8_000_000)
        producer.commit_transaction(30)
        consumer = Consumer({**servers, "group.id": "g", "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
                             "isolation.level": "read_committed", "enable.auto.commit": False})
        consumer.subscribe([topic])
        messages = consumer.consume(101, 20)
        self.assertEqual([message.value() for message in messages[:100]], [str(n).encode() for n in range(100)])
        self.assertEqual(len(messages[100].value() or b""), 8_000_000)
        producer.begin_transaction()
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 50)], consumer.consumer_group_metadata())
        producer.commit_transaction(30)
        self.assertEqual(consumer.committed([TopicPartition(topic, 0)], 10)[0].offset, 50)
        consumer.close()
        return topic

    def test_two_at_once_start_one(self) -> None:
        both = [subprocess.Popen(self.command("up", "clickhouse"), env=self.environment, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
        told = [process.communicate(timeout=60)[0] for process in both]
        self.assertEqual([process.returncode for process in both], [0, 0], told)
        self.assertEqual(sorted("all was running" in text for text in told), [False, True], told)

    def test_a_port_in_use_is_named_with_the_way_out(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", self.ports["CLICKHOUSE"]))
            other.listen()
            done = self.stack("up", "clickhouse")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"port {self.ports['CLICKHOUSE']} of clickhouse is in use", done.stdout)
        self.assertIn("CREDITSTREAM_STACK_CLICKHOUSE_PORT", done.stdout)

    def test_a_component_that_dies_shows_its_last_words(self) -> None:
        users = Path(self.temporary.name) / "users.json"
        users.write_text("[]")
        done = self.stack("up", "clickhouse", CREDITSTREAM_STACK_CLICKHOUSE_USERS=str(users))
        self.assertEqual(done.returncode, 1)
        self.assertIn("clickhouse died while starting", done.stdout)
        self.assertIn("expected a JSON object", done.stdout)

    def test_an_address_from_outside_is_used_and_not_started(self) -> None:
        done = self.stack("up", "clickhouse", CREDITSTREAM__CLICKHOUSE__URL="http://127.0.0.1:1")
        self.assertEqual(done.returncode, 0)
        self.assertIn("does not answer", done.stdout)
        self.assertFalse((self.folder / "pids" / "clickhouse.json").exists())
        told = self.stack("env", CREDITSTREAM__CLICKHOUSE__URL="http://127.0.0.1:1").stdout
        self.assertIn("export CREDITSTREAM__CLICKHOUSE__URL=http://127.0.0.1:1\n", told)

    def test_a_stranger_with_a_recorded_pid_is_left_alone(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as stranger:
            (self.folder / "pids").mkdir()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            record = {"pid": stranger.pid, "start_ticks": 1, "boot_id": boot, "address": "x"}
            (self.folder / "pids" / "kafka.json").write_text(json.dumps(record))
            self.assertEqual(self.stack("down").returncode, 0)
            self.assertIsNone(stranger.poll())
            stranger.kill()


if __name__ == "__main__":
    unittest.main()
