//! Reads a topic up to its end as of now, without being a member of any group. Committed records only.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::exit::Failure;
use super::generate::progress_bar;
use crate::config::Config;
use crate::kafka::{Clients, KafkaConsumer, Polled, RecordView, partition_for, poll_events, watermarks};

const TIMEOUT: Duration = Duration::from_secs(15);
/// Fewer records than this are read before a bar could be seen.
const BAR_RECORDS_MIN: i64 = 50_000;

/// Which partitions are read.
#[derive(Clone, Copy)]
pub enum Partitions<'k> {
    /// All of them.
    All,
    /// The one that a key belongs to.
    OfKey(&'k [u8]),
}

/// Shows `each` the records of a topic; within a partition in their order.
pub fn read_topic(
    config: &Config,
    topic: &str,
    partitions: Partitions<'_>,
    each: impl FnMut(&RecordView<'_>),
) -> Result<(), Failure> {
    let reader = reader(config)?;
    let ranges = ranges(&reader, topic, partitions)?;
    read_ranges(&reader, topic, ranges, each)
}

/// The value of the last record of a key; `None`: it has none, or was deleted.
pub fn latest(config: &Config, topic: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let mut latest = None;
    read_topic(config, topic, Partitions::OfKey(key), |record| {
        if record.key == Some(key) {
            latest = record.value.map(<[u8]>::to_vec);
        }
    })?;
    Ok(latest)
}

/// The values of single records, each by its partition and offset; `None` where there is no such record.
pub fn records(config: &Config, topic: &str, places: &[(i32, i64)]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let reader = reader(config)?;
    let read = |&(partition, offset): &(i32, i64)| {
        let (first, end) = watermarks(&reader, topic, partition).map_err(unreachable)?;
        let mut value = None;
        if (first..end).contains(&offset) {
            read_ranges(&reader, topic, [(partition, (offset, offset + 1))].into(), |record| {
                if record.offset == offset {
                    value = record.value.map(<[u8]>::to_vec);
                }
            })?;
        }
        Ok(value)
    };
    places.iter().map(read).collect()
}

fn reader(config: &Config) -> Result<KafkaConsumer, Failure> {
    Clients::new(Arc::new(config.clone())).committed_reader("command").map_err(unreachable)
}

fn read_ranges(
    reader: &KafkaConsumer,
    topic: &str,
    ranges: BTreeMap<i32, (i64, i64)>,
    mut each: impl FnMut(&RecordView<'_>),
) -> Result<(), Failure> {
    let mut assignment = TopicPartitionList::new();
    for (partition, (first, _)) in &ranges {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(*first)).map_err(unreachable)?;
    }
    reader.assign(&assignment).map_err(unreachable)?;
    let bar = bar(&ranges);
    let mut open: BTreeMap<i32, i64> =
        ranges.into_iter().map(|(partition, (_, end))| (partition, end)).collect();
    let mut last_sign = Instant::now();
    while !open.is_empty() {
        let polled = poll_events(reader, Duration::from_millis(200), |record| {
            if open.get(&record.partition).is_some_and(|end| record.offset < *end) {
                each(record);
            }
            (record.partition, record.offset + 1)
        });
        let reached = match polled {
            Polled::Record(reached) => Some(reached),
            Polled::EndOfPartition { partition, offset, .. } => Some((partition, offset)),
            _ => None,
        };
        if let Some((partition, next)) = reached {
            last_sign = Instant::now();
            bar.inc(1);
            if open.get(&partition).is_some_and(|end| next >= *end) {
                open.remove(&partition);
            }
        }
        if last_sign.elapsed() > TIMEOUT {
            return Err(Failure::unavailable(format!("topic {topic}: nothing came for {TIMEOUT:?}")));
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// First and next offset of each partition that has records to be read.
fn ranges(
    reader: &KafkaConsumer,
    topic: &str,
    partitions: Partitions<'_>,
) -> Result<BTreeMap<i32, (i64, i64)>, Failure> {
    let metadata = reader.fetch_metadata(Some(topic), TIMEOUT).map_err(unreachable)?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let count = i32::try_from(count).unwrap_or(0);
    if count == 0 {
        return Err(Failure::unavailable(format!("topic {topic} does not exist: run `creditstream init`")));
    }
    let wanted = match partitions {
        Partitions::All => (0..count).collect(),
        Partitions::OfKey(key) => vec![partition_for(key, count)],
    };
    let mut ranges = BTreeMap::new();
    for partition in wanted {
        let (first, end) = watermarks(reader, topic, partition).map_err(unreachable)?;
        if first < end {
            ranges.insert(partition, (first, end));
        }
    }
    Ok(ranges)
}

/// On long work, on stderr, and only at a terminal.
fn bar(ranges: &BTreeMap<i32, (i64, i64)>) -> ProgressBar {
    let records: i64 = ranges.values().map(|(first, end)| end - first).sum();
    if records < BAR_RECORDS_MIN || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    progress_bar(records.unsigned_abs())
}

fn unreachable(error: KafkaError) -> Failure {
    Failure::unavailable(format!("kafka: {error}"))
}
