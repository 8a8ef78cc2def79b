//! Reads stretches of partitions up to an end that is fixed beforehand. Committed records only, and no group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

use super::{Clients, KafkaConsumer, KafkaLog, Polled, RecordView, poll_events, take_records, watermarks};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long nothing may come. An open transaction holds readers back for as long as its own timeout.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited for a record.
const READ_WAIT: Duration = Duration::from_millis(200);
/// Records taken from the client in one call.
const TAKEN_AT_ONCE: usize = 128;

/// Why a topic could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The brokers do not answer, or refuse.
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The client cannot go on.
    #[error("kafka: {0}")]
    Fatal(String),
    /// It is not there.
    #[error("topic {0} does not exist: run `creditstream init`")]
    NoTopic(String),
    /// Nothing came.
    #[error(
        "topic {topic}: nothing came for {PATIENCE:?}, {partitions} partitions are not read to their end; is a transaction open, or a broker down?"
    )]
    Stalled {
        /// The topic.
        topic: String,
        /// How many.
        partitions: usize,
    },
}

/// A partition from one offset up to another, which does not belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// First offset after it.
    pub to: i64,
}

/// A reader of topics.
pub struct TopicReader {
    committed: KafkaConsumer,
    /// Tells the true ends: a read_committed client is told the last stable offset.
    ends: BaseConsumer<KafkaLog>,
}

impl TopicReader {
    /// Makes its clients; `role` stands in their ids.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn new(clients: &Clients, role: &str) -> Result<TopicReader, ReadError> {
        Ok(TopicReader { committed: clients.committed_reader(role)?, ends: clients.watermark_reader(role)? })
    }

    /// Number of a topic's partitions.
    ///
    /// # Errors
    /// The brokers do not answer, or do not know it.
    pub fn partitions(&self, topic: &str) -> Result<i32, ReadError> {
        let metadata = self.ends.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        match i32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(ReadError::NoTopic(topic.to_owned())),
        }
    }

    /// A partition from its first record to its end as of now. Every transaction that was committed before this call
    /// lies below that end, also where its marker is still on its way: it is waited for while reading.
    ///
    /// # Errors
    /// The brokers do not answer, or do not know the partition.
    pub fn whole(&self, topic: &str, partition: i32) -> Result<Stretch, ReadError> {
        let (from, to) = watermarks(&self.ends, topic, partition)?;
        Ok(Stretch { partition, from, to })
    }

    /// The same of all partitions.
    ///
    /// # Errors
    /// As [`TopicReader::whole`].
    pub fn all(&self, topic: &str) -> Result<Vec<Stretch>, ReadError> {
        (0..self.partitions(topic)?).map(|partition| self.whole(topic, partition)).collect()
    }

    /// The end of what is settled in a partition: every transaction with a record below it was committed or aborted.
    ///
    /// # Errors
    /// As [`TopicReader::whole`].
    pub fn stable(&self, topic: &str, partition: i32) -> Result<i64, ReadError> {
        Ok(watermarks(&self.committed, topic, partition)?.1)
    }

    /// For each stretch the first offset whose record has that Kafka timestamp or a later one.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn begin_at(&self, topic: &str, stretches: &mut [Stretch], millis: i64) -> Result<(), ReadError> {
        let mut wanted = TopicPartitionList::new();
        for stretch in stretches.iter() {
            wanted.add_partition_offset(topic, stretch.partition, Offset::Offset(millis))?;
        }
        let found = self.ends.offsets_for_times(wanted, REQUEST_TIMEOUT)?;
        found.elements().iter().try_for_each(|element| element.error())?;
        for stretch in stretches {
            let offset = found.find_partition(topic, stretch.partition).map(|element| element.offset());
            stretch.from = match offset {
                Some(Offset::Offset(offset)) => stretch.from.max(offset),
                _ => stretch.to,
            };
        }
        Ok(())
    }

    /// Shows `each` the records of the stretches; within a partition in their order.
    ///
    /// # Errors
    /// The brokers do not answer, or nothing comes for a minute.
    pub fn read(
        &self,
        topic: &str,
        stretches: &[Stretch],
        mut each: impl FnMut(&RecordView<'_>),
    ) -> Result<(), ReadError> {
        let mut open = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for stretch in stretches.iter().filter(|stretch| stretch.from < stretch.to) {
            assignment.add_partition_offset(topic, stretch.partition, Offset::Offset(stretch.from))?;
            open.insert(stretch.partition, stretch.to);
        }
        if open.is_empty() {
            return Ok(());
        }
        self.committed.assign_unsubscribed(&assignment, REQUEST_TIMEOUT)?;
        let mut last_sign = Instant::now();
        while !open.is_empty() {
            match poll_events(&self.committed, Duration::ZERO, |_| ()) {
                Polled::Error { message, is_fatal: true, .. } => return Err(ReadError::Fatal(message)),
                Polled::Error { message, .. } => tracing::warn!(topic, message, "reading goes on"),
                Polled::Record(())
                | Polled::EndOfPartition { .. }
                | Polled::Nothing
                | Polled::Assigned(_)
                | Polled::Revoked => {}
            }
            let (mut read, mut ended) = (Vec::with_capacity(TAKEN_AT_ONCE), Vec::new());
            let on_record = |record: &RecordView<'_>| {
                if open.get(&record.partition).is_some_and(|end| record.offset < *end) {
                    each(record);
                }
                read.push((record.partition, record.offset + 1));
            };
            let on_end = |_: &str, partition, offset| ended.push((partition, offset));
            take_records(&self.committed, TAKEN_AT_ONCE, READ_WAIT, on_record, on_end);
            // Those that were read to their end go on: they are no sign that the others do.
            for (partition, next) in read.into_iter().chain(ended) {
                let Some(end) = open.get(&partition) else { continue };
                last_sign = Instant::now();
                if next >= *end {
                    open.remove(&partition);
                }
            }
            if last_sign.elapsed() > PATIENCE {
                return Err(ReadError::Stalled { topic: topic.to_owned(), partitions: open.len() });
            }
        }
        self.committed.unassign()?;
        Ok(())
    }
}
