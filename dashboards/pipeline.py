"""Pipeline: what an operator asks at three in the morning. Is anyone charged late, does anything stand still, does it add up?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

import shell
from panels import (COUNT, GREEN, NONE_IS_GOOD, ORANGE, RED, YELLOW, Steps, chart, listing, live, lives, now, number, rows)

NOT_SCRAPED = "Prometheus has no such series in this range: does it scrape this job, and does an instance run?"
NO_EVENTS = "No events in this range."
JOB = 'job="$job"'
SECONDS = "s"

LATE = f"""1 - sum(rate(creditstream_event_to_balance_seconds_bucket{{{JOB}, le="1"}}[$__rate_interval]))
/ sum(rate(creditstream_event_to_balance_seconds_count{{{JOB}}}[$__rate_interval]))"""
DRIFT = f"sum(abs(creditstream_drift_credits{{{JOB}}})) + sum(abs(creditstream_drift_records{{{JOB}}}))"
FRESHNESS = """
    SELECT table_name, ledger_partition, newest_at, ledger_offset, lag_seconds
    FROM freshness ORDER BY table_name, ledger_partition"""
# The alerts of config/prometheus/rules: what is red here has been told to somebody.
AGE: Steps = [(None, GREEN), (10, YELLOW), (60, RED)]


def quantile(share: str, histogram: str, by: str = "") -> str:
    return (f"histogram_quantile({share}, sum by (le{', ' + by if by else ''}) "
            f"(rate(creditstream_{histogram}_bucket{{{JOB}}}[$__rate_interval])))")


def rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate(creditstream_{metric}{{{JOB}}}[$__rate_interval]))"


def build() -> dashboard.Dashboard:
    made = shell.frame("pipeline", "What an operator asks: is anyone charged late, does anything stand still, do the stores agree. "
                       "Red is what the alerts of config/prometheus/rules call somebody for. Live, from Prometheus.", "now-3h", "10s")
    for variable in (shell.prometheus_source(), shell.clickhouse_source(), shell.job_variable()):
        made.with_variable(variable)

    made.with_row(dashboard.Row("Is anyone charged late?"))
    made.with_panel(number("Late events", "Share of events that were not in the balance within 1 s. The promise is 1 %.", live(LATE),
                           "percentunit", NO_EVENTS, steps=[(None, GREEN), (0.01, YELLOW), (0.03, ORANGE), (0.144, RED)]))
    made.with_panel(number("Oldest event waiting", "Age of the oldest source record that is not yet processed; 0: none waits.",
                           now(f'max(creditstream_lag_seconds{{{JOB}, stage="ledger"}})'), SECONDS, NOT_SCRAPED, steps=AGE))
    made.with_panel(number("Since the last commit", "Time since any instance committed a transaction. Harmless while nothing waits.",
                           now(f"time() - max(creditstream_last_commit_timestamp_seconds{{{JOB}}} > 0)"), SECONDS,
                           "No instance has committed since it started.", steps=[(None, GREEN), (60, YELLOW), (600, ORANGE)]))
    made.with_panel(number("Shards stopped", "Shards that stand still until somebody acts; their log line at level error says what to do.",
                           now(f"sum(creditstream_shard_stopped{{{JOB}}}) or vector(0)"), COUNT, NOT_SCRAPED, steps=NONE_IS_GOOD))
    made.with_panel(number("DRIFT", "Credits and records in which sources, ledger, wallets and ClickHouse differ, without signs. "
                           "Anything but 0: something was lost, doubled or changed.", now(DRIFT), COUNT, NOT_SCRAPED, steps=NONE_IS_GOOD))
    made.with_panel(number("Drift last checked", "Age of the oldest comparison. Above an hour a difference would not be seen.",
                           now(f"time() - min(creditstream_drift_checked_timestamp_seconds{{{JOB}}} > 0)"), SECONDS,
                           "Nothing was compared since the instances started.", steps=[(None, GREEN), (1800, YELLOW), (3600, RED)]))

    made.with_row(dashboard.Row("Events"))
    made.with_panel(chart("Event to balance", "Time from an event's Kafka timestamp to the commit that made it count: half, 95 % and 99 % are faster.",
                          lives((quantile("0.5", "event_to_balance_seconds"), "half"), (quantile("0.95", "event_to_balance_seconds"), "95 %"),
                                (quantile("0.99", "event_to_balance_seconds"), "99 %")), SECONDS, NO_EVENTS, steps=[(None, GREEN), (1, RED)]))
    made.with_panel(chart("Events by outcome", "Records read a second by what became of them. One that is handed over counts again where it is decided.",
                          live(rate("events_total", "outcome") + " > 0", "{{outcome}}"), "eps", NO_EVENTS, stacked=True))
    made.with_panel(chart("Records waiting", "Records that a stage has not yet processed, by stage and topic.",
                          live(f"sum by (stage, topic) (creditstream_lag_records{{{JOB}}})", "{{stage}} {{topic}}"), COUNT, NOT_SCRAPED))
    made.with_panel(chart("Age of what waits", "Age of the oldest record that a stage has not yet processed, by stage and topic.",
                          live(f"max by (stage, topic) (creditstream_lag_seconds{{{JOB}}})", "{{stage}} {{topic}}"), SECONDS, NOT_SCRAPED,
                          steps=AGE))

    made.with_row(dashboard.Row("Transactions and shards"))
    made.with_panel(chart("Transactions", "Kafka transactions that ended a second, by outcome. Aborted ones are tried again; fenced: a successor took over.",
                          live(rate("transactions_total", "outcome"), "{{outcome}}"), "ops", NOT_SCRAPED, width=8))
    made.with_panel(chart("Transaction time", "From the begin of a transaction to the return of its commit.",
                          lives((quantile("0.5", "transaction_duration_seconds"), "half"), (quantile("0.99", "transaction_duration_seconds"), "99 %")),
                          SECONDS, "No transactions in this range.", width=8))
    made.with_panel(chart("Events a transaction", "Records of a batch, which is one transaction.",
                          lives((quantile("0.5", "batch_events"), "half"), (quantile("0.99", "batch_events"), "99 %")), COUNT,
                          "No transactions in this range.", width=8))
    made.with_panel(chart("Shards owned", "Shards that each instance owns and has restored. Their sum falls while shards move.",
                          live(f"sum by (instance) (creditstream_shards_owned{{{JOB}}})", "{{instance}}"), COUNT, NOT_SCRAPED, stacked=True, width=8))
    made.with_panel(chart("Restores", "Time from the assignment of a shard to its state being restored: half, and 99 %. An alert is raised above a minute.",
                          lives((quantile("0.5", "restore_duration_seconds"), "half"), (quantile("0.99", "restore_duration_seconds"), "99 %")),
                          SECONDS, "No shard was restored in this range.", width=8, steps=[(None, GREEN), (60, RED)]))
    made.with_panel(chart("Shards stopped by reason", "1 for each shard that stands still, by reason.",
                          live(f"sum by (shard, reason) (creditstream_shard_stopped{{{JOB}}})", "shard {{shard}}: {{reason}}"), COUNT,
                          "No shard stands still.", width=8, steps=NONE_IS_GOOD))

    made.with_row(dashboard.Row("ClickHouse"))
    made.with_panel(chart("Rows written", "Rows that ClickHouse acknowledged a second, by table. A row that is sent again counts again.",
                          live(rate("clickhouse_rows_total", "table") + " > 0", "{{table}}"), "wps", "Nothing was written in this range.", width=8))
    made.with_panel(chart("Insert time", "Time of one acknowledged insert: 99 % are faster, by table.",
                          live(quantile("0.99", "clickhouse_insert_duration_seconds", "table"), "{{table}}"), SECONDS,
                          "Nothing was written in this range.", width=8))
    made.with_panel(chart("Errors", "Requests to ClickHouse that failed, by kind: permanent ones stop the sink, the others are tried again. Debits go on.",
                          live(f"sum by (kind) (increase(creditstream_clickhouse_errors_total{{{JOB}}}[$__rate_interval]))", "{{kind}}"), COUNT,
                          NOT_SCRAPED, width=8, steps=NONE_IS_GOOD))
    made.with_panel(listing("Freshness", "How far each table has come. The lag is that of the newest row: it grows also while nothing happens.",
                            rows(FRESHNESS), "ClickHouse has no rows yet.",
                            column_units={"ledger_partition": COUNT, "ledger_offset": COUNT, "lag_seconds": SECONDS}))

    made.with_row(dashboard.Row("Drift"))
    made.with_panel(chart("Drift in credits", "Credits that differ between two places, without sign: must be 0.",
                          live(f"max by (between) (abs(creditstream_drift_credits{{{JOB}}}))", "{{between}}"), COUNT, NOT_SCRAPED, steps=NONE_IS_GOOD))
    made.with_panel(chart("Drift in records", "Records that differ between two places: must be 0.",
                          live(f"max by (between) (abs(creditstream_drift_records{{{JOB}}}))", "{{between}}"), COUNT, NOT_SCRAPED, steps=NONE_IS_GOOD))

    made.with_row(dashboard.Row("Instances and webhooks"))
    made.with_panel(chart("Memory", "Resident memory of each instance.",
                          live(f"sum by (instance) (process_resident_memory_bytes{{{JOB}}})", "{{instance}}"), "bytes", NOT_SCRAPED, width=8))
    made.with_panel(chart("CPU", "Cores that each instance keeps busy.",
                          live(f"sum by (instance) (rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval]))", "{{instance}}"), "suffix: cores",
                          NOT_SCRAPED, width=8))
    made.with_panel(number("Versions", "Instances that run, by version and commit.",
                           now(f"count by (version, revision) (creditstream_build_info{{{JOB}}})", "{{version}} {{revision}}"), COUNT, NOT_SCRAPED,
                           width=8, height=8))
    made.with_panel(chart("Webhook tries", "Tries to send alerts, by endpoint and outcome; dead: given up after 3 days.",
                          live(f"sum by (endpoint, outcome) (increase(creditstream_webhook_deliveries_total{{{JOB}}}[$__rate_interval])) > 0",
                               "{{endpoint}} {{outcome}}"), COUNT, "No alert was sent in this range, or no endpoint is set."))
    made.with_panel(chart("Oldest alert not taken", "Age of the oldest alert that an endpoint has not taken; after 3 days it is given up.",
                          live(f"max by (endpoint) (creditstream_webhook_oldest_pending_seconds{{{JOB}}})", "{{endpoint}}"), SECONDS,
                          "No endpoint is set.", steps=[(None, GREEN), (900, ORANGE), (172800, RED)]))
    return made
