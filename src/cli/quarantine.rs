//! `quarantine list|show|replay`: what could not be applied, and the way back.
//!
//! A replay sends the record to the topic that it came from, as it came, with a header that links it to the
//! quarantined one. Twice is harmless: the event's identity stands in the ledger after the first. What comes back, for its cause
//! is not mended, stands in the place of what was replayed: however often that is tried, it is one record that is sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde::Serialize;

use super::args::{Quarantine, QuarantineFilter};
use super::exit::{self, Failure};
use super::output::Output;
use super::publish::instant;
use super::topic::{Partitions, read_topic};
use crate::config::Config;
use crate::event::Reason;
use crate::kafka::{Clients, KafkaProducer, RecordView};
use crate::ledger::headers;
use crate::text::counted;
use crate::time::Timestamp;

/// Header of a replayed record: PARTITION/OFFSET in the quarantine topic.
pub const REPLAY_HEADER: &str = "cs_replay_of";
const TIMEOUT: Duration = Duration::from_secs(15);

/// A quarantined record.
#[derive(Clone, Serialize)]
struct Quarantined {
    /// PARTITION/OFFSET in the quarantine topic.
    place: String,
    quarantined_at: Timestamp,
    reason: String,
    detail: String,
    origin: String,
    #[serde(skip)]
    origin_topic: String,
    #[serde(skip)]
    origin_partition: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    headers: BTreeMap<String, String>,
    /// What it was before it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<String>,
    #[serde(skip)]
    raw_key: Option<Vec<u8>>,
    #[serde(skip)]
    raw_value: Option<Vec<u8>>,
    #[serde(skip)]
    raw_headers: Vec<(String, Vec<u8>)>,
}

/// Lists, shows or replays.
pub fn run(config: &Config, command: Quarantine, output: Output) -> Result<u8, Failure> {
    match command {
        Quarantine::List(filter) => {
            let found = select(config, &[], &filter, Which::All)?;
            for record in &found {
                output.object(record, || {
                    format!(
                        "{:<12} {}  {:<17} {}  {}",
                        record.place, record.quarantined_at, record.reason, record.origin, record.detail
                    )
                })?;
            }
            Ok(if found.is_empty() { exit::NO } else { exit::DONE })
        }
        Quarantine::Show { place } => {
            let filter = QuarantineFilter { reason: None, since: None, limit: None };
            let found = select(config, std::slice::from_ref(&place), &filter, Which::All)?;
            let record =
                found.first().ok_or_else(|| Failure::no(format!("no quarantined record at {place}")))?;
            output.object(record, || show(record))?;
            Ok(exit::DONE)
        }
        Quarantine::Replay { places, filter, dry_run } => {
            if places.is_empty() && filter.reason.is_none() && filter.since.is_none() {
                return Err(Failure::usage("replay what? give PARTITION/OFFSET, or --reason or --since"));
            }
            // Whoever names a place means it.
            let which = if places.is_empty() { Which::LastOfEach } else { Which::All };
            let found = select(config, &places, &filter, which)?;
            if found.is_empty() {
                return Err(Failure::no("no quarantined record fits"));
            }
            // What is not whole cannot go back: it is left out, and said.
            let (cut, whole): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|record| record.truncated.is_some());
            if !dry_run && !whole.is_empty() {
                replay(config, &whole)?;
            }
            let replayed = if dry_run { 0 } else { whole.len() };
            let not_whole: Vec<&str> = cut.iter().map(|record| record.place.as_str()).collect();
            let said = serde_json::json!({
                "replayed": replayed, "selected": whole.len() + cut.len(), "not_whole": not_whole
            });
            output.object(&said, || {
                let done = if dry_run { "would be sent" } else { "sent again" };
                let whole = counted(whole.len() as u64, "record");
                let left_out = not_whole.join(", ");
                match left_out.is_empty() {
                    true => format!("{whole} {done}"),
                    false => format!(
                        "{whole} {done}; too large for the quarantine and so not whole, their producer must send smaller ones: {left_out}"
                    ),
                }
            })?;
            Ok(if cut.is_empty() { exit::DONE } else { exit::NO })
        }
    }
}

fn show(record: &Quarantined) -> String {
    let headers: String = record.headers.iter().map(|(name, value)| format!("  {name}: {value}\n")).collect();
    let cut = record.truncated.iter().map(|was| format!("cut, it had     {was}\n")).collect::<String>();
    format!(
        "{cut}place           {}\nquarantined at  {}\nreason          {}\ndetail          {}\ncame from       {}\nkey             {}\nheaders\n{headers}value\n{}",
        record.place,
        record.quarantined_at,
        record.reason,
        record.detail,
        record.origin,
        record.key.as_deref().unwrap_or("(none)"),
        record.value.as_deref().unwrap_or("(tombstone)"),
    )
}

/// Which of the records that fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Of those that are the same, byte for byte, only what was quarantined last: a replay that came back, or a producer's own.
    LastOfEach,
}

