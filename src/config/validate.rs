//! What is allowed: first each setting by itself, as it is read, then settings against each other.
//!
//! A rule answers with what is allowed ("must be 1 to 64"); where it stands and what came is for the caller
//! to add, so that no rule can show a secret.

use axum::http::Uri;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::secret::{MASK, is_secret};
use super::{Config, endpoints, split_list};

/// Least and greatest value of every integer setting. A test holds it equal to `config/default.toml`.
/// A bound that is not plain is that of the type that stores the value: ClickHouse's column, Kafka's field.
pub(super) const INTEGER_BOUNDS: &[(&str, i64, i64)] = &[
    ("topics.shards", 1, 1_000),
    ("topics.replication_factor", 1, 32_767),
    ("events.value_bytes_max", 1, 16 << 20),
    ("events.images_max", 1, u32::MAX as i64),
    ("events.video_seconds_max", 1, 999_999),
    ("events.adjustment_credits_max", 1, 1_000_000_000_000_000),
    ("events.term_months_max", 1, 1_200),
    ("pricing.plan_priority", 0, u16::MAX as i64),
    ("pricing.adjustment_priority", 0, u16::MAX as i64),
    ("pricing.topup_priority", 0, u16::MAX as i64),
    ("alerts.low_percent", 0, 100),
    ("alerts.critical_percent", 0, 100),
    ("alerts.hysteresis_percent", 0, 100),
    ("alerts.series_limit", 0, 10_000),
    ("clock.horizon_days", 1, 3_650),
    ("clock.max_clock_skew_seconds", 0, 86_400),
    ("clock.allowed_lateness_seconds", 0, 2_592_000),
    ("clock.idle_after_seconds", 1, 86_400),
    ("ledger.workers", 1, 64),
    ("ledger.batch_events_max", 1, 1_000_000),
    ("ledger.batch_bytes_max", 1, 1 << 30),
    ("ledger.batch_wait_ms_max", 0, 60_000),
    ("ledger.session_timeout_ms", 1_000, 1_800_000),
    ("ledger.transaction_timeout_ms", 1_000, 900_000),
    ("ledger.fetch_queue_kib", 1, 2_097_151),
    ("limits.open_grants_max", 1, 2_000),
    ("limits.open_holds_max", 0, 100_000),
    ("limits.business_ids_max", 1, 1_000_000),
    ("store.checkpoint_seconds", 1, 86_400),
    ("store.identities_in_memory", 10_000, 1_000_000_000),
    ("clickhouse.connect_timeout_ms", 1, 3_600_000),
    ("clickhouse.request_timeout_ms", 1, 3_600_000),
    ("sink.batch_records_max", 1, 10_000_000),
    ("sink.batch_bytes_max", 1, 1 << 30),
    ("sink.batch_wait_ms_max", 0, 600_000),
    ("sink.retry_ms_min", 1, 3_600_000),
    ("sink.retry_ms_max", 1, 3_600_000),
    ("drift.interval_seconds", 0, 86_400),
    ("drift.window_hours", 1, 168),
    ("dispatcher.pending_max", 1, 1_000_000),
    ("dispatcher.requests_max", 1, 1_000),
    ("dispatcher.connect_timeout_ms", 1, 600_000),
    ("dispatcher.request_timeout_ms", 1, 600_000),
    ("dispatcher.retry_ms_min", 1, 3_600_000),
    ("dispatcher.retry_ms_max", 1, 86_400_000),
    ("dispatcher.give_up_after_seconds", 1, 2_592_000),
];

/// Types that are charged, or move credits otherwise: none of them can be free.
const CHARGED_TYPES: [&str; 6] = [
    "generation.requested",
    "generation.completed",
    "generation.failed",
    "generation.rejected",
    "generation.cancelled",
    "generation.refunded",
];

/// What is allowed for the setting `key`, if `value` (which has its type) is not.
pub(super) fn fault_of(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::Integer(integer) => integer_fault(key, *integer),
        Value::String(text) if is_secret(key) => (text == MASK)
            .then(|| format!("must be the secret itself; {MASK} is what check-config shows in its place")),
        Value::String(text) => text_fault(key, text).map(str::to_owned),
        Value::Array(array) if key == "dispatcher.endpoints" => endpoints::fault_of(array),
        _ => None,
    }
}

