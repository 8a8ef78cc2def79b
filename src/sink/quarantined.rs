//! A record of the quarantine topic as a row of `quarantined_events`.
//!
//! **Invariant:** every record becomes a row, whatever it looks like: this is the place for what nobody
//! could read. So nothing here can fail, and what cannot be told stays empty.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::block::Block;
use super::record::Record;
use crate::time::Timestamp;

/// Headers that the ledger stage adds and that have columns of their own.
const OUR_HEADERS: [&str; 7] =
    ["cs_reason", "cs_detail", "cs_topic", "cs_topic_id", "cs_partition", "cs_offset", "cs_time"];
/// Most bytes of a wallet id, source or event id that was found by guessing.
const FOUND_BYTES_MAX: usize = 256;

/// Where the record came from before it was quarantined.
struct Origin<'a> {
    topic: Cow<'a, str>,
    topic_id: Cow<'a, str>,
    partition: i32,
    offset: i64,
    record_time: Timestamp,
}

/// What could be read of the event itself.
#[derive(Default)]
struct Found {
    wallet_id: String,
    source: String,
    event_id: String,
}

/// Adds the row of a quarantined record; `topic` is the quarantine topic's name.
pub fn append(block: &mut Block, record: &Record, topic: &str) {
    let origin = origin(record, topic);
    let found = found(record);
    let value = record.value.as_deref().unwrap_or_default();
    let headers = record.headers.iter().filter(|(name, _)| !OUR_HEADERS.contains(&&**name));

    let mut row = block.row();
    row.text("origin_topic", &origin.topic);
    row.text("origin_topic_id", &origin.topic_id);
    row.i32("origin_partition", origin.partition);
    row.i64("origin_offset", origin.offset);
    row.time("record_time", origin.record_time);
    row.time("quarantined_at", record.timestamp);
    row.text("reason", &record.header_text("cs_reason"));
    row.text("detail", &record.header_text("cs_detail"));
    row.text("wallet_id", &found.wallet_id);
    row.text("source", &found.source);
    row.text("event_id", &found.event_id);
    row.text("key", &String::from_utf8_lossy(&record.key));
    row.text("value", &String::from_utf8_lossy(value));
    row.list("headers", headers, |field, (name, value)| {
        field.text("name", name);
        field.text("value", &String::from_utf8_lossy(value));
    });
    row.u32("value_bytes", u32::try_from(value.len()).unwrap_or(u32::MAX));
    row.end();
}

/// From the headers. A record that somebody else wrote into the topic has none: then it is its own origin,
/// so that it has a key of its own and replaces no other row.
fn origin<'a>(record: &'a Record, topic: &'a str) -> Origin<'a> {
    let number = |name| record.header_text(name).parse::<i64>().ok();
    let partition = number("cs_partition").and_then(|partition| i32::try_from(partition).ok());
    let origin_topic = record.header_text("cs_topic");
    let (Some(partition), Some(offset), false) = (partition, number("cs_offset"), origin_topic.is_empty())
    else {
        return Origin {
            topic: Cow::Borrowed(topic),
            topic_id: Cow::Borrowed(""),
            partition: record.from.partition,
            offset: record.offset,
            record_time: record.timestamp,
        };
    };
    Origin {
        topic: origin_topic,
        topic_id: record.header_text("cs_topic_id"),
        partition,
        offset,
        // The table is partitioned by it: it must be the same whenever this record is quarantined.
        record_time: Timestamp::parse(&record.header_text("cs_time")).unwrap_or_default(),
    }
}

/// From the `ce_*` headers (binary mode) or the top of the JSON (structured mode).
fn found(record: &Record) -> Found {
    let by_header = Found {
        wallet_id: cut(&record.header_text("ce_subject")),
        source: cut(&record.header_text("ce_source")),
        event_id: cut(&record.header_text("ce_id")),
    };
    if !by_header.event_id.is_empty() || !by_header.wallet_id.is_empty() {
        return by_header;
    }
    let value = record.value.as_deref().unwrap_or_default();
    let Ok(event) = serde_json::from_slice::<Map<String, Value>>(value) else {
        return by_header;
    };
    let text = |name: &str| event.get(name).and_then(Value::as_str).map(cut).unwrap_or_default();
    Found { wallet_id: text("subject"), source: text("source"), event_id: text("id") }
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(FOUND_BYTES_MAX)).unwrap_or_default().to_owned()
}
