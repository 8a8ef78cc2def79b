"""The Prometheus rules: each fires, does not fire just below, resolves; names exist; the runbook is complete.

Run: python3 -m unittest discover --start-directory tests/alerting
"""

from __future__ import annotations

import json
import re
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cases import CASES, IDLE, RESTARTED, Case
from tools import CHECKOUT, RULES, alerts_of, prometheus, queries_of, rule_files, tool

# What Prometheus itself gives a series, and what a histogram's buckets have.
EVERYWHERE = {"job", "instance", "le"}


def series(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": value} for name, value in values.items()]


def firing(at: str, alert: str, labels: dict[str, str] | None) -> dict[str, Any]:
    """The alert fires at that time once, with these labels; None: it does not fire."""
    matchers = f'alertname="{alert}", alertstate="firing"' if alert else 'alertstate="firing"'
    if labels is None:
        return {"expr": f"ALERTS{{{matchers}}}", "eval_time": at, "exp_samples": []}
    told = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return {"expr": f"sum by ({', '.join(labels)}) (ALERTS{{{matchers}}})", "eval_time": at,
            "exp_samples": [{"labels": f"{{{told}}}", "value": 1}]}


def promtool_test(name: str, values: dict[str, str], checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "input_series": series(values), "promql_expr_test": checks}


def tests_of(case: Case) -> list[dict[str, Any]]:
    fires = [firing(case.quiet_at, case.alert, None), firing(case.fires_at, case.alert, case.labels),
             firing(case.resolves_at, case.alert, None)]
    quiet = [firing(case.fires_at, case.alert, None)]
    others = [promtool_test(f"{case.alert} not at all", {**case.series, **values}, quiet)
              for values in (case.below, *case.never) if values]
    others += [promtool_test(f"{case.alert} fires too", {**case.series, **values},
                             [firing(case.fires_at, case.alert, case.labels)]) for values in case.also]
    return [promtool_test(f"{case.alert} fires and resolves", case.series, fires), *others]


def rules_of(alert: str, folder: Path) -> list[Path]:
    """Files with this alert only, and the recorded series if it rests on some: the others only cost time."""
    for path in rule_files():
        head, *blocks = re.split(r"^(?=      - alert: )", path.read_text(), flags=re.MULTILINE)
        for block in blocks:
            if block.startswith(f"      - alert: {alert}\n"):
                (folder / "alert.yml").write_text(head + block)
                return [folder / "alert.yml", *([RULES / "recording.yml"] if "job:" in block else [])]
    raise AssertionError(f"there is no alert {alert}")


def run_promtool(tests: list[dict[str, Any]], step: str = "1m", alert: str | None = None) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.json"
        # JSON is YAML.
        files = rules_of(alert, Path(folder)) if alert else rule_files()
        path.write_text(json.dumps({"rule_files": [str(file) for file in files],
                                    "evaluation_interval": step,
                                    "tests": [{**test, "interval": step} for test in tests]}))
        return tool("promtool", "test", "rules", str(path))


def declared_metrics() -> dict[str, set[str]]:
    """Metrics of src/metrics.rs with their labels, by name without the prefix."""
    source = (CHECKOUT / "src" / "metrics.rs").read_text()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r'\w+\("([a-z_]+)"(?:, &\[([^]]*)\])?(?:, &\w+)?\),\s*\n', source):
        found[name] = set(re.findall(r'"(\w+)"', labels))
    return found


class RulesTest(unittest.TestCase):
    maxDiff = None

    def test_promtool_accepts_the_rules(self) -> None:
        code, told = tool("promtool", "check", "rules", *map(str, rule_files()))
        self.assertEqual(code, 0, told)

    def test_promtool_accepts_the_configuration_of_the_containers(self) -> None:
        text = (CHECKOUT / "docker" / "prometheus.yml").read_text()
        self.assertIn('"/etc/prometheus/rules/*.yml"', text)
        self.assertIn("../config/prometheus/rules:/etc/prometheus/rules:ro",
                      (CHECKOUT / "docker" / "compose.yaml").read_text())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prometheus.yml"
            path.write_text(text.replace("/etc/prometheus/rules", str(RULES)))
            code, told = tool("promtool", "check", "config", str(path))
        self.assertEqual(code, 0, told)
        self.assertIn(f"{len(rule_files())} rule files found", told)

    def test_every_alert_has_a_case(self) -> None:
        text = "".join(path.read_text() for path in rule_files())
        alerts = re.findall(r"^      - alert: (\w+)$", text, re.MULTILINE)
        self.assertEqual(text.count("alert:"), len(alerts), "an alert is written otherwise than this test reads it")
        self.assertEqual(sorted(alerts), sorted({case.alert for case in CASES if case.below}))

    def test_every_alert_fires_not_just_below_and_resolves(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda case: run_promtool(tests_of(case), case.step, case.alert), CASES))
        for case, (code, told) in zip(CASES, answers):
            with self.subTest(case.alert):
                self.assertEqual(code, 0, told)

    def test_an_idle_deployment_and_a_restarted_one_are_quiet(self) -> None:
        # After the quarter of an hour in which the counters of the restart are in the windows, and in the middle.
        checks = [firing(f"{at}m", "", None) for at in (30, 151, 153, 160, 170, 290)]
        code, told = run_promtool([promtool_test("idle", IDLE, checks), promtool_test("restarted", RESTARTED, checks)])
        self.assertEqual(code, 0, told)

    def test_a_promtool_test_that_is_wrong_fails(self) -> None:
        case = CASES[0]
        code, _ = run_promtool([promtool_test("wrong", case.series, [firing(case.fires_at, case.alert, None)])])
        self.assertNotEqual(code, 0)


