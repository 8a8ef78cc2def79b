//! All metrics, declared once, here: name, labels, unit and meaning.
//!
//! Invariant: labels are bounded. Every closed label set is exported at 0 from the start, so that a rate over
//! a first error is not lost; a shard's and a partition's gauges vanish when they leave. A sum over instances
//! is meaningful. The registry is the instance's own, never the process': tests run side by side.
//!
//! Histograms and counters are written where the thing happens; gauges by their one owner.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::alert::AlertKind;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Prefix of every name but those of the process (`process_*` are Prometheus' own).
pub const PREFIX: &str = "creditstream";

/// What became of a record that was read: exactly one of these.
pub const OUTCOMES: [&str; 15] = [
    "charged",
    "refused",
    "held",
    "released",
    "reversed",
    "noted",
    "granted",
    "contract",
    "adjusted",
    "limits",
    "free",
    "duplicate",
    "skipped",
    "quarantined",
    "handed_over",
];

/// Why a record was quarantined.
pub const REASONS: [&str; 14] = [
    "not_json",
    "not_cloudevent",
    "unknown_type",
    "missing_field",
    "bad_value",
    "too_old",
    "too_far_ahead",
    "id_conflict",
    "unknown_plan",
    "unknown_topup",
    "no_contract",
    "contract_conflict",
    "job_conflict",
    "too_large",
];

/// Ways that credits flow.
pub const FLOWS: [&str; 7] =
    ["granted", "charged", "reversed", "expired", "refused", "adjusted_up", "adjusted_down"];

/// Levels of a wallet, best first.
pub const LEVELS: [&str; 5] = ["ok", "low", "critical", "exhausted", "overdrawn"];

/// How a Kafka transaction ended.
pub const TRANSACTION_OUTCOMES: [&str; 3] = ["committed", "aborted", "fenced"];

/// Tables of ClickHouse that the sink writes.
pub const TABLES: [&str; 8] = [
    "ledger_entries",
    "usage_hourly",
    "wallets",
    "grants",
    "alerts",
    "quarantined_events",
    "usage_by_day",
    "credits_by_day",
];

/// Why a request to ClickHouse failed: no connection; no answer in time; an error that passes (overload,
/// memory, a replica that lags); one that does not (a refused statement, missing rights); anything else.
pub const CLICKHOUSE_ERROR_KINDS: [&str; 5] = ["unreachable", "timeout", "transient", "permanent", "other"];

/// What came of sending an alert: taken (2xx); another status; 410; no answer in time; no connection or no valid
/// certificate; an address that is not public; and, of an alert rather than of a try, given up.
pub const WEBHOOK_OUTCOMES: [&str; 7] =
    ["delivered", "rejected", "gone", "timed_out", "unreachable", "blocked", "dead"];

/// What a plan or a model that is not in the price list is called.
pub const OTHER: &str = "other";

/// The plan label of a wallet without a contract.
pub const NO_PLAN: &str = "none";

/// Commit that the binary was built from, where the build says so.
pub const REVISION: &str = match option_env!("CREDITSTREAM_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// 5 ms to 60 s: a balance is promised within seconds, and a restart shows in the last ones.
const EVENT_TO_BALANCE_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// 1 ms to 10 s, which is the transaction timeout.
const TRANSACTION_SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BATCH_EVENTS: [f64; 12] =
    [1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0, 100_000.0];
/// 10 ms to 30 s, which is the request timeout.
const INSERT_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// 10 ms to 10 s, which is the request timeout.
const WEBHOOK_SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const RESTORE_SECONDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];

