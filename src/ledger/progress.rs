//! Records of `credits.progress`: how far a shard and a source partition have come. One writer per key, in
//! every transaction for what it touched.

use serde::{Deserialize, Serialize};

use super::books::Books;
use crate::time::Timestamp;

/// Version of the format, `v` of a record.
pub const PROGRESS_FORMAT: u32 = 1;

/// Value of `shard/<n>`, in partition n, by whoever owns shard n.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardProgress {
    /// Format version.
    pub v: u32,
    /// Batches that touched the shard.
    pub batch: u64,
    /// Shard clock.
    pub clock: Timestamp,
    /// Consumer group: a second deployment on the same topics is refused.
    pub group: String,
    /// Hash of the prices in force up to the clock: an instance with others is refused.
    pub config_hash: String,
    /// For each partition met through intake: the last offset processed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<OriginProgress>,
    /// How often a cut of its ledger was accepted. What was kept of the shard before the last of them is of another life.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cuts: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// How far a shard has come with the records of a partition that were handed over to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OriginProgress {
    /// Topic.
    pub topic: String,
    /// Its id.
    pub topic_id: String,
    /// Partition.
    pub partition: i32,
    /// Last offset processed.
    pub offset: i64,
}

/// Final outcomes of records that came through intake, by where they were first written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OriginBooks {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Final outcomes.
    pub outcomes: Books,
    /// Of records that are read again, after a cut of the ledger: what was counted before, and stands.
    #[serde(default, skip_serializing_if = "Books::is_empty")]
    pub earlier: Books,
}

/// Value of `<topic>/<partition>` for sources and intake, by whoever is assigned it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionProgress {
    /// Format version.
    pub v: u32,
    /// Id of the topic when it was first read.
    pub topic_id: String,
    /// Number of its partitions when it was first read.
    pub partitions: i32,
    /// Whether its records stay with the shard of their partition.
    pub at_home: bool,
    /// Last offset read, whatever its outcome.
    pub offset: i64,
    /// Outcomes as read here.
    pub outcomes: Books,
    /// Of intake: the same by origin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_origin: Vec<OriginBooks>,
    /// Outcomes of earlier topics of this name, which were deleted; and of records that are read again, after a cut of the
    /// ledger, what was counted before, and stands.
    #[serde(default, skip_serializing_if = "Books::is_empty")]
    pub earlier: Books,
}

/// Key of a shard's progress.
pub fn shard_key(shard: i32) -> String {
    format!("shard/{shard}")
}

/// Key of a partition's progress.
pub fn partition_key(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}
