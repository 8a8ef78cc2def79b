"""Usage as it happens: events with the time as it is, at a steady rate. Sends; measures nothing."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from deployment import BenchError, Deployment

# After ours: it says what to do where this module is not there.
from confluent_kafka import Producer

# Live events are sent this often.
TICK_S = 0.01
KAFKA_TIMEOUT_S = 30


class LiveEvents:
    """Usage at a steady rate, spread over the wallets, from a thread of its own."""

    def __init__(self, deployment: Deployment, part: str, rate: int, wallets: int) -> None:
        self.rate, self.wallets = rate, wallets
        self.sent = 0
        self.topic = deployment.topic("generation", part)
        self.producer = Producer({**deployment.producer_settings(), "linger.ms": 1})
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.send, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()
        if self.producer.flush(KAFKA_TIMEOUT_S) > 0:
            raise BenchError("the broker did not take all live events")

    def send(self) -> None:
        begun = time.monotonic()
        while not self.stopping.wait(TICK_S):
            while self.sent < (time.monotonic() - begun) * self.rate:
                # A prime: neighbours in time are not neighbours in memory, and no wallet is left out.
                wallet = wallet_id(self.sent * 7_919 % self.wallets)
                data = f'{{"job_id":"j{self.sent}","asset":"image","images":1}}'
                send(self.producer, self.topic, wallet, event(f"j{self.sent}", "generation.completed", wallet, data))
                self.sent += 1
            self.producer.poll(0)


def wallet_id(number: int) -> str:
    return f"ws_{number:07}"


def text_of(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def event(event_id: str, event_type: str, wallet: str, data: str) -> str:
    return (f'{{"specversion":"1.0","id":"{event_id}","source":"/bench","type":"{event_type}","subject":"{wallet}",'
            f'"time":"{text_of(datetime.now(UTC))}","data":{data}}}')


def send(producer: Producer, topic: str, key: str, value: str) -> None:
    while True:
        try:
            return producer.produce(topic, key=key, value=value)
        except BufferError:
            producer.poll(0.05)