/// Makes the struct and what registers it out of one table, so that a help text is a field's documentation.
macro_rules! metrics {
    ($($field:ident: $type:ty = $kind:ident($name:literal $(, $argument:expr)*), $help:literal;)*) => {
        /// The metrics of one instance, each to be written through its field.
        pub struct MetricSet {
            $(#[doc = $help] pub $field: $type,)*
            registry: Registry,
            #[cfg(test)]
            declared: Vec<(String, String)>,
        }

        impl MetricSet {
            fn declare() -> MetricSet {
                let mut declarations = Declarations::default();
                MetricSet {
                    $($field: declarations.$kind($name, $help $(, $argument)*),)*
                    registry: declarations.registry,
                    #[cfg(test)]
                    declared: declarations.declared,
                }
            }
        }
    };
}

metrics! {
    events: IntCounterVec = counters("events_total", &["topic", "outcome"]),
        "Records read, by source topic and what became of them: exactly one outcome each.";
    quarantined_events: IntCounterVec = counters("quarantined_events_total", &["reason"]),
        "Records that could not be applied and went to the quarantine topic, by reason.";
    quarantine_latest_timestamp_seconds: Gauge = gauge("quarantine_latest_timestamp_seconds"),
        "When this instance last quarantined a record, seconds since 1970; 0: not since it started.";
    credits: IntCounterVec = counters("credits_total", &["flow"]),
        "Credits that flowed, by flow; all are counted upwards.";
    unknown_refunds: IntCounter = counter("unknown_refunds_total"),
        "Refunds of jobs that nobody had heard of: noted, and applied where the charge comes later.";
    wallets: IntGaugeVec = int_gauges("wallets", &["plan", "level"]),
        "Wallets in the shards of this instance, by plan and level.";
    wallet_available_credits: IntGaugeVec = int_gauges("wallet_available_credits", &["wallet", "plan", "level"]),
        "Credits available in the wallets of this instance that are most in need, at most alerts.series_limit of them.";
    wallet_series_omitted: IntGauge = int_gauge("wallet_series_omitted"),
        "Wallets of this instance that are low or worse and have no series of their own.";
    alerts: IntCounterVec = counters("alerts_total", &["kind", "level"]),
        "Alerts posted, by kind and the level that the wallet then had.";
    lag_records: IntGaugeVec = int_gauges("lag_records", &["stage", "topic", "partition"]),
        "Records of a partition that a stage has not yet processed.";
    lag_seconds: GaugeVec = gauges("lag_seconds", &["stage", "topic", "partition"]),
        "Age of the oldest record of a partition that a stage has not yet processed, seconds; 0: none waits.";
    event_to_balance_seconds: Histogram = histogram("event_to_balance_seconds", &EVENT_TO_BALANCE_SECONDS),
        "Time from a record's Kafka timestamp to the return of the commit that made it count, seconds.";
    transaction_duration_seconds: Histogram = histogram("transaction_duration_seconds", &TRANSACTION_SECONDS),
        "Time from the begin of a Kafka transaction to the return of its commit, seconds.";
    batch_events: Histogram = histogram("batch_events", &BATCH_EVENTS),
        "Records of a batch, which is one transaction.";
    transactions: IntCounterVec = counters("transactions_total", &["outcome"]),
        "Kafka transactions that ended, by outcome.";
    last_commit_timestamp_seconds: Gauge = gauge("last_commit_timestamp_seconds"),
        "When this instance last committed a transaction, seconds since 1970; 0: not since it started.";
    shards: IntGauge = int_gauge("shards"),
        "Shards that there are, as the ledger stage of this instance found them at its start; 0 without that stage.";
    shards_owned: IntGauge = int_gauge("shards_owned"),
        "Shards that this instance owns and has restored.";
    shard_stopped: IntGaugeVec = int_gauges("shard_stopped", &["shard", "reason"]),
        "1 while a shard stands still until somebody acts, by reason; absent else.";
    clickhouse_insert_duration_seconds: HistogramVec =
        histograms("clickhouse_insert_duration_seconds", &["table"], &INSERT_SECONDS),
        "Time of one acknowledged insert into ClickHouse, seconds, tries that failed not counted.";
    clickhouse_rows: IntCounterVec = counters("clickhouse_rows_total", &["table"]),
        "Rows that ClickHouse acknowledged, by table; a row that is sent again counts again.";
    clickhouse_errors: IntCounterVec = counters("clickhouse_errors_total", &["kind"]),
        "Requests to ClickHouse that failed, by kind of error.";
    drift_records: IntGaugeVec = int_gauges("drift_records", &["between"]),
        "Records that differ between two places, of what this instance watches, by the two places.";
    drift_credits: IntGaugeVec = int_gauges("drift_credits", &["between"]),
        "Credits that differ between two places, of what this instance watches, each difference without its sign.";
    drift_checked_timestamp_seconds: GaugeVec = gauges("drift_checked_timestamp_seconds", &["between"]),
        "When two places were last compared, seconds since 1970; 0: not since the instance started.";
    restore_duration_seconds: Histogram = histogram("restore_duration_seconds", &RESTORE_SECONDS),
        "Time from the assignment of a shard to its state being restored, seconds.";
    webhook_deliveries: IntCounterVec = counters("webhook_deliveries_total", &["endpoint", "outcome"]),
        "Tries to send an alert to an endpoint, by outcome; `dead` counts alerts that were given up.";
    webhook_delivery_duration_seconds: HistogramVec =
        histograms("webhook_delivery_duration_seconds", &["endpoint"], &WEBHOOK_SECONDS),
        "Time of one try to send an alert to an endpoint, whatever its outcome, seconds.";
    webhook_passed_over: IntCounterVec = counters("webhook_passed_over_total", &["endpoint"]),
        "Alerts that an endpoint did not get, for they were too old when its consumer group got its first positions.";
    webhook_oldest_pending_seconds: GaugeVec = gauges("webhook_oldest_pending_seconds", &["endpoint"]),
        "Age of the oldest alert that this instance has read and an endpoint has not taken, seconds; 0: none.";
    build_info: IntGaugeVec = int_gauges("build_info", &["version", "revision"]),
        "Always 1; the labels say which build runs.";
}

/// The metrics of one instance. Clones share the same values.
#[derive(Clone)]
pub struct Metrics(Arc<MetricSet>);

impl Deref for Metrics {
    type Target = MetricSet;

    fn deref(&self) -> &MetricSet {
        &self.0
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All metrics, every closed label set at 0.
    pub fn new() -> Metrics {
        let set = MetricSet::declare();
        at_zero(&set.quarantined_events, &REASONS);
        at_zero(&set.credits, &FLOWS);
        at_zero(&set.transactions, &TRANSACTION_OUTCOMES);
        at_zero(&set.clickhouse_insert_duration_seconds, &TABLES);
        at_zero(&set.clickhouse_rows, &TABLES);
        at_zero(&set.clickhouse_errors, &CLICKHOUSE_ERROR_KINDS);
        for kind in AlertKind::ALL {
            for level in LEVELS {
                set.alerts.with_label_values(&[kind.as_str(), level]);
            }
        }
        set.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION]).set(1);
        register_process(&set.registry);
        Metrics(Arc::new(set))
    }

    /// Exports every outcome of these topics at 0: the sources, and the intake.
    pub fn declare_topics<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        for topic in topics {
            for outcome in OUTCOMES {
                self.events.with_label_values(&[topic, outcome]);
            }
        }
    }

    /// Exports every level of these plans, of [`NO_PLAN`] and of [`OTHER`] at 0.
    pub fn declare_plans<'a>(&self, plans: impl IntoIterator<Item = &'a str>) {
        for plan in plans.into_iter().chain([NO_PLAN, OTHER]) {
            for level in LEVELS {
                self.wallets.with_label_values(&[plan, level]);
            }
        }
    }

    /// Exports every outcome of an endpoint at 0.
    pub fn declare_endpoint(&self, endpoint: &str) {
        for outcome in WEBHOOK_OUTCOMES {
            self.webhook_deliveries.with_label_values(&[endpoint, outcome]);
        }
        self.webhook_delivery_duration_seconds.with_label_values(&[endpoint]);
        self.webhook_passed_over.with_label_values(&[endpoint]);
        self.webhook_oldest_pending_seconds.with_label_values(&[endpoint]);
    }

    /// Takes away what was exported of a shard that stood still: it goes on, or left this instance.
    pub fn clear_shard_stopped(&self, shard: &str) {
        remove_where(&self.shard_stopped, &[("shard", shard)]);
    }

    /// Takes away the lag of a partition that left this instance.
    pub fn clear_lag(&self, stage: &str, topic: &str, partition: &str) {
        let labels = [("stage", stage), ("topic", topic), ("partition", partition)];
        remove_where(&self.lag_records, &labels);
        remove_where(&self.lag_seconds, &labels);
    }

    /// All metrics in Prometheus' text format 0.0.4.
    pub fn encode(&self) -> String {
        let families = self.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            // Only a collector that contradicts its own description gets here; a scrape that fails the
            // parser is seen, an empty one is not.
            tracing::error!(%error, "metrics cannot be encoded");
            format!("metrics cannot be encoded: {error}\n")
        })
    }
}

