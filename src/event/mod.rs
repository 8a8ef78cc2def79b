//! Owns the way in: from the bytes of a Kafka record to a typed event, or to the reason why not.
//!
//! **Invariant:** the order of checks is written down once ([`Reason`] is in that order) and the first that
//! fails names the reason. Nothing is guessed, nothing is skipped. Pure: no clock, no I/O; borrowed from the
//! record's bytes wherever JSON allows it.
//!
//! What needs state (time window, duplicates, plans, balances) is not decided here but in [`crate::ledger`]
//! and [`crate::wallet`].

mod data;
mod decode;
mod envelope;
mod identity;
mod members;
mod read;
mod reason;
mod scan;
#[cfg(test)]
mod tests;

use wide::u8x16;

use crate::bytes;

pub use data::{
    Adjusted, ContractCancelled, ContractRenewed, ContractStarted, Data, JobEnded, JobEnding, Limit,
    LimitsChanged, OverdraftLimit, PlanChanged, TopupPurchased, Usage,
};
pub use decode::{Event, EventKind, EventRules, IncomingRecord, SourceKind, decode};
pub use identity::{
    Fingerprint, Identity, IdentityKey, JobKeys, business_key, event_key, fingerprint, job_key,
};
pub use reason::{Reason, Rejection};

/// Most bytes of an id: event, wallet, job, asset, user, project, model, contract, top-up, adjustment.
pub const ID_BYTES_MAX: usize = 128;
/// Most bytes of an event's `source`.
pub const SOURCE_BYTES_MAX: usize = 256;
/// Most bytes of a text meant for people: reason, actor, reference.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Whether `text` can be an id: 1 to 128 bytes of printable ASCII.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_BYTES_MAX && is_printable(text)
}

/// Whether it is printable ASCII throughout.
fn is_printable(text: &str) -> bool {
    let (first, last) = (u8x16::splat(b' '), u8x16::splat(b'~'));
    !bytes::any(text.as_bytes(), |bytes| bytes.simd_lt(first) | bytes.simd_gt(last))
}
