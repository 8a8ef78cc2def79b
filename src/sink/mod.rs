//! Owns the way from Kafka to ClickHouse: `credits.ledger`, `credits.wallets`, `credits.alerts` and
//! `credits.quarantine`, each into its own tables.
//!
//! A batch is collected ([`reader`]), judged ([`guard`]) and turned into rows ([`rows`]), serialised once
//! ([`block`]), inserted until ClickHouse acknowledges it ([`insert`]); only then its offsets are committed. Now and then
//! the tables by day are refreshed from what was inserted ([`days`]).
//!
//! **Invariant:** every table is an upsert by key, so that redelivery, replay from offset 0 and a slow
//! second instance are harmless; offsets are committed only of what ClickHouse has acknowledged. ClickHouse
//! away stops nothing but this stage, which catches up by itself. Must not add to what a table holds
//! (no counters, no additive views), and must not skip a record that it cannot read: its partition stops.

pub mod block;
pub mod client;
pub mod cluster;
mod days;
pub mod error;
pub mod guard;
pub mod insert;
pub mod migrate;
mod quarantined;
mod reader;
pub mod record;
pub mod rows;
pub mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use thiserror::Error;
use tokio::sync::watch;

pub use migrate::{MigrationError, MigrationReport, migrate};

use crate::config::Config;
use crate::fault::fault_point;
use crate::metrics::Metrics;
use days::Days;
use error::Refused;
use guard::FoldGuard;
use insert::{ClickHouse, FrozenInsert};
use reader::{Batch, Reader};
use record::{Record, Source, SourcePartition};
use rows::{Rows, Stop};

/// How long leaving the group may take at shutdown.
const LEAVE_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Reason of `shard_stopped` where the sink, not the ledger stage, stands still.
const STOPPED_REASON: &str = "sink";

/// Why the sink stopped by itself.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Trying again is no use.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The Kafka consumer cannot go on.
    #[error(
        "the sink's kafka consumer cannot go on: {0}; check kafka.brokers, kafka.properties and the rights on the topics and on group sink.group"
    )]
    Kafka(#[from] KafkaError),
    /// Our bug.
    #[error("the sink failed while turning records into rows: {0}; please report this")]
    Bug(#[from] tokio::task::JoinError),
}

/// Runs the sink until `shutdown`; what is under way then is abandoned, and read again by the next one. `owned` is told
/// which partitions of the ledger it reads.
///
/// # Errors
/// Where it cannot go on without somebody's doing; see [`SinkError`].
pub async fn run(
    config: Arc<Config>,
    metrics: Metrics,
    owned: watch::Sender<BTreeSet<i32>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SinkError> {
    let reader = Reader::start(&config, metrics.clone(), owned)?;
    let clickhouse = ClickHouse::new(&config.clickhouse, &config.sink, metrics.clone());
    let epoch = reader.epoch();
    let mut stage = Stage {
        config,
        metrics,
        reader,
        clickhouse,
        epoch,
        guard: FoldGuard::default(),
        days: Days::new(),
        stopped: HashSet::new(),
        read_epoch: 0,
    };
    tracing::info!(group = stage.config.sink.group, "the sink begins");
    let mut shutdown = pin!(shutdown);
    let result = tokio::select! {
        // Shutdown first: a busy loop must not starve it.
        biased;
        () = &mut shutdown => Ok(()),
        result = stage.run() => result,
    };
    stage.clear_stopped();
    stage.reader.stop(LEAVE_WAIT_MAX).await;
    result
}

/// The stage's state; one task owns it.
struct Stage {
    config: Arc<Config>,
    metrics: Metrics,
    reader: Reader,
    clickhouse: ClickHouse,
    epoch: watch::Receiver<u64>,
    guard: FoldGuard,
    days: Days,
    /// Partitions that cannot go on; tried again when they are assigned anew.
    stopped: HashSet<SourcePartition>,
    /// Epoch that guard and `stopped` belong to.
    read_epoch: u64,
}

impl Stage {
    async fn run(&mut self) -> Result<(), SinkError> {
        self.clickhouse.check_version().await?;
        loop {
            let batch = tokio::select! {
                // Days first: a reader that always has a batch must not starve them. They rest in between.
                biased;
                () = self.days.step(&self.clickhouse) => None,
                batch = self.reader.next() => Some(batch?),
            };
            if let Some(batch) = batch {
                self.process(batch).await?;
            }
        }
    }

    /// From a batch to the commit of its offsets. It is dropped where its partitions are revoked meanwhile.
    async fn process(&mut self, batch: Batch) -> Result<(), SinkError> {
        if batch.epoch != self.read_epoch {
            self.begin_epoch(batch.epoch);
        }
        let mut epoch = self.epoch.clone();
        let of_batch = batch.epoch;
        let is_over = async move {
            // An error says that the reader is gone: then nothing is worth finishing either.
            let _ = epoch.wait_for(|now| *now != of_batch).await;
        };
        tokio::select! {
            biased;
            () = is_over => {
                tracing::info!("the batch is abandoned: its partitions were revoked");
                Ok(())
            }
            done = self.write(batch.records) => done,
        }
    }

    fn begin_epoch(&mut self, epoch: u64) {
        self.guard.clear();
        self.clear_stopped();
        self.read_epoch = epoch;
    }

    async fn write(&mut self, records: Vec<Record>) -> Result<(), SinkError> {
        self.meet_wallets(&records).await?;
        let (inserts, rows) = self.freeze(records).await?;
        if rows.doubles > 0 {
            tracing::warn!(entries = rows.doubles, "entries that the ledger holds twice were passed over");
        }
        for stop in &rows.stops {
            self.stop_partition(stop);
        }
        fault_point!("sink.frozen");
        let mut under_way = tokio::task::JoinSet::new();
        for insert in inserts {
            let clickhouse = self.clickhouse.clone();
            under_way.spawn(async move { clickhouse.insert(&insert).await });
        }
        // Dropping the set, also where the batch is abandoned, ends what is still under way.
        while let Some(done) = under_way.join_next().await {
            done??;
            fault_point!("sink.one_table_inserted");
        }
        fault_point!("sink.inserted");
        self.days.note(&rows.positions);
        if let Err(error) = self.reader.commit(&rows.positions).await {
            tracing::warn!(%error, "the sink's offsets were not committed: the next commit covers them");
        }
        fault_point!("sink.offsets_committed");
        Ok(())
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
    async fn freeze(&mut self, records: Vec<Record>) -> Result<(Vec<FrozenInsert>, Rows), SinkError> {
        let mut guard = std::mem::take(&mut self.guard);
        let stopped = self.stopped.clone();
        let config = Arc::clone(&self.config);
        let freezing = tokio::task::spawn_blocking(move || {
            let mut rows = rows::build(&records, &config.topics, &mut guard, &stopped);
            let blocks = std::mem::take(&mut rows.blocks);
            let inserts: Vec<FrozenInsert> = blocks.iter().map(FrozenInsert::new).collect();
            (guard, inserts, rows)
        });
        // Abandoned here, the guard stays empty: so it is when the next epoch begins.
        let (guard, inserts, rows) = freezing.await?;
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
