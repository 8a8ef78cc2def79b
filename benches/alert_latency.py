"""From an event to the webhook that tells of it: ledger stage and dispatcher, under live load.

    make bench-alerts                          5,000 live events a second, 1,000 wallets that run low
    make bench-alerts BENCH="--rate 1000"      another load

Usage goes on for wallets that have enough. Meanwhile one wallet after the other, which was brought close to its threshold
before, gets one more event, with which it is low. Measured is the time from the call that sends this event to the request
of the webhook; everything in between is real: Kafka, both stages, an HTTP receiver on the same machine.
Exit code 1: an alert did not come, came twice, or was another one. All topics and groups are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median, quantiles

sys.dont_write_bytecode = True

from deployment import BINARY, BenchError, Deployment, Instance, add_settings_option, run
from live import KAFKA_TIMEOUT_S, LiveEvents, event, send, wallet_id

# After ours: it says what to do where this module is not there.
from confluent_kafka import Producer

PART = "alerts"
P99_S_TARGET = 1.0
# A top-up of 250 dollars: 1,388 credits, of which 277 are low. After the adjustment 288 are left, after the event 276.
TOPUP_USD, ADJUSTMENT, IMAGES = 250, -1_100, 12
WALLETS = 100_000
PROBES_PER_S = 20
WARM_UP_S = 5
WAIT_S, POLL_S = 60, 0.1
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(ThreadingHTTPServer):
    """Takes every webhook, and notes when it came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.lock = threading.Lock()
        self.came: dict[str, list[tuple[float, str]]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        came_at = time.monotonic()
        alert = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.came.setdefault(alert["wallet_id"], []).append((came_at, alert["level"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5_000, help="live events a second")
    parser.add_argument("--probes", type=int, default=1_000, help="wallets that run low")
    add_settings_option(parser)
    options = parser.parse_args()
    receiver = Receiver()
    endpoint = f"""[[dispatcher.endpoints]]
name = "bench"
url = "http://127.0.0.1:{receiver.server_address[1]}/"
secrets = ["{SECRET}"]
allow_private = true
"""
    try:
        return run(options, lambda deployment: upon(deployment, receiver, endpoint, options))
    finally:
        receiver.shutdown()


def upon(deployment: Deployment, receiver: Receiver, endpoint: str, options: argparse.Namespace) -> None:
    with deployment.ledger_stage(BINARY, PART, ("ledger", "dispatcher"), endpoint) as instance:
        measure(deployment, instance, receiver, options.rate, options.probes)


def measure(deployment: Deployment, instance: Instance, receiver: Receiver, rate: int, count: int) -> None:
    probes = [f"probe_{number:05}" for number in range(count)]
    producer = Producer({**deployment.producer_settings(), "linger.ms": 0})
    wallets = deployment.topic("wallet", PART)
    for wallet in (*map(wallet_id, range(WALLETS)), *probes):
        send(producer, wallets, wallet,
             event("topup", "topup.purchased", wallet, f'{{"topup_id":"{wallet}","amount_usd":{TOPUP_USD}}}'))
    for wallet in probes:
        data = f'{{"adjustment_id":"{wallet}","credits":{ADJUSTMENT},"reason":"bench","actor":"bench"}}'
        send(producer, wallets, wallet, event("adjust", "wallet.adjusted", wallet, data))
    producer.flush(KAFKA_TIMEOUT_S)
    wait_until("all wallets have their credits", lambda: instance.metrics().sum("events_total", outcome="adjusted") == count)
    if receiver.came:
        raise BenchError(f"an alert came before anything ran low: {receiver.came}")

    live = LiveEvents(deployment, PART, rate, WALLETS)
    live.start()
    try:
        time.sleep(WARM_UP_S)
        sent: dict[str, float] = {}
        begun = time.monotonic()
        for number, wallet in enumerate(probes):
            time.sleep(max(0.0, begun + number / PROBES_PER_S - time.monotonic()))
            data = f'{{"job_id":"probe","asset":"image","images":{IMAGES}}}'
            sent[wallet] = time.monotonic()
            send(producer, deployment.topic("generation", PART), wallet, event("probe", "generation.completed", wallet, data))
            producer.poll(0)
        wait_until("all alerts came", lambda: len(receiver.came) >= count)
        seconds = time.monotonic() - begun
    finally:
        live.stop()
    wrong = {wallet: came for wallet, came in receiver.came.items() if wallet not in sent or [level for _, level in came] != ["low"]}
    if wrong:
        raise BenchError(f"not one alert of level low for each wallet that ran low: {wrong}")
    times = sorted(receiver.came[wallet][0][0] - at for wallet, at in sent.items())
    p99 = quantiles(times, n=100)[98]
    build = next(labels for labels, _ in instance.metrics().of("build_info"))
    print(f"creditstream {build['version']}, commit {build['revision']}; {len(os.sched_getaffinity(0))} cores, "
          f"load {os.getloadavg()[0]:.2f}; {live.sent / (seconds + WARM_UP_S):,.0f} live events/s")
    print(f"event to webhook, {count:,} alerts, each once: median {median(times) * 1_000:.0f} ms, p99 {p99 * 1_000:.0f} ms, "
          f"worst {times[-1] * 1_000:.0f} ms ({'met' if p99 < P99_S_TARGET else 'MISSED'}: p99 below {P99_S_TARGET:.0f} s)")


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {WAIT_S} s: {what}")
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
