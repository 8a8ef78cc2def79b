"""Alertmanager's configuration: routes by amtool, inhibition on a real Alertmanager, templates as people read them."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path
from typing import Any

from tools import ALERTMANAGER, CHECKOUT, RULES, TEMPLATES, alertmanager, get, tool

sys.path.insert(0, str(CHECKOUT / "stack"))
from components import alertmanager_yml  # noqa: E402

ROUTES = [
    ("page", "audience=service", "severity=critical", "alertname=CreditstreamPipelineStalled"),
    ("service", "audience=service", "severity=warning", "alertname=CreditstreamLedgerLag"),
    ("customers", "audience=customers", "severity=warning", "alertname=CreditstreamWalletExhausted"),
    ("customers", "audience=customers", "severity=info", "alertname=CreditstreamWalletsLow"),
    ("page,customers", "audience=customers", "severity=critical", "alertname=CreditstreamPlanExhausted"),
    ("service", "alertname=SomethingElse"),
]
BURN = {"slo": "event_to_balance", "audience": "service"}
# Source, target of the same job (silent), and the same target of another job (not silent).
INHIBITED: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"alertname": "CreditstreamMetricsAbsent"}, {"alertname": "CreditstreamWalletsLow", "audience": "customers"}),
    ({"alertname": "CreditstreamPipelineStalled"}, {"alertname": "CreditstreamPlanExhausted", "audience": "customers"}),
    ({"alertname": "CreditstreamLedgerAbsent"}, {"alertname": "CreditstreamWalletExhausted", "audience": "customers"}),
    ({"alertname": "CreditstreamLedgerAbsent"}, {"alertname": "CreditstreamShardsUnowned"}),
    ({"alertname": "CreditstreamMetricsAbsent"}, {"alertname": "CreditstreamInstanceDown"}),
    ({"alertname": "CreditstreamMetricsAbsent"}, {"alertname": "CreditstreamDispatcherAbsent"}),
    ({"alertname": "CreditstreamPipelineStalled"}, {"alertname": "CreditstreamLedgerLag"}),
    ({"alertname": "CreditstreamEventToBalanceFastBurn", "severity": "critical", **BURN},
     {"alertname": "CreditstreamEventToBalanceSlowBurn", "severity": "warning", **BURN}),
    ({"alertname": "CreditstreamSinkStalled"}, {"alertname": "CreditstreamSinkBehind"}),
    ({"alertname": "CreditstreamQuarantineFlood"}, {"alertname": "CreditstreamQuarantineRate"}),
    ({"alertname": "CreditstreamTransactionsFailing"}, {"alertname": "CreditstreamTransactionsFenced"}),
    ({"alertname": "CreditstreamWebhookNearlyDead", "endpoint": "crm"},
     {"alertname": "CreditstreamWebhookOld", "endpoint": "crm"}),
    ({"alertname": "CreditstreamWalletExhausted", "plan": "lite", "wallet": "ws_1"},
     {"alertname": "CreditstreamWalletsExhausted", "plan": "lite"}),
    ({"alertname": "CreditstreamWalletOverdrawn", "plan": "lite", "wallet": "ws_1"},
     {"alertname": "CreditstreamWalletsOverdrawn", "plan": "lite"}),
]


def alert(summary: str, status: str) -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": "CreditstreamLedgerLag", "severity": "warning"},
            "annotations": {"summary": summary, "description": "It is so.", "runbook_url": "https://example.com/r#x"},
            "startsAt": "2026-11-26T10:00:00Z", "endsAt": "2026-11-26T10:30:00Z"}


def message(status: str, *alerts: dict[str, Any], **common: str) -> dict[str, Any]:
    return {"receiver": "service", "status": status, "alerts": list(alerts), "groupLabels": {},
            "commonLabels": common, "commonAnnotations": {}, "externalURL": "http://127.0.0.1"}


def render(template: str, data: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_text(json.dumps(data))
        code, told = tool("amtool", "template", "render", f"--template.glob={TEMPLATES}/*.tmpl",
                          f"--template.data={path}", f'--template.text={{{{ template "{template}" . }}}}')
    assert code == 0, told
    return told


class ConfigurationTest(unittest.TestCase):
    def test_amtool_accepts_the_shipped_and_the_local_configuration(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "alertmanager.yml"
            local.write_text(alertmanager_yml())
            # Each has a case; one has three, another two.
            for path in (ALERTMANAGER, local):
                code, told = tool("amtool", "check-config", str(path))
                self.assertEqual(code, 0, told)
                self.assertIn(f"{len(INHIBITED) - 3} inhibit rules", told)
                self.assertIn("3 receivers", told)
                self.assertIn("1 templates", told)
        self.assertNotIn("_configs:", alertmanager_yml(), "the local stack calls somebody")

    def test_routes(self) -> None:
        for receivers, *labels in ROUTES:
            code, told = tool("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}",
                              f"--verify.receivers={receivers}", *labels)
            self.assertEqual(code, 0, f"{labels}: {told}")

    def test_a_wrong_route_is_found(self) -> None:
        code, _ = tool("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}",
                       "--verify.receivers=page", "audience=service", "severity=warning")
        self.assertNotEqual(code, 0)

    def test_alerts_that_are_named_exist(self) -> None:
        rules = "".join(path.read_text() for path in RULES.glob("*.yml"))
        for name in re.findall(r"Creditstream\w+(?:\.\*)?", ALERTMANAGER.read_text()):
            self.assertRegex(rules, rf"- alert: {name}\n", "Alertmanager names an alert that no rule has")

    def test_the_containers_use_it(self) -> None:
        self.assertIn("../config/alertmanager:/etc/alertmanager:ro",
                      (CHECKOUT / "docker" / "compose.yaml").read_text())


class TemplatesTest(unittest.TestCase):
    maxDiff = None

    def test_titles(self) -> None:
        one = alert("Instance a is down", "firing")
        self.assertEqual(render("creditstream.title", message("firing", one, severity="critical")),
                         "[CRITICAL] Instance a is down")
        self.assertEqual(render("creditstream.title", message("resolved", one, severity="critical")),
                         "[RESOLVED] Instance a is down")
        self.assertEqual(render("creditstream.title", message("firing", one, one, alertname="X", severity="warning")),
                         "[WARNING] X: 2 alerts")
        self.assertEqual(render("creditstream.title", message("firing", one, one, job="creditstream")),
                         "[FIRING] creditstream: 2 alerts")

    def test_text(self) -> None:
        both = message("firing", alert("A is late", "firing"), alert("B was late", "resolved"))
        self.assertEqual(render("creditstream.text", both), """Firing:

