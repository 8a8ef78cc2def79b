"""Data quality: what producers send that cannot be charged, is sent twice, comes late, or is new."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

import shell
from panels import COUNT, CREDITS, GREEN, MODEL, NONE_IS_GOOD, RED, YELLOW, bar_list, chart, listing, live, now, number, rows, series

NOT_SCRAPED = "Prometheus has no such series in this range: does it scrape this job, and does an instance run?"
NONE_KEPT = "Nothing was quarantined in this range."
NO_EVENTS = "No events in this range."
JOB = 'job="$job"'
# Expiry waits so long for usage that comes late (clock.allowed_lateness_seconds).
LATE_SECONDS = 3600

BY_REASON = """
    SELECT toDateTime(day, 'UTC') AS time, reason, sum(records) AS value
    FROM quarantine_summary
    WHERE $__dateFilter(day)
    GROUP BY time, reason ORDER BY time, reason"""

REASONS = """
    SELECT reason, sum(records) AS total
    FROM quarantine_summary
    WHERE $__dateFilter(day)
    GROUP BY reason ORDER BY total DESC, reason"""

CONFLICTS = """
    SELECT toDateTime(day, 'UTC') AS time, sumIf(records, reason = 'id_conflict') AS id_conflict, sumIf(records, reason = 'job_conflict') AS job_conflict
    FROM quarantine_summary
    WHERE $__dateFilter(day)
    GROUP BY time ORDER BY time"""

SAMPLES = """
    SELECT quarantined_at, reason, detail, wallet_id, source, event_id, origin_topic, origin_partition, origin_offset,
    value_bytes, substringUTF8(value, 1, 500) AS value_begins
    FROM quarantined_events FINAL
    WHERE $__timeFilter(quarantined_at)
    ORDER BY quarantined_at DESC, origin_topic, origin_partition, origin_offset DESC
    LIMIT 5 BY reason
    LIMIT 70"""

# Grouped instead of FINAL: only what is late is compared, and an entry that is stored twice is the same twice.
LATE = f"""
    SELECT toDateTime(day, 'UTC') AS time, count() AS entries, sum(charged) AS credits
    FROM (
    SELECT toDate(any(posted_at)) AS day, any(if(entry_type = 'charged', -credits, 0)) AS charged
    FROM ledger_entries
    WHERE $__timeFilter(posted_at) AND startsWith(event_type, 'generation.') AND dateDiff('second', event_time, posted_at) > {LATE_SECONDS}
    GROUP BY wallet_id, seq
    )
    GROUP BY time ORDER BY time"""

NEW_MODELS = f"""
    SELECT if(model = '', 'none', model) AS model_name, min(day) AS first_day, sum(jobs) AS all_jobs, sum(credits_charged) AS charged
    FROM usage_daily_all
    WHERE day <= toDate($__toTime, 'UTC') AND {MODEL}
    GROUP BY model_name HAVING first_day >= toDate($__fromTime, 'UTC') OR model_name = 'none'
    ORDER BY first_day DESC, model_name"""


def share(outcome: str) -> str:
    """Of all records, each counted where it was decided."""
    of = f"creditstream_events_total{{{JOB}"
    return (f'sum(rate({of}, outcome="{outcome}"}}[$__rate_interval]))\n'
            f'/ sum(rate({of}, outcome!="handed_over"}}[$__rate_interval]))')


def build() -> dashboard.Dashboard:
    made = shell.frame("quality", "What producers send: records that could not be applied and why, doubles, late ones, conflicts, new models, "
                       "records with another key than the wallet, and whether the stores agreed.", "now-7d", "1m")
    for variable in (shell.prometheus_source(), shell.clickhouse_source(), shell.job_variable(), shell.model_variable()):
        made.with_variable(variable)

    made.with_row(dashboard.Row("Now"))
    made.with_panel(number("Quarantined", "Share of records that could not be applied. An alert is raised above 1 %.", live(share("quarantined")),
                           "percentunit", NO_EVENTS, steps=[(None, GREEN), (0.001, YELLOW), (0.01, RED)]))
    made.with_panel(number("Duplicates", "Share of records that had been seen with the same payload: counted, and nothing posted.",
                           live(share("duplicate")), "percentunit", NO_EVENTS, steps=[(None, GREEN), (0.05, YELLOW)]))
    made.with_panel(number("Handed over", "Share of records that were not at home: another key than the wallet, or another partitioner. Charged all "
                           "the same, at the cost of a second pass through Kafka.", live(share("handed_over")), "percentunit", NO_EVENTS,
                           steps=[(None, GREEN), (0.2, YELLOW)]))
    made.with_panel(number("Skipped", "Records read again after a restart or a reset of the group, in the range: known, and not counted twice.",
                           now(f'sum(increase(creditstream_events_total{{{JOB}, outcome="skipped"}}[$__range]))'), COUNT, NOT_SCRAPED))
    made.with_panel(number("Unknown refunds", "Refunds in the range of jobs that nobody had heard of: remembered, and applied if the charge comes.",
                           now(f"sum(increase(creditstream_unknown_refunds_total{{{JOB}}}[$__range]))"), COUNT, NOT_SCRAPED,
                           steps=[(None, GREEN), (1, YELLOW)]))
    made.with_panel(number("Since the last quarantined", "Time since an instance quarantined a record.",
                           now(f"time() - max(creditstream_quarantine_latest_timestamp_seconds{{{JOB}}} > 0)"), "s",
                           "Nothing was quarantined since the instances started."))

    made.with_row(dashboard.Row("Quarantine"))
    made.with_panel(chart("Quarantined by reason, live", "Records a second that could not be applied, by reason.",
                          live(f"sum by (reason) (rate(creditstream_quarantined_events_total{{{JOB}}}[$__rate_interval])) > 0", "{{reason}}"), "recps",
                          NONE_KEPT, stacked=True, width=8))
    made.with_panel(chart("Quarantined by day", "Records by reason and the day on which they were quarantined last. "
                          "Replayed in vain, a record moves to its new day.",
                          series(BY_REASON), COUNT, NONE_KEPT, name="reason", bars=True, stacked=True, width=8))
    made.with_panel(bar_list("Reasons", "Records that could not be applied in the range, by reason. docs/events.md says what each means.",
                             rows(REASONS), COUNT, NONE_KEPT))
    made.with_panel(listing("Samples", "The latest five records of each reason, as they came, with the sentence that says what is wrong. Mended, they are "
                            "sent again with creditstream quarantine replay.", rows(SAMPLES), NONE_KEPT,
                            column_units={"origin_partition": COUNT, "origin_offset": COUNT, "value_bytes": "bytes"}, height=10))

    made.with_row(dashboard.Row("Doubles, conflicts, lateness"))
    made.with_panel(chart("Duplicates and skipped", "Records a second that had been seen before, by how that was noticed: the same payload, or the offset.",
                          live(f'sum by (outcome) (rate(creditstream_events_total{{{JOB}, outcome=~"duplicate|skipped"}}'
                               "[$__rate_interval]))", "{{outcome}}"),
                          "recps", NO_EVENTS, width=8))
    made.with_panel(chart("Conflicts by day", "id_conflict: an id came again with another payload. job_conflict: a job was completed twice under two ids. "
                          "Neither is charged.", series(CONFLICTS), COUNT, NONE_KEPT, bars=True, width=8, steps=NONE_IS_GOOD))
    made.with_panel(chart("Late events by day", "Entries that were posted more than an hour after they happened, and the credits that they charged: the grant "
                          "of that time may have expired. By the day of posting.", series(LATE), COUNT, "No event came more than an hour late in this range.",
                          bars=True, width=8))

    made.with_row(dashboard.Row("Models and keys"))
    made.with_panel(listing("Models not seen before", "Models that first appear in the range, charged or refused, and usage that named "
                            "none. A misspelt one is charged the rate of its asset, not the model's own.", rows(NEW_MODELS), "No new model in this range.",
                            column_units={"all_jobs": COUNT, "charged": CREDITS}, width=12))
    made.with_panel(chart("Share handed over", "Records that were not at home, of all, by source topic.",
                          live(f'sum by (topic) (rate(creditstream_events_total{{{JOB}, outcome="handed_over"}}[$__rate_interval]))\n'
                               f"/ sum by (topic) (rate(creditstream_events_total{{{JOB}}}[$__rate_interval]))", "{{topic}}"), "percentunit", NO_EVENTS))

    made.with_row(dashboard.Row("Do the stores agree?"))
    made.with_panel(chart("Drift in credits", "Credits that differed between two places at each comparison, without sign: must be 0.",
                          live(f"max by (between) (abs(creditstream_drift_credits{{{JOB}}}))", "{{between}}"), COUNT, NOT_SCRAPED, width=8, steps=NONE_IS_GOOD))
    made.with_panel(chart("Drift in records", "Records that differed between two places at each comparison: must be 0.",
                          live(f"max by (between) (abs(creditstream_drift_records{{{JOB}}}))", "{{between}}"), COUNT, NOT_SCRAPED, width=8, steps=NONE_IS_GOOD))
    made.with_panel(chart("Age of the comparison", "How old the last comparison was. Where it grows without falling back, nothing compares.",
                          live(f"time() - max by (between) (creditstream_drift_checked_timestamp_seconds{{{JOB}}} > 0)", "{{between}}"), "s",
                          "Nothing was compared since the instances started.", width=8, steps=[(None, GREEN), (3600, RED)]))
    return made
