//! A batch on its way out: everything that one transaction writes, in one arena.

use std::ops::Range;

use serde::Serialize;

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
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    ledger: Vec<Place>,
    alerts: Vec<Place>,
    wallets: Vec<Place>,
    progress: Vec<Place>,
    with_headers: Vec<HeaderPlace>,
    /// Names and values.
    headers: Vec<(Range<usize>, Range<usize>)>,
}

struct Place {
    partition: i32,
    key: Range<usize>,
    value: Range<usize>,
}

struct HeaderPlace {
    is_quarantine: bool,
    partition: i32,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
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
    /// Appends a record whose value is what `encode` writes.
    pub fn push(&mut self, topic: OutTopic, partition: i32, key: &str, encode: impl FnOnce(&mut Vec<u8>)) {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key.as_bytes());
        let value_start = self.bytes.len();
        encode(&mut self.bytes);
        let place = Place { partition, key: key_start..value_start, value: value_start..self.bytes.len() };
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
        let (key, value) = (key.map(|key| self.store(key)), value.map(|value| self.store(value)));
        let first_header = self.headers.len();
        for (name, value) in headers {
            let header = (self.store(name.as_bytes()), self.store(value));
            self.headers.push(header);
        }
        let headers = first_header..self.headers.len();
        self.with_headers.push(HeaderPlace { is_quarantine, partition, key, value, headers });
    }

    fn store(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn stored(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }

    /// The records that are handed over or quarantined.
    pub fn records_with_headers(&self) -> impl Iterator<Item = HeaderRecord<'_>> {
        self.with_headers.iter().map(|record| {
            let places = self.headers.get(record.headers.clone()).unwrap_or_default();
            let name = |place| std::str::from_utf8(self.stored(place)).unwrap_or_default();
            HeaderRecord {
                is_quarantine: record.is_quarantine,
                partition: record.partition,
                key: record.key.as_ref().map(|key| self.stored(key)),
                value: record.value.as_ref().map(|value| self.stored(value)),
                headers: places.iter().map(|(place, value)| (name(place), self.stored(value))).collect(),
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
            key: self.stored(&place.key),
            value: self.stored(&place.value),
        })
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ledger.clear();
        self.alerts.clear();
        self.wallets.clear();
        self.progress.clear();
        self.with_headers.clear();
        self.headers.clear();
    }
}
