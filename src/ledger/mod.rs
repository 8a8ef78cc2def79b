//! Owns the ledger stage: events in, entries out, one Kafka transaction per batch.
//!
//! A worker ([`worker`]) is two threads. One polls, decodes and processes a batch into an overlay; the other
//! ([`committer`]) enqueues it in one go, flushes and commits, while the first goes on with the next batch.
//! The first owns all state; the second owns the producer. Others help the first with a large batch, shard by shard
//! ([`compute`]).
//!
//! **Invariant:** nothing is applied to a shard's state before its transaction is committed, and the entries, the
//! alerts, the wallets, the positions and the source offsets of a batch are in one transaction. The outcome of a transaction
//! is never guessed: where it is not known, state is read again from the topics.

mod accept;
mod alerts;
mod arena;
mod assignment;
mod batch;
mod books;
mod changed;
mod checkpoint;
mod clock;
mod committer;
mod compute;
mod decoding;
mod elsewhere;
mod flight;
pub mod identity_store;
mod memory;
mod needs;
mod outbox;
mod pace;
mod part;
mod process;
mod progress;
mod report;
mod restore;
mod restoring;
mod routes;
mod shard;
#[cfg(test)]
mod simulation;
mod stage;
mod store;
#[cfg(test)]
mod tests;
pub mod wallets;
mod watch;
mod worker;
mod world;

pub use accept::{Accept, AcceptError, Accepted, accept, accept_ledger};
pub use books::{Books, Outcome};
pub use progress::{
    OriginBooks, OriginProgress, PROGRESS_FORMAT, PartitionProgress, ShardProgress, partition_key, shard_key,
};
#[cfg(test)]
pub(crate) use simulation::{Bug, is_planted, reached as simulation_reached};
pub use stage::{LedgerError, run};

/// The bounds of time, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct TimeRules {
    /// Events older than the shard clock by more than this are refused, and identities remembered as long.
    pub horizon_ms: i64,
    /// Events this much ahead of the wall clock are refused.
    pub max_clock_skew_ms: i64,
    /// The wall clock takes over after this long without records.
    pub idle_after_ms: i64,
}

impl TimeRules {
    /// From the `[clock]` table.
    pub fn new(config: &crate::config::ClockConfig) -> TimeRules {
        TimeRules {
            horizon_ms: i64::from(config.horizon_days) * crate::time::DAY_MS,
            max_clock_skew_ms: i64::from(config.max_clock_skew_seconds) * 1_000,
            idle_after_ms: i64::from(config.idle_after_seconds) * 1_000,
        }
    }
}

/// Headers of a record that was handed over or quarantined: where it was first written.
pub mod headers {
    /// Topic.
    pub const TOPIC: &str = "cs_topic";
    /// Topic id.
    pub const TOPIC_ID: &str = "cs_topic_id";
    /// Partition, decimal.
    pub const PARTITION: &str = "cs_partition";
    /// Offset, decimal.
    pub const OFFSET: &str = "cs_offset";
    /// Kafka timestamp, RFC 3339.
    pub const TIME: &str = "cs_time";
    /// Key, where it had one; only on the way through intake, whose key is the wallet id.
    pub const KEY: &str = "cs_key";
    /// Machine-readable reason of a quarantined record.
    pub const REASON: &str = "cs_reason";
    /// Sentence for a person.
    pub const DETAIL: &str = "cs_detail";
    /// Of a record that the quarantine would not take whole: bytes of key, value and headers, and the value's SHA-256.
    pub const TRUNCATED: &str = "cs_truncated";
}
