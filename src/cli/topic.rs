//! Reads a topic up to its end as of now, with a bar on long work.

use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::ProgressBar;

use super::exit::Failure;
use super::generate::progress_bar;
use crate::config::Config;
use crate::kafka::{Clients, ReadError, RecordView, Stretch, TopicReader, partition_for};

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
    mut each: impl FnMut(&RecordView<'_>),
) -> Result<(), Failure> {
    let mut read = || {
        let reader = reader(config)?;
        let stretches = match partitions {
            Partitions::All => reader.all(topic)?,
            Partitions::OfKey(key) => {
                vec![reader.whole(topic, partition_for(key, reader.partitions(topic)?))?]
            }
        };
        let bar = bar(&stretches);
        reader.read(topic, &stretches, |record| {
            bar.inc(1);
            each(record);
        })?;
        bar.finish_and_clear();
        Ok::<_, ReadError>(())
    };
    read().map_err(Failure::unavailable)
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
    let reader = reader(config).map_err(Failure::unavailable)?;
    let read = |&(partition, offset): &(i32, i64)| {
        let whole = reader.whole(topic, partition)?;
        let place = Stretch { partition, from: offset.max(whole.from), to: (offset + 1).min(whole.to) };
        let mut value = None;
        reader.read(topic, &[place], |record| value = record.value.map(<[u8]>::to_vec))?;
        Ok::<_, ReadError>(value)
    };
    places.iter().map(read).collect::<Result<_, _>>().map_err(Failure::unavailable)
}

fn reader(config: &Config) -> Result<TopicReader, ReadError> {
    TopicReader::new(&Clients::new(Arc::new(config.clone())), "command")
}

/// On stderr, and only at a terminal.
fn bar(stretches: &[Stretch]) -> ProgressBar {
    let records: i64 = stretches.iter().map(|stretch| (stretch.to - stretch.from).max(0)).sum();
    if records < BAR_RECORDS_MIN || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    progress_bar(records.unsigned_abs())
}
