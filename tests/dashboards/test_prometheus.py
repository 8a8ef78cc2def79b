"""Every query of the dashboards to Prometheus, on a real Prometheus that scrapes a made-up deployment: it has an answer,
names metrics and labels that creditstream exports, and where it is about credits, wallets or drift, the very figures.
"""

from __future__ import annotations

import re
import threading
import time
import unittest
import urllib.parse
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boards
from grafana import ALL, Context, promql
from test_rules import EVERYWHERE, declared_metrics
from tools import get, prometheus

# A number is a gauge; in brackets, what a counter rises by at every scrape, which is every second.
SCRAPED = """
creditstream_build_info{version="0.1.0",revision="x"} 1
creditstream_events_total{topic="generation.events",outcome="charged"} [60]
creditstream_events_total{topic="generation.events",outcome="duplicate"} [10]
creditstream_events_total{topic="generation.events",outcome="quarantined"} [5]
creditstream_events_total{topic="generation.events",outcome="skipped"} [5]
creditstream_events_total{topic="generation.events",outcome="handed_over"} [20]
creditstream_events_total{topic="credits.intake",outcome="charged"} [20]
creditstream_quarantined_events_total{reason="not_json"} [5]
creditstream_quarantine_latest_timestamp_seconds 1700000000
creditstream_unknown_refunds_total [1]
creditstream_credits_total{flow="charged"} [30]
creditstream_credits_total{flow="granted"} [10]
creditstream_alerts_total{kind="level",level="low"} [1]
creditstream_wallets{plan="lite",level="ok"} 90
creditstream_wallets{plan="lite",level="low"} 7
creditstream_wallets{plan="lite",level="exhausted"} 2
creditstream_wallets{plan="lite",level="overdrawn"} 1
creditstream_wallets{plan="scale",level="ok"} 30
creditstream_wallets{plan="scale",level="exhausted"} 4
creditstream_wallets{plan="none",level="exhausted"} 500
creditstream_lag_records{stage="ledger",topic="generation.events",partition="0"} 40
creditstream_lag_records{stage="ledger",topic="generation.events",partition="1"} 2
creditstream_lag_records{stage="sink",topic="credits.ledger",partition="0"} 700
creditstream_lag_seconds{stage="ledger",topic="generation.events",partition="0"} 95
creditstream_lag_seconds{stage="ledger",topic="generation.events",partition="1"} 3
creditstream_event_to_balance_seconds_bucket{le="0.1"} [80]
creditstream_event_to_balance_seconds_bucket{le="1"} [90]
creditstream_event_to_balance_seconds_bucket{le="+Inf"} [100]
creditstream_event_to_balance_seconds_count [100]
creditstream_transaction_duration_seconds_bucket{le="0.05"} [8]
creditstream_transaction_duration_seconds_bucket{le="+Inf"} [10]
creditstream_batch_events_bucket{le="100"} [8]
creditstream_batch_events_bucket{le="+Inf"} [10]
creditstream_transactions_total{outcome="committed"} [10]
creditstream_last_commit_timestamp_seconds 1700000000
creditstream_shards_owned 12
creditstream_shard_stopped{shard="3",reason="contradiction"} 1
creditstream_restore_duration_seconds_bucket{le="60"} [1]
creditstream_restore_duration_seconds_bucket{le="+Inf"} [1]
creditstream_clickhouse_insert_duration_seconds_bucket{table="ledger_entries",le="0.5"} [1]
creditstream_clickhouse_insert_duration_seconds_bucket{table="ledger_entries",le="+Inf"} [1]
creditstream_clickhouse_rows_total{table="ledger_entries"} [1000]
creditstream_clickhouse_errors_total{kind="timeout"} [1]
creditstream_drift_records{between="ledger_clickhouse"} 1
creditstream_drift_credits{between="ledger_clickhouse"} -8
creditstream_drift_checked_timestamp_seconds{between="ledger_clickhouse"} 1700000000
creditstream_webhook_deliveries_total{endpoint="crm",outcome="delivered"} [1]
creditstream_webhook_oldest_pending_seconds{endpoint="crm"} 20
process_resident_memory_bytes 1000000
process_cpu_seconds_total [1]
"""
# Of the crate prometheus' collector of the process (src/metrics.rs, register_process).
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
# Panels whose figures follow from the above at any time: value by the labels that stay.
FIGURES: dict[str, dict[str, float]] = {
    # Wallets without a contract do not count.
    "credits: Wallets exhausted now": {"": 7},
    "credits: Wallets by level": {"ok": 120, "low": 7, "exhausted": 6, "overdrawn": 1},
    "pipeline: Late events": {"": 0.1},
    "pipeline: Oldest event waiting": {"": 95},
    "pipeline: Shards stopped": {"": 1},
    "pipeline: DRIFT": {"": 9},
    "pipeline: Records waiting": {"ledger generation.events": 42, "sink credits.ledger": 700},
    "pipeline: Drift in credits": {"ledger_clickhouse": 8},
    "pipeline: Drift in records": {"ledger_clickhouse": 1},
    # 10 of 100 that were decided, 20 of them in the intake.
    "quality: Duplicates": {"": 0.1},
    "quality: Quarantined": {"": 0.05},
    "quality: Handed over": {"": 0.2},
    "quality: Drift in credits": {"ledger_clickhouse": 8},
    "quality: Drift in records": {"ledger_clickhouse": 1},
    "quality: Share handed over": {"generation.events": 0.2},
}
# Rates are as exact as the clock of the scrapes.
ABOUT = {"credits: Credits a minute": {"charged": 1800.0, "granted": 600.0}, "pipeline: Events by outcome": {
    "charged": 80.0, "duplicate": 10.0, "quarantined": 5.0, "skipped": 5.0, "handed_over": 20.0}}
