//! A record of one of the sink's topics, as it came.

use crate::config::TopicsConfig;
use crate::kafka::RecordView;
use crate::time::Timestamp;

/// The topics that the sink reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `credits.ledger`.
    Ledger,
    /// `credits.wallets`.
    Wallets,
    /// `credits.alerts`.
    Alerts,
    /// `credits.quarantine`.
    Quarantine,
}

impl Source {
    /// All topics.
    pub const ALL: [Source; 4] = [Source::Ledger, Source::Wallets, Source::Alerts, Source::Quarantine];

    /// The topic's name.
    pub fn topic(self, topics: &TopicsConfig) -> &str {
        match self {
            Source::Ledger => &topics.ledger,
            Source::Wallets => &topics.wallets,
            Source::Alerts => &topics.alerts,
            Source::Quarantine => &topics.quarantine,
        }
    }

    /// The topic with this name.
    pub fn of(topic: &str, topics: &TopicsConfig) -> Option<Source> {
        Source::ALL.into_iter().find(|source| source.topic(topics) == topic)
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePartition {
    /// Topic.
    pub source: Source,
    /// Partition of it.
    pub partition: i32,
}

/// A record, detached from the Kafka client's memory.
#[derive(Clone, Debug)]
pub struct Record {
    /// Topic and partition.
    pub from: SourcePartition,
    /// Offset there.
    pub offset: i64,
    /// Kafka timestamp; 1970 where it has none.
    pub timestamp: Timestamp,
    /// Key; empty where it has none.
    pub key: Box<[u8]>,
    /// Value; `None`: a tombstone.
    pub value: Option<Box<[u8]>>,
    /// Headers; kept only of quarantined records.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
}

impl Record {
    /// Takes a record of that topic out of the Kafka client's memory.
    pub fn detach(source: Source, record: &RecordView<'_>) -> Record {
        let mut headers = Vec::new();
        if source == Source::Quarantine {
            record.for_each_header(|name, value| headers.push((name.into(), value.into())));
        }
        Record {
            from: SourcePartition { source, partition: record.partition },
            offset: record.offset,
            timestamp: Timestamp::from_millis(record.timestamp.max(0)),
            key: record.key.unwrap_or_default().into(),
            value: record.value.map(Into::into),
            headers,
        }
    }

    /// Bytes that it keeps in memory, about.
    pub fn byte_count(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.as_ref().map_or(0, |value| value.len()) + headers + size_of::<Record>()
    }

    /// The last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let is_it = |header: &&(Box<str>, Box<[u8]>)| &*header.0 == name;
        self.headers.iter().rev().find(is_it).map(|(_, value)| &**value)
    }

    /// The same as text, empty where it is absent; what is not UTF-8 is replaced.
    pub fn header_text(&self, name: &str) -> std::borrow::Cow<'_, str> {
        self.header(name).map_or_else(Default::default, String::from_utf8_lossy)
    }
}
