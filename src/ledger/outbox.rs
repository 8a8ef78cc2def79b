//! A batch on its way out: everything that a part of it writes, in one arena.

use std::ops::Range;

use serde::Serialize;

use super::arena::{Arena, Chunks, Span};
use crate::kafka::OutgoingRecord;
use crate::wallet::Breach;

/// Topics whose records have no headers and are produced in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutTopic {
    /// `credits.ledger`
    Ledger,
    /// `credits.alerts`
    Alerts,
    /// `credits.wallets`
    Wallets,
    /// `credits.progress`
    Progress,
}

/// Records to be produced.
pub struct Outbox {
    arena: Arena,
    ledger: Vec<Place>,
    alerts: Vec<Place>,
    wallets: Vec<Place>,
    progress: Vec<Place>,
    with_headers: Vec<HeaderPlace>,
    /// Names and values.
    headers: Vec<(Span, Span)>,
}

struct Place {
    partition: i32,
    key: Span,
    value: Span,
}

struct HeaderPlace {
    is_quarantine: bool,
    partition: i32,
    key: Option<Span>,
    value: Option<Span>,
    /// Places in `headers`.
    headers: Range<usize>,
}

/// A record that is handed over or quarantined.
pub struct HeaderRecord<'o> {
    /// Which of the two topics.
    pub is_quarantine: bool,
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Option<&'o [u8]>,
    /// Value.
    pub value: Option<&'o [u8]>,
    /// Headers.
    pub headers: Vec<(&'o str, &'o [u8])>,
}

impl Outbox {
    /// An empty one.
    pub fn new(chunks: &Chunks) -> Outbox {
        Outbox {
            arena: Arena::new(chunks),
            ledger: Vec::new(),
            alerts: Vec::new(),
            wallets: Vec::new(),
            progress: Vec::new(),
            with_headers: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Appends a record whose value is what `encode` writes.
    pub fn push(&mut self, topic: OutTopic, partition: i32, key: &str, encode: impl FnOnce(&mut Vec<u8>)) {
        let key = self.arena.store(key.as_bytes());
        let place = Place { partition, key, value: self.arena.write(encode) };
        match topic {
            OutTopic::Ledger => self.ledger.push(place),
            OutTopic::Alerts => self.alerts.push(place),
            OutTopic::Wallets => self.wallets.push(place),
            OutTopic::Progress => self.progress.push(place),
        }
    }

    /// Appends a record whose value is `value` as JSON.
    ///
    /// # Errors
    /// A value that has no JSON: a fault of ours.
    pub fn push_json(
        &mut self,
        topic: OutTopic,
        partition: i32,
        key: &str,
        value: &impl Serialize,
    ) -> Result<(), Breach> {
        let mut result = Ok(());
        self.push(topic, partition, key, |out| result = serde_json::to_writer(out, value));
        result.map_err(|error| Breach { seq: 0, what: format!("a {topic:?} record has no JSON: {error}") })
    }

    /// Appends a record that is handed over or quarantined.
    pub fn push_with_headers<'h>(
        &mut self,
        (is_quarantine, partition): (bool, i32),
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) {
        let (key, value) = (key.map(|key| self.arena.store(key)), value.map(|value| self.arena.store(value)));
        let first_header = self.headers.len();
        for (name, value) in headers {
            let header = (self.arena.store(name.as_bytes()), self.arena.store(value));
            self.headers.push(header);
        }
        let headers = first_header..self.headers.len();
        self.with_headers.push(HeaderPlace { is_quarantine, partition, key, value, headers });
    }

    /// The records that are handed over or quarantined.
    pub fn records_with_headers(&self) -> impl Iterator<Item = HeaderRecord<'_>> {
        self.with_headers.iter().map(|record| {
            let places = self.headers.get(record.headers.clone()).unwrap_or_default();
            let name = |span| std::str::from_utf8(self.arena.get(span)).unwrap_or_default();
            HeaderRecord {
                is_quarantine: record.is_quarantine,
                partition: record.partition,
                key: record.key.map(|key| self.arena.get(key)),
                value: record.value.map(|value| self.arena.get(value)),
                headers: places.iter().map(|(key, value)| (name(*key), self.arena.get(*value))).collect(),
            }
        })
    }

    /// The records for a topic.
    pub fn records(&self, topic: OutTopic) -> impl ExactSizeIterator<Item = OutgoingRecord<'_>> {
        let places = match topic {
            OutTopic::Ledger => &self.ledger,
            OutTopic::Alerts => &self.alerts,
            OutTopic::Wallets => &self.wallets,
            OutTopic::Progress => &self.progress,
        };
        places.iter().map(|place| OutgoingRecord {
            partition: place.partition,
            key: self.arena.get(place.key),
            value: self.arena.get(place.value),
        })
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.ledger.clear();
        self.alerts.clear();
        self.wallets.clear();
        self.progress.clear();
        self.with_headers.clear();
        self.headers.clear();
    }
}
