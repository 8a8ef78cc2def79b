//! Remembered identities of a shard: who was seen within the horizon, in bounded memory.
//!
//! The newest are in memory ([`Recent`]). When they are too many they are frozen, and a background thread
//! ([`Maintenance`]) seals them: sorts them into a segment, a file that never changes, with a filter in memory that
//! answers nearly every look-up of something new. Segments are merged to a few, and deleted whole when all of one is
//! forgotten.
//!
//! **Invariants**
//! - What was absorbed is found until it is forgotten. A filter only ever says no; its yes is looked up on disk.
//! - Of a key the newest memo wins. Its day may only grow: else a forgotten newer memo would uncover an older one.
//! - Memory is bounded by the number of identities: `recent_max` and those on their way to disk, and 28 bits for each
//!   sealed one, if the caller heeds [`IdentityStore::is_behind`].
//!
//! **Must not:** decide what is forgotten (the caller compares a memo's day), repair a file, wait for the disk
//! between batches, or know what a value means.
//!
//! # A crash between any two lines
//! The caller's checkpoint holds a [`Manifest`] and the identities that were in no segment at that moment. It is
//! all that counts: a restart opens the segments that it names, deletes the shard's other files, and absorbs the
//! identities that it holds.
//!
//! | the process dies | on disk | after the restart |
//! |---|---|---|
//! | while a segment is written | a torn file `….new` | deleted; the identities are in the checkpoint, or in the segments that were being merged |
//! | after the rename | a whole segment that no checkpoint names | likewise |
//! | after the store took it over, before the next checkpoint is durable | likewise | likewise: a segment that was replaced is deleted only by [`IdentityStore::manifest_is_durable`] |
//! | after the checkpoint is durable, before replaced files are deleted | files that the checkpoint does not name | deleted |
//! | while they are deleted | some of them | deleted |
//!
//! A checkpoint never names a file that is not whole: it is synced, renamed and its folder synced before the store
//! hears of it. A file that a checkpoint names goes only when a newer one is durable; revisions tell which is
//! newer. Names are random and never used twice, so what a shard's former owner in the same process still
//! writes cannot take the place of another file. If such an owner makes a checkpoint durable after the shard was
//! opened from an older one, then that names deleted files, is refused at the next start, and the shard is rebuilt.

mod block;
mod chunked;
mod filter;
mod header;
mod maintenance;
mod manifest;
mod merge;
mod policy;
mod recent;
mod segment;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use filter::Met;
pub use maintenance::Maintenance;
pub use manifest::Manifest;
pub use recent::Recent;
pub use store::IdentityStore;

/// The longest value: a charge out of the most grants that a wallet can have, with the longest ids, takes half of it.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// What is remembered under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo<'m> {
    /// The day that ends its life, since the epoch.
    pub day: i32,
    /// What the caller gave: 8 bytes for events, 10 to 60 for most jobs, at most [`MAX_VALUE_BYTES`].
    pub value: Cow<'m, [u8]>,
}

/// Where a shard's identities are kept.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Folder of the segments; shards may share it. Without one everything stays in memory.
    pub folder: Option<PathBuf>,
    /// The id of the ledger topic, at most 3,000 bytes.
    pub ledger_id: String,
    /// Shard.
    pub shard: i32,
    /// So many identities stay in memory before they are sealed. A good start is a million a worker, divided by its
    /// shards.
    pub recent_max: usize,
    /// How long identities are remembered, days. Decides which segments become one.
    pub horizon_days: u32,
}

/// Why a store cannot be opened. The caller deletes the checkpoint and rebuilds the shard.
#[derive(Debug, thiserror::Error)]
pub enum WhyNot {
    /// The checkpoint names segments, but no folder is configured.
    #[error("the checkpoint names segments, but no folder is configured")]
    NoFolder,
    /// The file is missing or cannot be read.
    #[error("{} cannot be read", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file is not what the checkpoint names.
    #[error("{}: {why}", path.display())]
    InDoubt {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Background work that was finished.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Identities sealed.
    pub sealed: u64,
    /// Time that it took.
    pub sealing: Duration,
    /// Identities written by merges.
    pub merged: u64,
    /// Time that it took.
    pub merging: Duration,
}