class NamesTest(unittest.TestCase):
    alerts: dict[str, dict[str, Any]]
    queries: dict[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        with prometheus("127.0.0.1:1", at_once=False) as url:
            cls.alerts = alerts_of(url)
            cls.queries = queries_of(url)

    def test_every_metric_and_label_exists(self) -> None:
        declared = declared_metrics()
        self.assertEqual(declared["lag_records"], {"stage", "topic", "partition"})
        recorded = set(self.queries) - set(self.alerts)
        for rule, query in self.queries.items():
            allowed = set(EVERYWHERE)
            for metric in re.findall(r"\bcreditstream_\w+", re.sub(r'"[^"]*"|job:\w+:\w+', "", query)):
                base = re.sub("_(bucket|sum|count)$", "", metric.removeprefix("creditstream_"))
                self.assertIn(base, declared, f"{rule} names {metric}, which does not exist")
                allowed |= declared[base]
            for name in re.findall(r"job:\w+:\w+", query):
                self.assertIn(name, recorded, f"{rule} names {name}, which nothing records")
            named = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', query))
            for group in re.findall(r"\b(?:by|on|without|group_left) ?\(([^)]*)\)", query):
                named |= {label.strip() for label in group.split(",") if label.strip()}
            self.assertLessEqual(named, allowed, f"{rule} names labels that its metrics do not have")

    def test_label_values_that_rules_name_exist(self) -> None:
        source = (CHECKOUT / "src" / "metrics.rs").read_text()
        outside = {"job": {"creditstream"}, "stage": {"ledger", "sink"}, "le": {"1", "60"}, "outcome": {"delivered"}}
        for rule, query in self.queries.items():
            for label, values in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', query):
                for value in values.split("|"):
                    self.assertTrue(value in outside.get(label, ()) or f'"{value}"' in source,
                                    f"{rule}: {label}={value} is never exported")
        for name, bound in (("EVENT_TO_BALANCE_SECONDS", "1.0"), ("RESTORE_SECONDS", "60.0")):
            buckets = re.findall(rf"const {name}: [^=]*=\s*\[([^]]*)\]", source)[0]
            self.assertIn(bound, [bucket.strip() for bucket in buckets.split(",")], f"{name} has no such bucket")

    def test_every_alert_says_what_it_must(self) -> None:
        for name, alert in self.alerts.items():
            self.assertIn(alert["labels"].get("severity"), ("critical", "warning", "info"), name)
            self.assertIn(alert["labels"].get("audience"), ("customers", "service"), name)
            told = alert["annotations"]
            self.assertLessEqual(len(told["summary"]), 120, name)
            self.assertTrue(told["description"].endswith("."), name)
            # Where the value is always 1 it says nothing.
            if name not in ("CreditstreamMetricsAbsent", "CreditstreamDriftCheckAbsent", "CreditstreamShardStopped"):
                self.assertIn("$value", told["description"], name)
            self.assertEqual(told["runbook_url"], f"https://example.com/creditstream/docs/runbooks.md#{name.lower()}")

    def test_the_runbook_has_a_section_for_every_alert_and_no_other(self) -> None:
        text = (CHECKOUT / "docs" / "runbooks.md").read_text()
        sections = dict(re.findall(r"^### (Creditstream\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
        self.assertEqual(sorted(sections), sorted(self.alerts))
        for name, section in sections.items():
            for part in ("**Means.**", "**Check.**", "**Do.**"):
                self.assertIn(part, section, name)
            self.assertIn("```promql\n", section, name)
            self.assertRegex(section, r"```(sh|sql)\n|`(creditstream|kcat|kafka-\S+|curl) [^`]+`", name)

    def test_queries_of_the_runbook_parse_and_name_what_exists(self) -> None:
        text = (CHECKOUT / "docs" / "runbooks.md").read_text()
        queries = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
        rules = [{"record": f"runbook:query:{number}".replace("-", "_"), "expr": query}
                 for number, query in enumerate(queries)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rules.json"
            path.write_text(json.dumps({"groups": [{"name": "runbook", "rules": rules}]}))
            code, told = tool("promtool", "check", "rules", str(path))
        self.assertEqual(code, 0, told)
        known = declared_metrics()
        for metric in re.findall(r"\bcreditstream_(\w+)", re.sub(r"job:\w+:\w+", "", "".join(queries))):
            self.assertIn(re.sub("_(bucket|sum|count)$", "", metric), known, "a query of the runbook")

    def test_the_table_of_alerts_is_that_of_the_rules(self) -> None:
        text = (CHECKOUT / "docs" / "runbooks.md").read_text()
        rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \| (\w+) \| .+ \|$", text, re.MULTILINE)
        wanted = [(name, name.lower(), alert["labels"]["severity"], duration(alert["duration"]))
                  for name, alert in self.alerts.items()]
        self.assertEqual(sorted(rows), sorted(wanted))


def duration(seconds: float) -> str:
    return f"{seconds / 3600:g}h" if seconds >= 3600 else f"{seconds / 60:g}m"


if __name__ == "__main__":
    unittest.main()
