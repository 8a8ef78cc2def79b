//! A batch on its way out: everything that one transaction writes, in one arena.

use std::ops::Range;

use rdkafka::message::OwnedHeaders;
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
    /// Handed over and quarantined records: these carry headers.
    pub with_headers: Vec<HeaderRecord>,
}

struct Place {
    partition: i32,
    key: Range<usize>,
    value: Range<usize>,
}

/// A record with headers.
pub struct HeaderRecord {
    /// Which of the two topics.
    pub is_quarantine: bool,
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: OwnedHeaders,
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
            key: self.bytes.get(place.key.clone()).unwrap_or_default(),
            value: self.bytes.get(place.value.clone()).unwrap_or_default(),
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
    }
}
