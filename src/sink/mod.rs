//! Owns the way from Kafka to ClickHouse: `credits.ledger`, `credits.wallets`, `credits.alerts` and
//! `credits.quarantine`, each into its own tables.
//!
//! A batch is collected ([`reader`]), judged ([`guard`]) and turned into rows ([`rows`]), serialised once
//! ([`block`], [`freeze`]), inserted until ClickHouse acknowledges it ([`insert`]); only then its offsets are committed. Each
//! of the three goes on with the next batch meanwhile. Now and then the tables by day are refreshed from what was inserted
//! ([`days`]).
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
mod freeze;
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

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use migrate::{MigrationError, MigrationReport, migrate};

use crate::config::Config;
use crate::fault::fault_point;
use crate::metrics::Metrics;
use days::Days;
use error::Refused;
use freeze::{Freezer, Frozen};
use insert::ClickHouse;
use reader::Reader;

/// How long leaving the group may take at shutdown.
const LEAVE_WAIT_MAX: Duration = Duration::from_millis(1_500);

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
    let (reader, batches) = Reader::start(&config, metrics.clone(), owned)?;
    let clickhouse = ClickHouse::new(&config.clickhouse, &config.sink, metrics.clone());
    tracing::info!(group = config.sink.group, "the sink begins");
    let mut freezer = Freezer::new(config, metrics, clickhouse.clone(), batches, reader.epochs());
    let mut writer = Writer { reader: &reader, clickhouse, days: Days::new() };
    // One batch is frozen while another is inserted: the place is free again once the writer has taken it.
    let (frozen, to_insert) = mpsc::channel(1);
    let work = async {
        writer.clickhouse.check_version().await?;
        tokio::select! {
            result = freezer.run(&frozen) => result,
            result = writer.run(to_insert) => result,
        }
    };
    let mut shutdown = pin!(shutdown);
    let result = tokio::select! {
        // Shutdown first: a busy loop must not starve it.
        biased;
        () = &mut shutdown => Ok(()),
        result = work => result,
    };
    drop(freezer);
    reader.stop(LEAVE_WAIT_MAX).await;
    result
}

/// Inserts what was frozen, one batch after the other.
struct Writer<'r> {
    reader: &'r Reader,
    clickhouse: ClickHouse,
    days: Days,
}

impl Writer<'_> {
    async fn run(&mut self, mut to_insert: mpsc::Receiver<Frozen>) -> Result<(), SinkError> {
        loop {
            tokio::select! {
                // Days first: a sink that always has a batch must not starve them. They rest in between.
                biased;
                () = self.days.step(&self.clickhouse) => {}
                Some(batch) = to_insert.recv() => {
                    let done = self.reader.epochs().while_in(batch.epoch, self.write(batch)).await;
                    done.unwrap_or(Ok(()))?;
                }
            }
        }
    }

    /// From a frozen batch to the commit of its offsets.
    async fn write(&mut self, batch: Frozen) -> Result<(), SinkError> {
        let mut under_way = JoinSet::new();
        for insert in batch.inserts {
            let clickhouse = self.clickhouse.clone();
            under_way.spawn(async move { clickhouse.insert(&insert).await });
        }
        // Dropping the set, also where the batch is abandoned, ends what is still under way.
        while let Some(done) = under_way.join_next().await {
            done??;
            fault_point!("sink.one_table_inserted");
        }
        fault_point!("sink.inserted");
        self.days.note(&batch.positions);
        if let Err(error) = self.reader.commit(&batch.positions).await {
            tracing::warn!(%error, "the sink's offsets were not committed: the next commit covers them");
        }
        fault_point!("sink.offsets_committed");
        Ok(())
    }
}