OF_LITE = {"credits: Wallets exhausted now": {"": 3.0}, "credits: Wallets by level": {"ok": 90.0, "low": 7.0, "exhausted": 2.0, "overdrawn": 1.0}}


class Deployment(BaseHTTPRequestHandler):
    scrapes = 0

    def do_GET(self) -> None:
        Deployment.scrapes += 1
        text = re.sub(r"\[(\d+)\]", lambda rise: str(int(rise[1]) * Deployment.scrapes), SCRAPED.lstrip())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


def expressions() -> list[tuple[str, str]]:
    return [(panel.name, text) for panel in boards.all_panels() for text in panel.promql]


class LiveTest(unittest.TestCase):
    url: str

    @classmethod
    def setUpClass(cls) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Deployment)
        cls.addClassCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.addClassCleanup(server.shutdown)
        cls.url = cls.enterClassContext(prometheus(f"127.0.0.1:{server.server_port}", at_once=False))
        until = time.monotonic() + 60
        while Deployment.scrapes < 14 and time.monotonic() < until:
            time.sleep(0.2)

    def answer(self, text: str, plan: str | list[str] = ALL) -> list[dict[str, Any]]:
        end = datetime.now(timezone.utc)
        context = Context(end - timedelta(seconds=10), end, {"plan": plan, "job": "creditstream"}, {"plan": ".*"})
        query = urllib.parse.urlencode({"query": promql(text, context, "10s")})
        found = get(f"{self.url}/api/v1/query?{query}")
        self.assertEqual(found["status"], "success", text)
        return list(found["data"]["result"])

    def figures(self, text: str, plan: str | list[str] = ALL) -> dict[str, float]:
        return {" ".join(value for _, value in sorted(one["metric"].items())): round(float(one["value"][1]), 2) for one in self.answer(text, plan)}

    def test_every_query_has_an_answer(self) -> None:
        self.assertGreater(len(expressions()), 40)
        for name, text in expressions():
            with self.subTest(name):
                answers = self.answer(text)
                self.assertTrue(answers, text)
                self.assertFalse([one for one in answers if one["value"][1] in ("NaN", "+Inf")], text)

    def test_figures_are_those_of_the_deployment(self) -> None:
        asked = dict(expressions())
        for name, wanted in FIGURES.items():
            with self.subTest(name):
                self.assertEqual(self.figures(asked[name]), wanted)
        for name, wanted in OF_LITE.items():
            with self.subTest(name, plan="lite"):
                self.assertEqual(self.figures(asked[name], ["lite"]), wanted)
                self.assertEqual(self.figures(asked[name], ["lite", "scale"]), FIGURES[name])

        for name, wanted in ABOUT.items():
            found = self.figures(asked[name])
            self.assertEqual(set(found), set(wanted), name)
            for label, figure in wanted.items():
                self.assertAlmostEqual(found[label], figure, delta=0.15 * figure, msg=f"{name} {label}")

    def test_the_job_is_asked_for(self) -> None:
        """Another deployment's figures must not be added."""
        for name, text in expressions():
            if not name.startswith("credits"):
                self.assertEqual(text.count('job="$job"'), len(re.findall(r"\b(?:creditstream|process)_\w+\{", text)), name)

    def test_the_variable_lists_the_job(self) -> None:
        for name in ("pipeline", "quality"):
            self.assertEqual(boards.variables(name)["job"]["query"]["query"], "label_values(creditstream_build_info, job)")
        self.assertEqual(get(f"{self.url}/api/v1/label/job/values?match[]=creditstream_build_info")["data"], ["creditstream"])


class NamesTest(unittest.TestCase):
    def test_every_metric_and_label_is_exported(self) -> None:
        declared = declared_metrics()
        for name, text in expressions():
            bare = re.sub(r'"[^"]*"', "", text)
            metrics = re.findall(r"\b(?:creditstream|process)_\w+", bare)
            self.assertTrue(metrics, name)
            allowed = set(EVERYWHERE)
            for metric in metrics:
                if metric in PROCESS:
                    continue
                self.assertTrue(metric.startswith("creditstream_"), f"{name} names {metric}")
                base = re.sub("_(bucket|sum|count)$", "", metric.removeprefix("creditstream_"))
                self.assertIn(base, declared, f"{name} names {metric}, which is not exported")
                allowed |= declared[base]
            named = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", text))
            for group in re.findall(r"\bby \(([^)]*)\)", text):
                named |= {label.strip() for label in group.split(",")}
            self.assertLessEqual(named, allowed, name)

    def test_every_value_of_a_label_is_exported(self) -> None:
        source = (boards.ROOT / "src" / "metrics.rs").read_text()
        for name, text in expressions():
            for label, values in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"$]*)"', text):
                for value in values.split("|"):
                    self.assertTrue((label, value) in {("le", "1"), ("stage", "ledger")} or f'"{value}"' in source, f"{name}: {label}={value}")

    def test_the_process_is_registered(self) -> None:
        self.assertIn("process_collector", (boards.ROOT / "src" / "metrics.rs").read_text())

    def test_every_metric_is_on_a_dashboard_or_known_not_to_be(self) -> None:
        shown = " ".join(text for _, text in expressions())
        missing = {name for name in declared_metrics() if f"creditstream_{name}" not in shown}
        # How long a webhook takes is the receiver's. Wallets by name are for alerts: the dashboards ask ClickHouse, which has all.
        # What an endpoint passed over when it began is for an alert too.
        self.assertEqual(missing, {"webhook_delivery_duration_seconds", "webhook_passed_over_total",
                                   "wallet_available_credits", "wallet_series_omitted"})


if __name__ == "__main__":
    unittest.main()
