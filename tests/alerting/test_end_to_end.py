"""From a customer's usage to a message: the real binary, Prometheus with the shipped rules, and Alertmanager.

Goal: the names, labels and values that creditstream exports are those that the rules, the routes and the templates expect.
The alerts wait for nothing here (`for: 0s`), which tests with promtool cover.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tools import CHECKOUT, alertmanager, alerts_of, prometheus

sys.path += [str(CHECKOUT / "stack"), str(CHECKOUT / "benches")]
from components import alertmanager_yml  # noqa: E402
from deployment import BINARY, Deployment, Instance  # noqa: E402
from live import event, send, text_of  # noqa: E402

# After those: they say what to do where this module is not there.
from confluent_kafka import Producer  # noqa: E402

PART, WALLET = "e2e", "ws_42"
ALLOCATION, TOPUP_USD, TOPUP_CREDITS = 200, 100, 555
WAIT_S = 60


class Receiver(ThreadingHTTPServer):
    """Notes what Alertmanager tells: status, alert, wallet and description of each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.told: list[tuple[str, str, str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told += [(alert["status"], alert["labels"]["alertname"], alert["labels"].get("wallet", ""),
                              alert["annotations"]["description"]) for alert in message["alerts"]]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class EndToEndTest(unittest.TestCase):
    def setUp(self) -> None:
        self.receiver = Receiver()
        self.addCleanup(self.receiver.server_close)
        self.addCleanup(self.receiver.shutdown)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.deployment = Deployment([], Path(folder))
        self.addCleanup(self.deployment.close)
        binary = Path(os.environ.get("CREDITSTREAM_BIN") or BINARY)
        self.instance: Instance = self.enterContext(self.deployment.ledger_stage(binary, PART))
        self.producer = Producer({**self.deployment.producer_settings(), "linger.ms": 0})
        hook = f"    webhook_configs: [{{url: 'http://127.0.0.1:{self.receiver.server_port}/', send_resolved: true}}]\n"
        configuration = alertmanager_yml().replace("  - name: customers\n", "  - name: customers\n" + hook)
        self.assertIn(hook, configuration)
        url = self.enterContext(alertmanager(configuration))
        self.prometheus = self.enterContext(prometheus(self.instance.address, at_once=True, alertmanager_url=url))

    def post(self, source: str, event_id: str, kind: str, data: dict[str, Any]) -> None:
        send(self.producer, self.deployment.topic(source, PART), WALLET, event(event_id, kind, WALLET, json.dumps(data)))
        self.assertEqual(self.producer.flush(WAIT_S), 0)

    def wait_until(self, what: str, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_S
        while not is_so():
            self.assertLess(time.monotonic(), until, f"not within {WAIT_S} s: {what}; told: {self.receiver.told}")
            time.sleep(0.2)

    def told(self, status: str) -> list[str]:
        """Descriptions of what was told of the wallet."""
        return [text for found, alert, wallet, text in self.receiver.told
                if (found, alert, wallet) == (status, "CreditstreamWalletExhausted", WALLET)]

    def firing(self) -> set[str]:
        return {name for name, rule in alerts_of(self.prometheus).items() if rule["alerts"]}

    def available(self) -> dict[str, float]:
        """By level, of the wallet where it is listed."""
        return {labels["level"]: value for labels, value in self.instance.metrics().of("wallet_available_credits")}

    def credits(self, flow: str) -> int:
        return self.instance.metrics().sum("credits_total", flow=flow)

    def test_a_wallet_runs_dry_and_is_topped_up(self) -> None:
        self.post("wallet", "start", "contract.started",
                  {"contract_id": "c_1", "plan": "lite", "starts_at": text_of(datetime.now(UTC)), "term_months": 12})
        self.wait_until("the allocation is there", lambda: self.credits("granted") == ALLOCATION)
        self.post("generation", "most", "generation.completed", {"job_id": "j1", "asset": "image", "images": ALLOCATION - 1})
        self.wait_until("one credit is left", lambda: self.available() == {"critical": 1})
        self.wait_until("Prometheus says that it is low", lambda: "CreditstreamWalletsLow" in self.firing())
        self.assertEqual(self.told("firing"), [])

        self.post("generation", "last", "generation.completed", {"job_id": "j2", "asset": "image", "images": 1})
        self.wait_until("somebody is told", lambda: len(self.told("firing")) > 0)
        self.assertIn("Wallet ws_42 on plan lite has 0 credits available.", self.told("firing")[0])
        self.assertEqual(self.told("resolved"), [])

        self.post("wallet", "topup", "topup.purchased", {"topup_id": "t1", "amount_usd": TOPUP_USD})
        self.wait_until("the top-up is told", lambda: len(self.told("resolved")) > 0)
        self.assertEqual(self.credits("granted"), ALLOCATION + TOPUP_CREDITS)
        self.assertEqual(self.available(), {})
        self.assertNotIn("CreditstreamWalletExhausted", self.firing())


if __name__ == "__main__":
    unittest.main()
