"""The faults. Each breaks one thing, holds it for a while, and mends it; the caller measures from there.

Owns: what can break, and how. Invariant: when a fault returns, everything that it took away is back. All that varies
comes from the random numbers that it is given. Must not: wait for recovery (chaos.py does).
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from cluster import LEDGER_GROUP, SESSION_TIMEOUT_MS, SINK_GROUP, TOPICS, ChaosError, Cluster, Instance
from load import Load
from reading import ends

GROUP_WAIT_S = 60
ANSWER_WAIT_S = 10
FILLER = "filler"
Fault = Callable[[Cluster, Load, random.Random], str]


def kill(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """kill -9 of an instance; started again at once or after its session."""
    instance, away_s = chance.choice(cluster.instances), chance.choice([0.0, 2.0, SESSION_TIMEOUT_MS / 1_000 + 1])
    cluster.end_instance(instance, signal.SIGKILL)
    time.sleep(away_s)
    cluster.start_instance(instance)
    return f"{instance.name}, away {away_s:.0f} s"


def terminate(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """SIGTERM to an instance, which must end well; started again."""
    instance, away_s = chance.choice(cluster.instances), chance.uniform(0, 3)
    cluster.end_instance(instance, signal.SIGTERM)
    time.sleep(away_s)
    cluster.start_instance(instance)
    return f"{instance.name}, away {away_s:.0f} s"


def freeze(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """SIGSTOP for longer than the session, then SIGCONT: a zombie that does not know."""
    instance, frozen_s = chance.choice(cluster.instances), SESSION_TIMEOUT_MS / 1_000 + chance.uniform(2, 6)
    assert instance.process is not None
    instance.process.send_signal(signal.SIGSTOP)
    time.sleep(frozen_s)
    instance.process.send_signal(signal.SIGCONT)
    return f"{instance.name}, {frozen_s:.0f} s"


def broker_restart(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """A broker is stopped in order and started."""
    broker, away_s = chance.choice(cluster.kafka), chance.uniform(0, 3)
    cluster.stop_broker(broker)
    time.sleep(away_s)
    cluster.start_brokers([broker])
    return f"{broker.name}, away {away_s:.0f} s and its start"


def broker_kill(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """kill -9 of a broker; started."""
    broker, away_s = chance.choice(cluster.kafka), chance.uniform(0, 3)
    cluster.kill_broker(broker)
    time.sleep(away_s)
    cluster.start_brokers([broker])
    return f"{broker.name}, away {away_s:.0f} s and its start"


def clickhouse_kill(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """kill -9 of the ClickHouse engine, which stays away for a while."""
    away_s = chance.uniform(2, 8)
    cluster.kill_clickhouse()
    time.sleep(away_s)
    cluster.start_clickhouse()
    return f"away {away_s:.0f} s and its start"


def cut(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """All connections of an instance are reset, and none comes about for a while."""
    instance, cut_s = chance.choice(cluster.instances), chance.choice([0.2, 3.0, SESSION_TIMEOUT_MS / 1_000 + 2])
    cluster.proxies.cut(instance.links)
    time.sleep(cut_s)
    cluster.proxies.mend(instance.links)
    return f"{instance.name}, {cut_s:.1f} s"


def slow(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """Connections of an instance are slow and narrow for a while."""
    instance, delay_s = chance.choice(cluster.instances), chance.choice([0.1, 0.3, 0.6])
    cluster.proxies.slow(instance.links, delay_s, 100_000)
    time.sleep(chance.uniform(4, 8))
    cluster.proxies.mend(instance.links)
    return f"{instance.name}, {delay_s * 1_000:.0f} ms and 100 kB/s each way"


def group_reset(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """All instances are stopped; both groups go back to the beginning, by offsets of 0 or by losing all of them."""
    for instance in cluster.instances:
        cluster.end_instance(instance, signal.SIGTERM)
    deletes = chance.random() < 0.5
    for group in (LEDGER_GROUP, SINK_GROUP):
        _retry_until_empty(lambda: _delete(cluster, group) if deletes else _rewind(cluster, group))
    for instance in cluster.instances:
        cluster.start_instance(instance)
    return "groups deleted" if deletes else "offsets set to 0"


def _delete(cluster: Cluster, group: str) -> None:
    # The client must live until it has answered.
    client = cluster.admin()
    client.delete_consumer_groups([group], request_timeout=ANSWER_WAIT_S)[group].result(GROUP_WAIT_S)


def _rewind(cluster: Cluster, group: str) -> None:
    keys = ["generation", "wallet", "intake"] if group == LEDGER_GROUP else ["ledger", "wallets", "alerts", "quarantine"]
    partitions = [TopicPartition(topic, number, 0)
                  for topic, number in ends(cluster.brokers, [TOPICS[key] for key in keys])]
    request = ConsumerGroupTopicPartitions(group, partitions)
    client = cluster.admin()
    futures = client.alter_consumer_group_offsets([request], request_timeout=ANSWER_WAIT_S)
    result = futures[group].result(GROUP_WAIT_S)
    for partition in result.topic_partitions or []:
        if partition.error is not None:
            raise KafkaException(partition.error)


def _retry_until_empty(act: Callable[[], None]) -> None:
    """A group may be changed once its last member has left or its session has ended."""
    deadline = time.monotonic() + GROUP_WAIT_S
    while True:
        try:
            return act()
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise ChaosError(f"a consumer group cannot be reset: {error}") from error
            time.sleep(0.5)


def store_deleted(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """kill -9, the local store is deleted, started again."""
    instance = chance.choice(cluster.instances)
    cluster.end_instance(instance, signal.SIGKILL)
    files = _files(instance)
    for entry in instance.store.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    cluster.start_instance(instance)
    return f"{instance.name}, {len(files)} files"


def store_corrupted(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """kill -9, every file of the local store is cut or has bytes flipped, started again."""
    instance = chance.choice(cluster.instances)
    cluster.end_instance(instance, signal.SIGKILL)
    cuts = flips = 0
    for path in _files(instance):
        content = bytearray(path.read_bytes())
        if not content:
            continue
        if chance.random() < 0.5:
            del content[chance.randrange(len(content)):]
            cuts += 1
        else:
            for _ in range(chance.randint(1, 8)):
                content[chance.randrange(len(content))] ^= chance.randint(1, 255)
            flips += 1
        path.write_bytes(content)
    cluster.start_instance(instance)
    return f"{instance.name}, {cuts} files cut, {flips} flipped"


def _files(instance: Instance) -> list[Path]:
    return sorted(path for path in instance.store.rglob("*") if path.is_file() and path.name != FILLER)


def disk_full(cluster: Cluster, _: Load, chance: random.Random) -> str:
    """The store's file system is full for a while, once with the instance killed in the middle."""
    instance, full_s, kills = chance.choice(cluster.instances), chance.uniform(4, 8), chance.random() < 0.5
    filler = instance.store / FILLER
    deadline = time.monotonic() + full_s
    with filler.open("wb", buffering=0) as file:
        # Also what is freed in between is taken.
        while time.monotonic() < deadline:
            _fill(file.fileno())
            if kills and time.monotonic() > deadline - full_s / 2:
                cluster.end_instance(instance, signal.SIGKILL)
                cluster.start_instance(instance)
                kills = False
            time.sleep(0.05)
    filler.unlink()
    return f"{instance.name}, {full_s:.0f} s"


def _fill(descriptor: int) -> None:
    for size in (1 << 20, 4_096):
        try:
            while True:
                os.write(descriptor, bytes(size))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def resend(_: Cluster, load: Load, chance: random.Random) -> str:
    """A producer sends a whole hour again."""
    return f"{load.send_hour_again(chance):,} records"


FAULTS: dict[str, Fault] = {fault.__name__: fault for fault in (
    kill, terminate, freeze, broker_restart, broker_kill, clickhouse_kill, cut, slow, group_reset, store_deleted,
    store_corrupted, disk_full, resend)}