fn at_zero<B: MetricVecBuilder>(metric: &MetricVec<B>, values: &[&str]) {
    for value in values {
        metric.with_label_values(&[*value]);
    }
}

/// Removes every series that has all of these labels.
fn remove_where<B>(metric: &MetricVec<B>, labels: &[(&str, &str)])
where
    B: MetricVecBuilder,
    MetricVec<B>: Collector,
{
    for family in metric.collect() {
        for series in family.get_metric() {
            let found: HashMap<&str, &str> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.iter().all(|(name, value)| found.get(name) == Some(value)) {
                // An error says that another thread has removed it in between.
                let _ = metric.remove(&found);
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) {
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process)).expect("nothing else is named process_*");
}

/// Prometheus' crate reads /proc and nothing else.
#[cfg(not(target_os = "linux"))]
fn register_process(_: &Registry) {}

const VALID: &str = "names and labels are valid and unique: a test declares them";

/// Makes metrics and registers them.
#[derive(Default)]
struct Declarations {
    registry: Registry,
    #[cfg(test)]
    declared: Vec<(String, String)>,
}

impl Declarations {
    fn register<C: Collector + Clone + 'static>(&mut self, made: prometheus::Result<C>) -> C {
        let metric = made.expect(VALID);
        #[cfg(test)]
        self.declared.extend(metric.desc().iter().map(|desc| (desc.fq_name.clone(), desc.help.clone())));
        self.registry.register(Box::new(metric.clone())).expect(VALID);
        metric
    }

    fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(opts(name, help), labels))
    }

    fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(opts(name, help)))
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(opts(name, help)))
    }

    fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(opts(name, help), labels))
    }

    fn int_gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(opts(name, help)))
    }

    fn int_gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(opts(name, help), labels))
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(histogram_opts(name, help, buckets)))
    }

    fn histograms(&mut self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.register(HistogramVec::new(histogram_opts(name, help, buckets), labels))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace(PREFIX).buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// What rules and dashboards rest on, in the order of the table.
    const CONTRACT: [&str; 31] = [
        "events_total",
        "quarantined_events_total",
        "quarantine_latest_timestamp_seconds",
        "credits_total",
        "unknown_refunds_total",
        "wallets",
        "wallet_available_credits",
        "wallet_series_omitted",
        "alerts_total",
        "lag_records",
        "lag_seconds",
        "event_to_balance_seconds",
        "transaction_duration_seconds",
        "batch_events",
        "transactions_total",
        "last_commit_timestamp_seconds",
        "shards",
        "shards_owned",
        "shard_stopped",
        "clickhouse_insert_duration_seconds",
        "clickhouse_rows_total",
        "clickhouse_errors_total",
        "drift_records",
        "drift_credits",
        "drift_checked_timestamp_seconds",
        "restore_duration_seconds",
        "webhook_deliveries_total",
        "webhook_delivery_duration_seconds",
        "webhook_passed_over_total",
        "webhook_oldest_pending_seconds",
        "build_info",
    ];

    fn has_line(text: &str, line: &str) -> bool {
        text.lines().any(|other| other == line)
    }

    #[test]
    fn names_are_those_of_the_contract_and_each_has_help() {
        let metrics = Metrics::new();
        let names: Vec<&str> = metrics.declared.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, CONTRACT.map(|name| format!("creditstream_{name}")));
        for (name, help) in &metrics.declared {
            assert!(help.len() > 20 && help.ends_with('.'), "{name}: {help}");
            assert!(!name.ends_with("_seconds") || help.contains("seconds"), "{name} does not say its unit");
        }
    }

    #[test]
    fn closed_label_sets_are_at_zero_from_the_start() {
        let metrics = Metrics::new();
        metrics.declare_topics(["a.b"]);
        metrics.declare_plans(["lite"]);
        let text = metrics.encode();
        let count = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(count("creditstream_events_total{"), 15);
        assert_eq!(count("creditstream_quarantined_events_total{"), 14);
        assert_eq!(count("creditstream_credits_total{"), 7);
        assert_eq!(count("creditstream_transactions_total{"), 3);
        assert_eq!(count("creditstream_clickhouse_rows_total{"), 8);
        assert_eq!(count("creditstream_clickhouse_insert_duration_seconds_count{"), 8);
        assert_eq!(count("creditstream_clickhouse_errors_total{"), 5);
        assert_eq!(count("creditstream_wallets{"), 15);
        assert_eq!(count("creditstream_alerts_total{"), 25);
        assert!(has_line(&text, r#"creditstream_events_total{outcome="charged",topic="a.b"} 0"#), "{text}");
        assert!(has_line(&text, "creditstream_shards_owned 0"));
        assert!(text.contains(r#"creditstream_build_info{revision=""#));
        #[cfg(target_os = "linux")]
        assert!(text.contains("\nprocess_resident_memory_bytes "));
    }

    #[test]
    fn instances_share_nothing_and_clones_everything() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.clone().credits.with_label_values(&["charged"]).inc_by(8);
        assert!(has_line(&one.encode(), r#"creditstream_credits_total{flow="charged"} 8"#));
        assert!(has_line(&other.encode(), r#"creditstream_credits_total{flow="charged"} 0"#));
    }

    #[test]
    fn a_shards_and_a_partitions_gauges_vanish_when_they_leave() {
        let metrics = Metrics::new();
        for shard in ["1", "11"] {
            metrics.shard_stopped.with_label_values(&[shard, "gap"]).set(1);
            metrics.shard_stopped.with_label_values(&[shard, "limits"]).set(1);
            metrics.lag_records.with_label_values(&["ledger", "t", shard]).set(5);
            metrics.lag_seconds.with_label_values(&["ledger", "t", shard]).set(0.5);
        }
        metrics.clear_shard_stopped("1");
        metrics.clear_lag("ledger", "t", "1");
        let text = metrics.encode();
        let left: Vec<&str> =
            text.lines().filter(|line| line.contains("shard=\"") || line.contains("lag_")).collect();
        assert!(left.iter().all(|line| line.starts_with('#') || line.contains("\"11\"")), "{left:#?}");
        assert_eq!(left.iter().filter(|line| !line.starts_with('#')).count(), 4);
    }

    #[test]
    fn a_latency_of_5_ms_and_one_of_60_s_are_told_apart_from_less_and_more() {
        let metrics = Metrics::new();
        for seconds in [0.004, 59.0, 61.0] {
            metrics.event_to_balance_seconds.observe(seconds);
        }
        let text = metrics.encode();
        assert!(has_line(&text, r#"creditstream_event_to_balance_seconds_bucket{le="0.005"} 1"#), "{text}");
        assert!(has_line(&text, r#"creditstream_event_to_balance_seconds_bucket{le="60"} 2"#));
        assert!(has_line(&text, r#"creditstream_event_to_balance_seconds_bucket{le="+Inf"} 3"#));
    }
}
