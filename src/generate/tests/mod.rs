//! The generator against the product's own decoder and price list: it must be right about every record that a
//! decoder can judge by itself, and its books must agree with what it sent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ops::ControlFlow;
use std::sync::LazyLock;

use super::*;
use crate::config::Config;
use crate::event::{Event, EventRules, IncomingRecord, Reason, decode};
use crate::time::Timestamp;

mod agreement;
mod shape;

fn end() -> Timestamp {
    Timestamp::parse("2026-11-20T12:00:00Z").unwrap()
}

fn unruly(events: u64) -> GenerateOptions {
    GenerateOptions {
        events,
        wallets: 300,
        duplicates_percent: 3.0,
        id_conflicts_percent: 1.0,
        job_conflicts_percent: 1.0,
        bad_percent: 5.0,
        late_percent: 5.0,
        wrong_key_percent: 10.0,
        ..GenerateOptions::ending_at(end())
    }
}

static RULES: LazyLock<EventRules> = LazyLock::new(|| EventRules::new(&Config::default().events));

fn all_records(options: &GenerateOptions) -> (Vec<(Record, Expected)>, Books) {
    let mut generator = Generator::new(options).unwrap();
    let mut record = Record::default();
    let mut records = Vec::new();
    while let Some(expected) = generator.next_record(&mut record) {
        records.push((record.clone(), expected));
    }
    assert_eq!(records.len() as u64, generator.records_total());
    (records, generator.books())
}

/// Calls `check` with what the decoder says of a record.
fn decoded<R>(record: &Record, check: impl FnOnce(Result<Event<'_>, Reason>) -> R) -> R {
    let headers: Vec<(&str, &[u8])> =
        record.headers().iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let incoming =
        IncomingRecord { source_kind: record.source_kind(), value: record.value(), headers: &headers };
    check(decode(&incoming, &RULES).map_err(|rejection| rejection.reason))
}

fn topics() -> Topics {
    Topics { generation: "generation.events".to_owned(), wallet: "wallet.events".to_owned() }
}

fn json_lines(options: &GenerateOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let mut generator = Generator::new(options).unwrap();
    to_json_lines(&mut generator, &topics(), Pace::Full, &mut out, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    out
}

fn shown(record: &Record) -> String {
    let value: String =
        String::from_utf8_lossy(record.value().unwrap_or(b"(tombstone)")).chars().take(600).collect();
    format!("{:?} {:?} {value}", record.source_kind(), record.headers())
}