/// Reads the quarantine topic up to its end as of now.
fn select(
    config: &Config,
    places: &[String],
    filter: &QuarantineFilter,
    which: Which,
) -> Result<Vec<Quarantined>, Failure> {
    if let Some(reason) = filter.reason.as_deref()
        && !Reason::ALL.iter().any(|known| known.as_str() == reason)
    {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        return Err(Failure::usage(format!("--reason {reason:?}: known reasons are {}", known.join(", "))));
    }
    let since = filter.since.as_deref().map(|since| instant("--since", since)).transpose()?;
    let fits = |record: &Quarantined| {
        (places.is_empty() || places.contains(&record.place))
            && filter.reason.as_deref().is_none_or(|reason| reason == record.reason)
            && since.is_none_or(|since| record.quarantined_at >= since)
    };
    let mut found = Vec::new();
    let mut all = Vec::new();
    read_topic(config, &config.topics.quarantine, Partitions::All, |record| {
        let record = quarantined(record);
        if which == Which::LastOfEach {
            all.push((record.quarantined_at, record.place.clone(), content(&record)));
        }
        if fits(&record) {
            found.push(record);
        }
    })?;
    found.sort_by(|a, b| (a.quarantined_at, &a.place).cmp(&(b.quarantined_at, &b.place)));
    let replaced = replaced(all);
    found.retain(|record| !replaced.contains(&record.place));
    if let Some(limit) = filter.limit {
        found.truncate(limit);
    }
    Ok(found)
}

/// Hash of what its producer sent, and where: each part after its length.
fn content(record: &Quarantined) -> blake3::Hash {
    let headers = record.raw_headers.iter().flat_map(|(name, value)| [Some(name.as_bytes()), Some(value)]);
    let own = [Some(record.origin_topic.as_bytes()), record.raw_key.as_deref(), record.raw_value.as_deref()];
    let mut hasher = blake3::Hasher::new();
    for part in own.into_iter().chain(headers) {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hasher.update(&length.to_le_bytes()).update(part.unwrap_or_default());
    }
    hasher.finalize()
}

/// The places of those that were quarantined again later, for whatever reason.
fn replaced(mut all: Vec<(Timestamp, String, blake3::Hash)>) -> HashSet<String> {
    all.sort_by(|(a_at, a_place, _), (b_at, b_place, _)| (a_at, a_place).cmp(&(b_at, b_place)));
    let mut last = HashMap::new();
    all.into_iter().filter_map(|(_, place, content)| last.insert(content, place)).collect()
}

fn quarantined(record: &RecordView<'_>) -> Quarantined {
    let mut own = Vec::new();
    let mut raw_headers = Vec::new();
    record.for_each_header(|name, value| {
        if name.starts_with("cs_") {
            own.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        } else {
            raw_headers.push((name.to_owned(), value.to_vec()));
        }
    });
    let header = |wanted: &str| {
        own.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let truncated = Some(header(headers::TRUNCATED)).filter(|said| !said.is_empty());
    let (origin_topic, partition) = (header(headers::TOPIC), header(headers::PARTITION));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Quarantined {
        place: format!("{}/{}", record.partition, record.offset),
        quarantined_at: Timestamp::from_millis(record.timestamp),
        reason: header(headers::REASON),
        detail: header(headers::DETAIL),
        origin: format!("{origin_topic}/{partition}@{}", header(headers::OFFSET)),
        origin_partition: partition.parse().unwrap_or(-1),
        origin_topic,
        key: record.key.map(text),
        value: record.value.map(text),
        headers: raw_headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        truncated,
        raw_key: record.key.map(<[u8]>::to_vec),
        raw_value: record.value.map(<[u8]>::to_vec),
        raw_headers,
    }
}

fn replay(config: &Config, records: &[Quarantined]) -> Result<(), Failure> {
    let clients = Clients::new(std::sync::Arc::new(config.clone()));
    let unreachable = |error: rdkafka::error::KafkaError| Failure::unavailable(format!("kafka: {error}"));
    let producer: KafkaProducer = clients.producer().map_err(unreachable)?;
    for record in records {
        let own = record
            .raw_headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let linked = own.insert(Header { key: REPLAY_HEADER, value: Some(record.place.as_str()) });
        // Back onto its own partition: the order of its wallet's records is kept.
        let mut out: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&record.origin_topic).partition(record.origin_partition).headers(linked);
        if let Some(key) = &record.raw_key {
            out = out.key(key);
        }
        if let Some(value) = &record.raw_value {
            out = out.payload(value);
        }
        producer.send(out).map_err(|(error, _)| unreachable(error))?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT).map_err(unreachable)?;
    if producer.in_flight_count() > 0 {
        return Err(Failure::unavailable(
            "not all records were acknowledged: replay again, twice is harmless",
        ));
    }
    Ok(())
}
