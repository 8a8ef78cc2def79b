//! A record of a batch, decoded, with the place where it was first written.

use super::batch::{Batch, RawRecord};
use super::headers;
use super::routes::{Routes, TopicRole};
use crate::event::{Event, EventRules, IdentityKey, IncomingRecord, Reason, Rejection, decode};
use crate::kafka::partition_for;
use crate::time::Timestamp;

/// A record with its event or the reason why it has none.
pub struct Incoming<'b> {
    /// As it was polled.
    pub record: &'b RawRecord,
    /// Key as its producer sent it.
    pub key: Option<&'b [u8]>,
    /// Value.
    pub value: Option<&'b [u8]>,
    /// Headers as its producer sent them.
    pub headers: Vec<(&'b str, &'b [u8])>,
    /// Where it was first written.
    pub origin: Source<'b>,
    /// Its event.
    pub event: Result<Event<'b>, Rejection>,
    /// The shard of its wallet; `None` where it has none.
    pub home: Option<i32>,
    /// Which of its identities, in their order, its shard may remember from the batches before. The others are new to it.
    pub may_be_known: [bool; 3],
}

/// Where a record was first written, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'b> {
    /// Topic.
    pub topic: &'b str,
    /// Its id.
    pub topic_id: &'b str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Kafka timestamp.
    pub timestamp: Timestamp,
}

impl Incoming<'_> {
    /// Whether its shard may remember an identity from the batches before.
    pub fn may_be_known(&self, key: IdentityKey) -> bool {
        let own = self.event.as_ref().ok().and_then(|event| event.identity.keys().position(|own| own == key));
        own.and_then(|place| self.may_be_known.get(place)).copied().unwrap_or(true)
    }

    /// Bytes of its producer's headers.
    pub fn header_byte_count(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Bytes of key, value and headers.
    pub fn byte_count(&self) -> usize {
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        bytes(self.key) + bytes(self.value) + self.header_byte_count()
    }
}

/// Decodes a record. `None`: of a topic that is not read.
pub fn decode_record<'b>(
    batch: &'b Batch,
    record: &'b RawRecord,
    routes: &'b Routes,
    rules: &EventRules,
) -> Option<Incoming<'b>> {
    let topic = routes.topic(record.topic)?;
    let mut headers = batch.headers(record);
    let mut key = batch.key(record);
    let value = batch.value(record);
    let here = Source {
        topic: &topic.name,
        topic_id: &topic.topic_id,
        partition: record.partition,
        offset: record.offset,
        timestamp: Timestamp::from_millis(record.timestamp),
    };
    let (origin, source_kind) = match topic.role {
        TopicRole::Source(kind) => (Ok(here), kind),
        TopicRole::Intake => {
            let origin = handed_over_from(&headers);
            key = headers.iter().find(|(name, _)| *name == headers::KEY).map(|(_, key)| *key);
            headers.retain(|(name, _)| !name.starts_with("cs_"));
            let kind = routes.source_kind(origin.map_or("", |origin| origin.topic));
            (origin.ok_or(()), kind)
        }
    };
    let event = match origin {
        Ok(_) => decode(&IncomingRecord { source_kind, value, headers: &headers }, rules),
        Err(()) => Err(Rejection::new(
            Reason::NotCloudevent,
            "a record of intake without the headers that say where it came from",
        )),
    };
    let home = event.as_ref().ok().map(|event| partition_for(event.wallet_id.as_bytes(), routes.shards));
    let (origin, may_be_known) = (origin.unwrap_or(here), [true; 3]);
    Some(Incoming { record, key, value, headers, origin, event, home, may_be_known })
}

fn handed_over_from<'b>(all: &[(&'b str, &'b [u8])]) -> Option<Source<'b>> {
    let text = |wanted: &str| {
        let value = all.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)?;
        std::str::from_utf8(value).ok()
    };
    Some(Source {
        topic: text(headers::TOPIC)?,
        topic_id: text(headers::TOPIC_ID)?,
        partition: text(headers::PARTITION)?.parse().ok()?,
        offset: text(headers::OFFSET)?.parse().ok()?,
        timestamp: Timestamp::parse(text(headers::TIME)?)?,
    })
}