fn integer_fault(key: &str, value: i64) -> Option<String> {
    let (_, least, most) = INTEGER_BOUNDS.iter().find(|(name, ..)| *name == key)?;
    let allowed = (*least..=*most).contains(&value);
    (!allowed).then(|| format!("must be {least} to {most}"))
}

fn text_fault(key: &str, text: &str) -> Option<&'static str> {
    let (holds, allowed) = match key {
        "kafka.brokers" => {
            (is_broker_list(text), "must be one or more of host:port (port 1 to 65535), separated by commas")
        }
        "kafka.client_id" | "clickhouse.user" | "ledger.group" | "sink.group" | "dispatcher.group" => {
            (is_name(text), NAME)
        }
        "ledger.instance" => (text.is_empty() || is_name(text), NAME_OR_EMPTY),
        "topics.generation" | "topics.wallet" => (is_topic_list(text), TOPIC_LIST),
        _ if key.starts_with("topics.") => (is_topic(text), TOPIC),
        "events.type_prefix" => (text.is_empty() || is_name(text), NAME_OR_EMPTY),
        "events.free_types" => (is_free_type_list(text), FREE_TYPES),
        "clickhouse.url" => (
            is_http_url(text),
            "must be http:// or https://, a host, and optionally :port and a path (user and password have settings of their own)",
        ),
        "clickhouse.database" => {
            (is_identifier(text), "must be letters, digits and _, not beginning with a digit")
        }
        "clickhouse.cluster" => (
            text.is_empty() || is_identifier(text),
            "must be letters, digits and _, not beginning with a digit, or empty for a single server",
        ),
        "http.listen" => {
            (text.is_empty() || host_port(text).is_some(), "must be host:port, or empty for no server")
        }
        "log.filter" => (
            EnvFilter::try_new(text).is_ok(),
            "must be a filter as RUST_LOG has it, as \"info\" or \"creditstream=debug,warn\"",
        ),
        "log.format" => {
            (matches!(text, "auto" | "human" | "json"), "must be \"auto\", \"human\" or \"json\"")
        }
        _ => (true, ""),
    };
    (!holds).then_some(allowed)
}

const NAME: &str = "must be 1 to 128 printable ASCII characters without spaces";
const NAME_OR_EMPTY: &str = "must be empty, or 1 to 128 printable ASCII characters without spaces";
const TOPIC: &str = "must be a topic's name: 1 to 249 letters, digits, '.', '_' and '-'";
const TOPIC_LIST: &str =
    "must be one or more names of topics (1 to 249 letters, digits, '.', '_' and '-'), separated by commas";
