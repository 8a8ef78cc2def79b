//! Looks at the ends of partitions from a thread of its own, so that no worker waits for an answer.
//!
//! It publishes lag, and samples the last stable offset of ledger partitions: the workers use it as the position
//! up to which their state is complete.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::debug;

use super::needs::NeedSeries;
use super::routes::Routes;
use crate::kafka::{Clients, KafkaConsumer, watermarks};
use crate::metrics::Metrics;
use crate::time::Timestamp;

const EVERY: Duration = Duration::from_secs(1);

/// What workers and the watch tell each other.
#[derive(Default)]
pub struct Board {
    marks: Mutex<Marks>,
    /// Series of the wallets most in need.
    pub needs: NeedSeries,
}

#[derive(Default)]
struct Marks {
    /// By (index of topic, partition).
    positions: BTreeMap<(usize, i32), Position>,
    /// Shards owned by this instance, with the last stable offset of their ledger partition.
    ledger_ends: BTreeMap<i32, Option<i64>>,
}

/// How far a partition has been processed.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The next offset.
    pub next: i64,
    /// Kafka timestamp of the last record, milliseconds since the epoch.
    pub last_timestamp: i64,
}

impl Board {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker took these shards.
    pub fn take_shards(&self, shards: impl IntoIterator<Item = i32>) {
        let mut marks = self.marks();
        for shard in shards {
            marks.ledger_ends.insert(shard, None);
        }
    }

    /// A worker gave these shards and partitions away.
    pub fn release(&self, shards: &[i32], partitions: &[(usize, i32)]) {
        let mut marks = self.marks();
        marks.ledger_ends.retain(|shard, _| !shards.contains(shard));
        marks.positions.retain(|partition, _| !partitions.contains(partition));
    }

    /// A worker committed up to here.
    pub fn set_positions(&self, positions: impl IntoIterator<Item = ((usize, i32), Position)>) {
        self.marks().positions.extend(positions);
    }

    /// Tells of a partition as long as it is here: once it was given away nothing is told any more.
    fn tell_if_here(&self, partition: (usize, i32), tell: impl FnOnce(Position)) {
        let marks = self.marks();
        if let Some(position) = marks.positions.get(&partition) {
            tell(*position);
        }
    }

    /// Shards of this instance.
    pub fn shards(&self) -> Vec<i32> {
        self.marks().ledger_ends.keys().copied().collect()
    }

    /// Where the last stable offset of a shard's ledger partition was just now, if it is a shard of this instance.
    pub fn set_ledger_end(&self, shard: i32, end: i64) {
        if let Some(place) = self.marks().ledger_ends.get_mut(&shard) {
            *place = Some(end);
        }
    }

    /// The last stable offset of a shard's ledger partition, as it was sampled last.
    pub fn ledger_end(&self, shard: i32) -> Option<i64> {
        self.marks().ledger_ends.get(&shard).copied().flatten()
    }
}

/// Watches until told to stop.
pub fn watch(
    clients: &Clients,
    routes: &Routes,
    board: &Board,
    metrics: &Metrics,
    stopping: &Arc<AtomicBool>,
) {
    let reader = match clients.committed_reader("watch") {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(%error, "lag is not watched");
            return;
        }
    };
    while !stopping.load(Ordering::Relaxed) {
        look(&reader, routes, board, metrics);
        std::thread::sleep(EVERY);
    }
}

fn look(reader: &KafkaConsumer, routes: &Routes, board: &Board, metrics: &Metrics) {
    let shards = board.shards();
    for shard in shards {
        match watermarks(reader, &routes.out.ledger, shard) {
            Ok((_, end)) => board.set_ledger_end(shard, end),
            Err(error) => debug!(%error, shard, "the ledger's end is not known"),
        }
    }
    let partitions: Vec<(usize, i32)> = board.marks().positions.keys().copied().collect();
    for id in partitions {
        let Some(topic) = routes.topic(id.0) else { continue };
        if let Ok((_, end)) = watermarks(reader, &topic.name, id.1) {
            // While the brokers were asked the partition may have been given away, and its series taken away.
            board.tell_if_here(id, |position| publish_lag(metrics, &topic.name, id.1, position, end));
        }
    }
}

fn publish_lag(metrics: &Metrics, topic: &str, partition: i32, position: Position, end: i64) {
    let lag = end.saturating_sub(position.next).max(0);
    let age_ms = Timestamp::now().millis().saturating_sub(position.last_timestamp).max(0);
    let age_ms = if lag == 0 { 0 } else { age_ms };
    let labels = ["ledger", topic, &partition.to_string()];
    metrics.lag_records.with_label_values(&labels).set(lag);
    metrics.lag_seconds.with_label_values(&labels).set(age_ms as f64 / 1_000.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its end was asked for while it was here, and the answer came once it was not: the series would stay for ever.
    #[test]
    fn nothing_is_told_of_a_partition_that_was_given_away_meanwhile() {
        let (board, metrics) = (Board::default(), Metrics::new());
        board.set_positions([((0, 1), Position { next: 5, last_timestamp: 0 })]);
        let told = || metrics.encode().contains(r#"creditstream_lag_records{partition="1""#);
        let answered = || {
            board.tell_if_here((0, 1), |position| publish_lag(&metrics, "events", 1, position, 7));
        };
        answered();
        assert!(told());
        board.release(&[], &[(0, 1)]);
        metrics.clear_lag("ledger", "events", "1");
        answered();
        assert!(!told());
    }
}
