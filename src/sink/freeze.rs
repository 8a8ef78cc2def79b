//! Owns what a batch comes to: the fold guard, the partitions that stand still, and the inserts, serialised for good.
//!
//! One batch is frozen while the one before it is inserted, and no further: that bounds memory, and what the guard must
//! remember, for what is still under way to ClickHouse cannot be asked for there.
//!
//! **Invariant:** batches are handed on in the order in which they were read, none of a later epoch before one of an
//! earlier. Must not insert, and must not commit offsets.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::SinkError;
use super::guard::{FoldGuard, WALLETS_AT_ONCE_MAX};
use super::insert::{ClickHouse, FrozenInsert};
use super::reader::{Batch, Batches, Epochs};
use super::record::{Record, Source, SourcePartition};
use super::rows::{self, Rows, Stop};
use crate::config::Config;
use crate::fault::fault_point;
use crate::metrics::Metrics;

/// Reason of `shard_stopped` where the sink, not the ledger stage, stands still.
const STOPPED_REASON: &str = "sink";

/// A batch, ready to be inserted.
#[derive(Debug)]
pub struct Frozen {
    /// Epoch that it was read in.
    pub epoch: u64,
    /// At most one for each table.
    pub inserts: Vec<FrozenInsert>,
    /// For each partition the offset after the last record that the inserts cover.
    pub positions: BTreeMap<SourcePartition, i64>,
}

/// Freezes one batch after the other.
pub struct Freezer {
    config: Arc<Config>,
    metrics: Metrics,
    clickhouse: ClickHouse,
    batches: Batches,
    epochs: Epochs,
    guard: FoldGuard,
    /// Partitions that cannot go on; tried again when they are assigned anew.
    stopped: HashSet<SourcePartition>,
    /// Epoch that guard and `stopped` belong to; `None` until the first batch.
    epoch: Option<u64>,
}

impl Freezer {
    pub fn new(
        config: Arc<Config>,
        metrics: Metrics,
        clickhouse: ClickHouse,
        batches: Batches,
        epochs: Epochs,
    ) -> Freezer {
        let (guard, stopped) = (FoldGuard::default(), HashSet::new());
        Freezer { config, metrics, clickhouse, batches, epochs, guard, stopped, epoch: None }
    }

    /// Hands on whatever is read, as soon as the batch before it was taken.
    ///
    /// # Errors
    /// Where the sink cannot go on without somebody's doing.
    pub async fn run(&mut self, frozen: &mpsc::Sender<Frozen>) -> Result<(), SinkError> {
        // An error says that nobody takes what is frozen.
        while let Ok(place) = frozen.reserve().await {
            let batch = self.batches.next().await?;
            let epochs = self.epochs.clone();
            match epochs.while_in(batch.epoch, self.freeze(batch)).await {
                Some(batch) => place.send(batch?),
                None => continue,
            }
        }
        Ok(())
    }

    async fn begin_epoch(&mut self, epoch: u64) {
        self.guard.clear();
        self.clear_stopped();
        self.epoch = Some(epoch);
        if let Some(stored) = self.clickhouse.all_last_entries(WALLETS_AT_ONCE_MAX).await {
            self.guard.learn_all(stored);
        }
    }

    async fn freeze(&mut self, batch: Batch) -> Result<Frozen, SinkError> {
        if self.epoch != Some(batch.epoch) {
            self.begin_epoch(batch.epoch).await;
        }
        self.meet_wallets(&batch.records).await?;
        let (inserts, rows) = self.serialise(batch.records).await?;
        if rows.doubles > 0 {
            tracing::warn!(entries = rows.doubles, "entries that the ledger holds twice were passed over");
        }
        for stop in &rows.stops {
            self.stop_partition(stop);
        }
        fault_point!("sink.frozen");
        Ok(Frozen { epoch: batch.epoch, inserts, positions: rows.positions })
    }

    /// Asks ClickHouse about the wallets that the guard has not met.
    async fn meet_wallets(&mut self, records: &[Record]) -> Result<(), SinkError> {
        self.guard.bound();
        let unmet: Vec<&str> = rows::wallets_to_meet(records, &self.guard).into_iter().collect();
        let last_entries = self.clickhouse.last_entries(&unmet).await?;
        for wallet_id in &unmet {
            self.guard.learn(wallet_id, None);
        }
        for (wallet_id, stored) in last_entries {
            self.guard.learn(&wallet_id, Some(stored));
        }
        Ok(())
    }

    /// Parses and serialises on a thread of its own: 50,000 entries take longer than a task may.
    async fn serialise(&mut self, records: Vec<Record>) -> Result<(Vec<FrozenInsert>, Rows), SinkError> {
        let mut guard = mem::take(&mut self.guard);
        let stopped = self.stopped.clone();
        let config = Arc::clone(&self.config);
        let serialising = tokio::task::spawn_blocking(move || {
            let mut rows = rows::build(&records, &config.topics, &mut guard, &stopped);
            let blocks = mem::take(&mut rows.blocks);
            let inserts: Vec<FrozenInsert> = blocks.iter().map(FrozenInsert::new).collect();
            (guard, inserts, rows)
        });
        // Abandoned here, the guard stays empty: so it is when the next epoch begins.
        let (guard, inserts, rows) = serialising.await?;
        self.guard = guard;
        Ok((inserts, rows))
    }

    fn stop_partition(&mut self, stop: &Stop) {
        let topic = stop.of.source.topic(&self.config.topics);
        tracing::error!(
            topic, partition = stop.of.partition, offset = stop.offset, reason = %stop.reason,
            "the sink stops this partition; the others go on"
        );
        self.stopped.insert(stop.of);
        if stop.of.source != Source::Quarantine {
            let labels = [stop.of.partition.to_string(), STOPPED_REASON.to_owned()];
            self.metrics.shard_stopped.with_label_values(&labels).set(1);
        }
    }

    fn clear_stopped(&mut self) {
        for of in self.stopped.drain() {
            // An error says that there is none.
            let _ =
                self.metrics.shard_stopped.remove_label_values(&[&of.partition.to_string(), STOPPED_REASON]);
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.clear_stopped();
    }
}
