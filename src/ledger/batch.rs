//! A batch on its way in: the records as they were polled, in one arena.

use std::ops::Range;

use super::arena::{Arena, Chunks, Span};
use super::compute::SourceId;
use crate::bytes;
use crate::kafka::RecordView;

/// Records of one poll round, with their bytes.
pub struct Batch {
    arena: Arena,
    records: Vec<RawRecord>,
    headers: Vec<(Span, Span)>,
}

/// A record that no broker delivered.
#[cfg(test)]
pub struct MadeRecord<'r> {
    pub topic: usize,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<&'r [u8]>,
    pub value: Option<&'r [u8]>,
    pub headers: Vec<(&'r str, &'r [u8])>,
}

/// One record: places in the arena.
pub struct RawRecord {
    /// Index of its topic.
    pub topic: usize,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Kafka timestamp, milliseconds since the epoch.
    pub timestamp: i64,
    key: Option<Span>,
    value: Option<Span>,
    headers: Range<usize>,
}

impl RawRecord {
    /// The partition that it was read from.
    pub fn source(&self) -> SourceId {
        (self.topic, self.partition)
    }
}

impl Batch {
    /// An empty one.
    pub fn new(chunks: &Chunks) -> Batch {
        Batch { arena: Arena::new(chunks), records: Vec::new(), headers: Vec::new() }
    }

    /// Copies a record in.
    pub fn push(&mut self, topic: usize, record: &RecordView<'_>) {
        let key = record.key.map(|key| self.arena.store(key));
        let value = record.value.map(|value| self.arena.store(value));
        let first_header = self.headers.len();
        record.for_each_header(|name, value| {
            let name = self.arena.store(name.as_bytes());
            let value = self.arena.store(value);
            self.headers.push((name, value));
        });
        let headers = first_header..self.headers.len();
        let RecordView { partition, offset, timestamp, .. } = *record;
        self.records.push(RawRecord { topic, partition, offset, timestamp, key, value, headers });
    }

    /// Copies a made record in, as [`Batch::push`] does a polled one.
    #[cfg(test)]
    pub fn push_made(&mut self, record: &MadeRecord<'_>) {
        let key = record.key.map(|key| self.arena.store(key));
        let value = record.value.map(|value| self.arena.store(value));
        let first_header = self.headers.len();
        for (name, value) in &record.headers {
            let header = (self.arena.store(name.as_bytes()), self.arena.store(value));
            self.headers.push(header);
        }
        let headers = first_header..self.headers.len();
        let MadeRecord { topic, partition, offset, timestamp, .. } = *record;
        self.records.push(RawRecord { topic, partition, offset, timestamp, key, value, headers });
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.records.clear();
        self.headers.clear();
    }

    /// Reaches for the values of records that are about to be decoded: see [`super::shard::ShardSlot::fetch`].
    pub fn fetch(&self, records: &[&RawRecord]) {
        let values = records.iter().filter_map(|record| self.value(record));
        bytes::fetch(values);
    }

    /// Its records, in the order of polling.
    pub fn records(&self) -> &[RawRecord] {
        &self.records
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn byte_count(&self) -> usize {
        self.arena.byte_count()
    }

    /// The key of a record of this batch.
    pub fn key(&self, record: &RawRecord) -> Option<&[u8]> {
        record.key.map(|key| self.arena.get(key))
    }

    /// The value of a record of this batch.
    pub fn value(&self, record: &RawRecord) -> Option<&[u8]> {
        record.value.map(|value| self.arena.get(value))
    }

    /// The headers of a record of this batch, in order.
    pub fn headers(&self, record: &RawRecord) -> Vec<(&str, &[u8])> {
        let places = self.headers.get(record.headers.clone()).unwrap_or_default();
        let header = |(name, value): &(Span, Span)| {
            Some((std::str::from_utf8(self.arena.get(*name)).ok()?, self.arena.get(*value)))
        };
        let mut headers = Vec::with_capacity(places.len());
        headers.extend(places.iter().filter_map(header));
        headers
    }
}