const FREE_TYPES: &str = "must be types of events without spaces, separated by commas, none of them generation.requested, \
     .completed, .failed, .rejected, .cancelled or .refunded";

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_identifier(text: &str) -> bool {
    let begins_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins_well && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_topic(text: &str) -> bool {
    let has_good_length = (1..=249).contains(&text.len());
    let has_good_characters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    has_good_length && has_good_characters && text != "." && text != ".."
}

fn is_topic_list(text: &str) -> bool {
    let topics = split_list(text);
    !topics.is_empty() && topics.iter().all(|topic| is_topic(topic))
}

fn is_free_type_list(text: &str) -> bool {
    split_list(text).iter().all(|name| is_name(name) && !CHARGED_TYPES.contains(&name.as_str()))
}

fn is_broker_list(text: &str) -> bool {
    let brokers = split_list(text);
    let each_has_port = brokers.iter().all(|broker| matches!(host_port(broker), Some((_, 1..))));
    !brokers.is_empty() && each_has_port
}

/// Host and port of `host:port`, `1.2.3.4:port` or `[::1]:port`.
fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = parse_port(port)?;
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    is_host.then_some((host, port))
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16::from_str` takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub(super) fn is_http_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let Some(authority) = uri.authority() else {
        return false;
    };
    let names_user = authority.as_str().contains('@');
    let host = authority.host();
    let after_host = authority.as_str().strip_prefix(host).unwrap_or_default();
    let has_good_port = match after_host.strip_prefix(':') {
        Some(port) => matches!(parse_port(port), Some(1..)),
        None => after_host.is_empty(),
    };
    is_http
        && !names_user
        && !host.is_empty()
        && has_good_port
        && uri.query().is_none()
        && !text.contains('#')
}

/// Settings that contradict each other.
pub(super) struct Contradiction {
    /// Dotted names of all settings that it is about; the first is the one that it is reported for.
    pub(super) keys: Vec<&'static str>,
    /// What is allowed.
    pub(super) allowed: String,
}

/// All contradictions of a configuration whose settings are each valid.
pub(super) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let mut require = |holds: bool, keys: &[&'static str], allowed: String| {
        if !holds {
            found.push(Contradiction { keys: keys.to_vec(), allowed });
        }
    };
    let (alerts, ledger, sink) = (&config.alerts, &config.ledger, &config.sink);
    require(
        alerts.low_percent >= alerts.critical_percent,
        &["alerts.low_percent", "alerts.critical_percent"],
        format!("must be at least alerts.critical_percent ({})", alerts.critical_percent),
    );
    require(
        ledger.batch_bytes_max >= config.events.value_bytes_max,
        &["ledger.batch_bytes_max", "events.value_bytes_max"],
        format!("must be at least events.value_bytes_max ({})", config.events.value_bytes_max),
    );
    require(
        ledger.batch_wait_ms_max < ledger.transaction_timeout_ms,
        &["ledger.batch_wait_ms_max", "ledger.transaction_timeout_ms"],
        format!("must be less than ledger.transaction_timeout_ms ({})", ledger.transaction_timeout_ms),
    );
    require(
        sink.retry_ms_min <= sink.retry_ms_max,
        &["sink.retry_ms_min", "sink.retry_ms_max"],
        format!("must be at most sink.retry_ms_max ({})", sink.retry_ms_max),
    );
    require(
        ledger.group != sink.group,
        &["sink.group", "ledger.group"],
        "must be another than ledger.group: each stage has a group of its own".to_owned(),
    );
    let dispatcher = &config.dispatcher;
    require(
        dispatcher.retry_ms_min <= dispatcher.retry_ms_max,
        &["dispatcher.retry_ms_min", "dispatcher.retry_ms_max"],
        format!("must be at most dispatcher.retry_ms_max ({})", dispatcher.retry_ms_max),
    );
    require(
        is_name(&config.instance_name()),
        &["ledger.instance"],
        "must be set, for the host's name is not 1 to 128 printable ASCII characters without spaces"
            .to_owned(),
    );
    found.extend(topics_named_twice(config));
    found
}

/// A topic that served two ends would feed the ledger its own output, or one stage another's input.
fn topics_named_twice(config: &Config) -> Vec<Contradiction> {
    let mut named: Vec<(&'static str, String)> = Vec::new();
    let mut found = Vec::new();
    for (key, topic) in topics(config) {
        match named.iter().find(|(_, other)| *other == topic) {
            Some((first, _)) => found.push(Contradiction {
                keys: vec![key, first],
                allowed: format!("must not name {topic} again: it stands in {first}"),
            }),
            None => named.push((key, topic)),
        }
    }
    found
}

fn topics(config: &Config) -> Vec<(&'static str, String)> {
    let topics = &config.topics;
    let generation = topics.generation_topics().into_iter().map(|topic| ("topics.generation", topic));
    let wallet = topics.wallet_topics().into_iter().map(|topic| ("topics.wallet", topic));
    let own = [
        ("topics.ledger", &topics.ledger),
        ("topics.wallets", &topics.wallets),
        ("topics.progress", &topics.progress),
        ("topics.alerts", &topics.alerts),
        ("topics.alerts_dead", &topics.alerts_dead),
        ("topics.quarantine", &topics.quarantine),
        ("topics.intake", &topics.intake),
    ];
    generation.chain(wallet).chain(own.map(|(key, topic)| (key, topic.clone()))).collect()
}