A is late
  It is so.
  since 2026-11-26 10:00 UTC, severity warning
  what to do: https://example.com/r#x
Resolved:

B was late
  from 2026-11-26 10:00 UTC to 2026-11-26 10:30 UTC
""")

    def test_slack(self) -> None:
        both = message("firing", alert("A is late", "firing"), alert("B was late", "resolved"))
        self.assertEqual(render("creditstream.slack", both), """*A is late*
It is so.
since 10:00 UTC · <https://example.com/r#x|what to do>
resolved: B was late (from 10:00 to 10:30 UTC)
""")
        colors = [render("creditstream.color", message(status, severity=severity)) for status, severity in
                  (("firing", "critical"), ("firing", "warning"), ("resolved", "critical"))]
        self.assertEqual(colors, ["danger", "warning", "good"])


class InhibitionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.url = self.enterContext(alertmanager(alertmanager_yml()))

    def post(self, alerts: list[dict[str, str]]) -> None:
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(self.url + "/api/v2/alerts", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()

    def test_what_says_nothing_new_is_silent(self) -> None:
        for number, (source, target) in enumerate(INHIBITED):
            here, elsewhere = f"here{number}", f"elsewhere{number}"
            self.post([{**source, "job": here}, {**target, "job": here}, {**target, "job": elsewhere}])
        time.sleep(2)
        state = {(told["labels"]["job"], told["labels"]["alertname"]): told["status"]["state"]
                 for told in get(self.url + "/api/v2/alerts")}
        for number, (source, target) in enumerate(INHIBITED):
            with self.subTest(f"{source['alertname']} silences {target['alertname']}"):
                self.assertEqual(state[f"here{number}", source["alertname"]], "active")
                self.assertEqual(state[f"here{number}", target["alertname"]], "suppressed")
                self.assertEqual(state[f"elsewhere{number}", target["alertname"]], "active")


if __name__ == "__main__":
    unittest.main()
