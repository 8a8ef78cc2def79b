//! The ledger stage against a model of its world: threads in turns, virtual time, faults that a seed picks.
//!
//! The stage is the shipped one, to the line: worker, committer, restore and checkpoints are generic over
//! [`super::world::World`], and here that is a model broker with transactions, epochs, generations, late markers, lost
//! answers, paused and killed processes and wrong clocks. At the end of a run everything is quiet, and what the topics
//! hold is compared with the books of what was sent.
//!
//! `SIMULATION_SEEDS=5000 cargo test --release --lib simulation` plays more; a seed that fails is printed with the
//! command that plays it again, turn by turn the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

mod broker;
mod check;
mod client;
mod group;
mod play;
mod producer;
pub(super) mod random;
mod scheduler;
mod staying;
mod tests;
mod workload;

pub use scheduler::{is_planted, reached};

/// The wall clock at the beginning of a run: 2026-11-03T10:15:30Z.
const FIRST_MS: i64 = 1_793_700_930_000;

/// All topics, sources first.
const TOPICS: [&str; 9] = [
    "generation.events",
    "other.events",
    "wallet.events",
    "credits.intake",
    "credits.ledger",
    "credits.alerts",
    "credits.wallets",
    "credits.progress",
    "credits.quarantine",
];

/// Mistakes that somebody could make, and that the simulation must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A batch becomes state when it is sent, not when it is committed.
    ApplyBeforeCommit,
    /// What is still queued is not waited for.
    CommitWithoutFlush,
    /// A restore reads up to the last stable offset, not up to the true end.
    RestoreToLastStable,
    /// A batch without records sends no offsets, and so nobody fences it.
    TimersWithoutOffsets,
    /// A batch is committed with what the group knows of the member by then.
    FreshGroupMetadata,
    /// Of the origins of handed-over records only the greatest offset is remembered, not every partition's.
    MaxOfOffsets,
    /// A restore meets the identities of one day, not of the horizon.
    OneDaysIdentities,
    /// A state that was kept is taken for true, whatever the ledger says.
    TrustWhatIsKept,
    /// A producer is used on after its connections were lost.
    GoOnAfterAnOutage,
    /// Alerts go out in a transaction of their own, once that of their entries is committed.
    AlertsAfterCommit,
    /// A new producer commits while what an earlier one left is still open.
    CommitOverWhatIsOpen,
}

/// What may go wrong in a run: the seed switches each on or off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub late_markers: bool,
    pub slow_network: bool,
    pub lost_answers: bool,
    pub delayed_end: bool,
    pub deaths: bool,
    pub pauses: bool,
    pub restarts: bool,
    pub clock_jumps: bool,
    pub passing_days: bool,
    pub outages: bool,
    pub group_resets: bool,
    pub local_store: bool,
    pub torn_files: bool,
    pub undone_commits: bool,
}
