"""What the proof is made from: the generator's books, Kafka's topics, ClickHouse's tables.

Invariant: nothing here shares code with creditstream. Topics are read as any consumer would, committed records only,
and summed anew.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

import place as places
from place import DemoError, Place
from pipeline import NOT_FINAL

READ_WAIT_S = 60
QUERY_WAIT_S = 60


@dataclass
class WalletSum:
    """One wallet, as one place tells it."""

    balance: int = 0
    charged: int = 0
    # Of what was charged, given back.
    reversed: int = 0
    # Last seq; entries 1 to seq are there, each once and in order, unless `gap` says otherwise.
    seq: int = 0
    gap: str = ""


@dataclass
class Progress:
    """The books of the ledger stage in the progress topic."""

    # Final outcomes of all records.
    outcomes: dict[str, int] = field(default_factory=dict)
    # By source partition `topic/partition`: records read there, handed-over ones included.
    read: dict[str, int] = field(default_factory=dict)
    handed_over: int = 0
    # Of those, with an outcome where they went.
    taken_over: int = 0
    skipped: int = 0

    @property
    def final(self) -> int:
        return sum(self.outcomes.values())


def books(place: Place) -> dict[str, Any]:
    """What must come of all parts together. Runs with different ids add up."""
    total: dict[str, Any] = {}
    parts = sorted(place.folder.glob("books-*.json"))
    if not parts:
        raise DemoError("no books of an earlier run: `make demo` makes one")
    for part in parts:
        _add(total, json.loads(part.read_text()))
    return total


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value
        else:
            total[name] = value


def read_topic(place: Place, topic: str) -> Iterator[Message]:
    """All committed records of a topic, up to its end as it is now."""
    consumer = Consumer({
        "bootstrap.servers": place.brokers, "group.id": "demo-proof", "isolation.level": "read_committed",
        "enable.auto.commit": False, "enable.partition.eof": True, "queued.min.messages": 50_000, "log_level": 2})
    try:
        partitions = consumer.list_topics(topic, timeout=places.ANSWER_WAIT_S).topics[topic].partitions
        if not partitions:
            raise DemoError(f"topic {topic} is not there: `make demo` makes it")
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        unread, deadline = set(partitions), time.monotonic() + READ_WAIT_S
        while unread:
            if time.monotonic() > deadline:
                raise DemoError(f"topic {topic} was not read to its end within {READ_WAIT_S} s: "
                                f"left are partitions {sorted(unread)}")
            for message in consumer.consume(5_000, timeout=0.5):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise DemoError(f"topic {topic} cannot be read: {error}")
    finally:
        consumer.close()


def progress(place: Place) -> Progress:
    """Sum the newest books of every partition. Final outcomes of handed-over records stand in those of the intake."""
    newest = {message.key(): message.value() for message in read_topic(place, places.PROGRESS)}
    total = Progress()
    for key, value in newest.items():
        topic, _, partition = key.decode().rpartition("/")
        if topic == "shard" or value is None:
            continue
        outcomes: dict[str, int] = json.loads(value)["outcomes"]
        final = {name: count for name, count in outcomes.items() if name not in NOT_FINAL}
        for name, count in final.items():
            total.outcomes[name] = total.outcomes.get(name, 0) + count
        handed_over = outcomes.get("handed_over", 0)
        total.handed_over += handed_over
        total.skipped += outcomes.get("skipped", 0)
        if topic == places.INTAKE:
            total.taken_over += sum(final.values())
        else:
            total.read[f"{topic}/{partition}"] = sum(final.values()) + handed_over
    return total


def records_in_sources(place: Place) -> dict[str, int]:
    """By source partition, as Kafka itself counts: its end. Nothing was deleted, and no transaction wrote there."""
    consumer = Consumer({"bootstrap.servers": place.brokers, "group.id": "demo-proof", "log_level": 2})
    try:
        counts = {}
        for topic in (places.GENERATION, places.WALLET):
            for number in consumer.list_topics(topic, timeout=places.ANSWER_WAIT_S).topics[topic].partitions:
                partition = TopicPartition(topic, number)
                _, counts[f"{topic}/{number}"] = consumer.get_watermark_offsets(partition, timeout=places.ANSWER_WAIT_S)
        return counts
    finally:
        consumer.close()


def ledger_topic(place: Place) -> dict[str, WalletSum]:
    """Every wallet from the entries in the ledger topic, in their order."""
    wallets: dict[str, WalletSum] = {}
    for message in read_topic(place, places.LEDGER):
        record = json.loads(message.value())
        wallet = wallets.setdefault(record["wallet_id"], WalletSum())
        for entry in record["entries"]:
            if entry["seq"] != wallet.seq + 1 and not wallet.gap:
                wallet.gap = f"seq {entry['seq']} after {wallet.seq}"
            wallet.seq = entry["seq"]
            credits = entry.get("credits", 0)
            wallet.balance += credits
            if entry["entry_type"] == "charged":
                wallet.charged -= credits
            elif entry["entry_type"] == "reversed":
                wallet.reversed += credits
    return wallets


def query(place: Place, sql: str) -> list[list[str]]:
    """Rows of texts. FORMAT is added."""
    url = f"{place.clickhouse_url}/?" + urllib.parse.urlencode({"database": places.DATABASE})
    headers = {"X-ClickHouse-User": place.clickhouse_user, "X-ClickHouse-Key": place.clickhouse_password}
    request = urllib.request.Request(url, data=f"{sql} FORMAT TabSeparated".encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=QUERY_WAIT_S) as answer:
            return [line.split("\t") for line in answer.read().decode().splitlines()]
    except urllib.error.HTTPError as error:
        raise DemoError(f"ClickHouse refuses {sql!r}: {error.read().decode(errors='replace').strip()}") from error
    except OSError as error:
        raise DemoError(f"ClickHouse does not answer {sql!r}: {error}") from error


def drop_database(place: Place) -> None:
    """Of an earlier demo. Sent without a database, which need not exist."""
    headers = {"X-ClickHouse-User": place.clickhouse_user, "X-ClickHouse-Key": place.clickhouse_password}
    statement = f"DROP DATABASE IF EXISTS {places.DATABASE} SYNC".encode()
    try:
        request = urllib.request.Request(place.clickhouse_url + "/", data=statement, headers=headers)
        urllib.request.urlopen(request, timeout=QUERY_WAIT_S).close()
    except OSError as error:
        raise DemoError(f"ClickHouse cannot drop database {places.DATABASE}: {error}") from error


def clickhouse_entries(place: Place) -> dict[str, WalletSum]:
    """Every wallet from `ledger_entries`. n different seqs from 1 to n have no gap."""
    rows = query(place, "SELECT wallet_id, sum(credits), -sumIf(credits, entry_type = 'charged'), "
                        "sumIf(credits, entry_type = 'reversed'), min(seq), max(seq), count(), uniqExact(seq) FROM ledger_entries FINAL GROUP BY wallet_id")
    wallets = {}
    for wallet_id, *texts in rows:
        balance, charged, given_back, first, last, count, different = map(int, texts)
        is_whole = first == 1 and last == count == different
        gap = "" if is_whole else f"{count} entries with {different} seqs from {first} to {last}"
        wallets[wallet_id] = WalletSum(balance, charged, given_back, last, gap)
    return wallets


def clickhouse_wallets(place: Place) -> dict[str, WalletSum]:
    """Every wallet from `wallets`, the latest states."""
    rows = query(place, "SELECT wallet_id, balance, seq FROM wallets FINAL")
    return {wallet_id: WalletSum(balance=int(balance), seq=int(seq)) for wallet_id, balance, seq in rows}


def clickhouse_usage(place: Place) -> dict[str, WalletSum]:
    """Every wallet from `usage_hourly`, the totals by hour."""
    rows = query(place, "SELECT wallet_id, sum(credits_charged), sum(credits_reversed) FROM usage_hourly FINAL "
                        "GROUP BY wallet_id")
    return {wallet_id: WalletSum(charged=int(charged), reversed=int(given_back))
            for wallet_id, charged, given_back in rows}


@dataclass(frozen=True)
class Stored:
    """How much ClickHouse holds. Tables fill one after the other: it has caught up when every figure is reached."""

    entries: int
    last_seqs: int
    charged: int
    quarantined: int

    def reaches(self, wanted: Stored) -> bool:
        return (self.entries >= wanted.entries and self.last_seqs >= wanted.last_seqs
                and self.charged >= wanted.charged and self.quarantined >= wanted.quarantined)


def stored(place: Place) -> Stored:
    """As of now."""
    rows = query(place, "SELECT (SELECT count() FROM ledger_entries FINAL), (SELECT sum(seq) FROM wallets FINAL), "
                        "(SELECT sum(credits_charged) FROM usage_hourly FINAL), "
                        "(SELECT count() FROM quarantined_events FINAL)")
    return Stored(*map(int, rows[0]))
