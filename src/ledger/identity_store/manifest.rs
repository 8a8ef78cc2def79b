//! What a checkpoint names: the segments of a shard, from the oldest to the newest.

use serde::{Deserialize, Serialize};

/// The name of a segment: random, in its file's name and in its header, and never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentId(pub(super) u64);

/// The segments of a shard at one time. Together with the identities that were not in any of them at that time
/// it is all that was remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts the changes of the set of segments, so that of two manifests it is known which is the newer.
    pub(super) revision: u64,
    /// The oldest first: where two hold a key, the later one is right.
    pub(super) segments: Vec<SegmentId>,
}
