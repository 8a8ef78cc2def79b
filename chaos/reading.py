"""Topics and tables as any outsider reads them. Invariant: nothing here shares code with creditstream."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from cluster import DATABASE, ChaosError

READ_WAIT_S = 180
ANSWER_WAIT_S = 30
QUERY_WAIT_S = 60


@dataclass(frozen=True)
class Envelope:
    """Of a CloudEvent, what tells it from others."""

    wallet: str
    source: str
    id: str
    type: str
    time: str

    @classmethod
    def of(cls, message: Message) -> Envelope | None:
        """Structured or binary; None for what is no CloudEvent."""
        headers = {name: value for name, value in message.headers() or [] if value is not None}
        names = ("subject", "source", "id", "type", "time")
        try:
            if "ce_specversion" in headers:
                texts = [headers[f"ce_{name}"].decode() for name in names]
            else:
                event = json.loads(message.value())
                texts = [event[name] for name in names]
        except (ValueError, KeyError, TypeError):
            return None
        return cls(*texts) if all(isinstance(text, str) for text in texts) else None


def read_topic(brokers: str, topic: str) -> Iterator[Message]:
    """All committed records of a topic, up to its end as it is now."""
    consumer = Consumer({
        "bootstrap.servers": brokers, "group.id": "chaos-outsider", "isolation.level": "read_committed",
        "enable.auto.commit": False, "enable.partition.eof": True, "queued.min.messages": 50_000, "log_level": 2})
    try:
        partitions = consumer.list_topics(topic, timeout=ANSWER_WAIT_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        unread, deadline = set(partitions), time.monotonic() + READ_WAIT_S
        while unread:
            if time.monotonic() > deadline:
                raise ChaosError(f"{topic} is not read to its end, and nothing came for {READ_WAIT_S} s: left is {sorted(unread)}")
            for message in consumer.consume(5_000, timeout=0.5):
                error = message.error()
                if error is None:
                    # A busy machine reads slowly, and the topic grows.
                    deadline = time.monotonic() + READ_WAIT_S
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                elif error.fatal():
                    raise ChaosError(f"{topic} cannot be read: {error}")
    finally:
        consumer.close()


def ends(brokers: str, topics: list[str]) -> dict[tuple[str, int], int]:
    """Where every partition ends, uncommitted records included."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "chaos-outsider",
                         "isolation.level": "read_uncommitted", "log_level": 2})
    try:
        found = {}
        for topic in topics:
            for number in consumer.list_topics(topic, timeout=ANSWER_WAIT_S).topics[topic].partitions:
                found[topic, number] = consumer.get_watermark_offsets(
                    TopicPartition(topic, number), timeout=ANSWER_WAIT_S)[1]
        return found
    finally:
        consumer.close()


def query(url: str, sql: str) -> list[list[str]]:
    """Rows of texts. FORMAT is added."""
    address = f"{url}/?" + urllib.parse.urlencode({"database": DATABASE})
    request = urllib.request.Request(address, data=f"{sql} FORMAT TabSeparated".encode())
    try:
        with urllib.request.urlopen(request, timeout=QUERY_WAIT_S) as answer:
            return [line.split("\t") for line in answer.read().decode().splitlines()]
    except urllib.error.HTTPError as error:
        raise ChaosError(f"ClickHouse refuses {sql!r}: {error.read().decode(errors='replace').strip()}") from error
    except OSError as error:
        raise ChaosError(f"ClickHouse does not answer {sql!r}: {error}") from error
