"""The rules on a real Prometheus that scrapes a deployment in which everything is wrong: what people read of it."""

from __future__ import annotations

import re
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cases import CASES
from tools import alerts_of, prometheus

# A number is a gauge; in brackets, what a counter rises by at every scrape; NOW is the time of the scrape, in seconds.
WRONG = """
creditstream_build_info{version="0.1.0",revision="x"} 1
creditstream_wallet_available_credits{wallet="ws_1",plan="lite",level="exhausted"} -3
creditstream_wallet_available_credits{wallet="ws_2",plan="lite",level="overdrawn"} -70
creditstream_wallets{plan="lite",level="low"} 4
creditstream_wallets{plan="lite",level="exhausted"} 5
creditstream_wallets{plan="lite",level="overdrawn"} 20
creditstream_wallet_series_omitted 12
creditstream_lag_records{stage="ledger",topic="generation.events",partition="0"} 700
creditstream_lag_records{stage="sink",topic="credits.ledger",partition="0"} 700000
creditstream_lag_seconds{stage="ledger",topic="generation.events",partition="0"} 95
creditstream_last_commit_timestamp_seconds 1600000000
creditstream_event_to_balance_seconds_bucket{le="1"} [700]
creditstream_event_to_balance_seconds_count [1000]
creditstream_drift_records{between="ledger_clickhouse"} 1
creditstream_drift_credits{between="ledger_clickhouse"} -8
creditstream_drift_checked_timestamp_seconds{between="ledger_clickhouse"} 1600000000
creditstream_quarantined_events_total{reason="not_json"} [300]
creditstream_events_total{topic="generation.events",outcome="charged"} [700]
creditstream_transactions_total{outcome="committed"} [50]
creditstream_transactions_total{outcome="aborted"} [20]
creditstream_transactions_total{outcome="fenced"} [5]
creditstream_clickhouse_rows_total{table="ledger_entries"} 0
creditstream_clickhouse_errors_total{kind="permanent"} [9]
creditstream_shards 12
creditstream_shards_owned 0
creditstream_shard_stopped{shard="3",reason="contradiction"} 1
creditstream_restore_duration_seconds_bucket{le="60"} 11
creditstream_restore_duration_seconds_count 12
creditstream_webhook_deliveries_total{endpoint="crm",outcome="failed"} [9]
creditstream_webhook_deliveries_total{endpoint="crm",outcome="delivered"} [1]
creditstream_webhook_deliveries_total{endpoint="crm",outcome="gone"} 1
creditstream_webhook_deliveries_total{endpoint="crm",outcome="dead"} 3
creditstream_webhook_oldest_pending_seconds{endpoint="crm"} 200000
creditstream_webhook_passed_over_total{endpoint="crm"} 7
process_start_time_seconds NOW
"""
# These need hours of history, or that nothing is there; promtool's tests have them.
NOT_HERE = {"CreditstreamMetricsAbsent", "CreditstreamInstanceDown", "CreditstreamDriftCheckAbsent",
            "CreditstreamDispatcherAbsent", "CreditstreamSuddenBurn", "CreditstreamWalletsWithoutPlanExhausted"}


class Wrong(BaseHTTPRequestHandler):
    scrapes = 0

    def do_GET(self) -> None:
        Wrong.scrapes += 1
        text = re.sub(r"\[(\d+)\]", lambda rise: str(int(rise[1]) * Wrong.scrapes), WRONG.lstrip())
        text = text.replace("NOW", str(int(time.time())))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


class LiveTest(unittest.TestCase):
    def test_what_fires_reads_well(self) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Wrong)
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        wanted = {case.alert for case in CASES} - NOT_HERE
        with prometheus(f"127.0.0.1:{server.server_port}", at_once=True) as url:
            until = time.monotonic() + 60
            while True:
                alerts = alerts_of(url)
                fired = {name for name, rule in alerts.items() if rule["alerts"]}
                if fired >= wanted or time.monotonic() > until:
                    break
                time.sleep(0.5)
        self.assertEqual(sorted(fired), sorted(wanted))
        for name in sorted(fired):
            self.assertEqual(alerts[name]["health"], "ok", alerts[name])
            for alert in alerts[name]["alerts"]:
                for text in (alert["annotations"]["summary"], alert["annotations"]["description"]):
                    with self.subTest(name, text=text):
                        self.assertNotRegex(text, r"no value|<error|\{\{|\+Inf|NaN|  ")
        self.assertEqual(alerts["CreditstreamWalletExhausted"]["alerts"][0]["annotations"]["description"],
                         "Wallet ws_1 on plan lite has -3 credits available. What it generates from now on becomes "
                         "overdraft or is refused.")
        self.assertEqual(alerts["CreditstreamLedgerLag"]["alerts"][0]["annotations"]["summary"],
                         "generation.events is charged 1m 35s late")


if __name__ == "__main__":
    unittest.main()
