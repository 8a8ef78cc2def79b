//! Owns credits: a wallet, what may be done to it, and the entries that say what was done.
//!
//! One function decides, [`apply`]: wallet + command -> entries or a reason. One function changes a wallet,
//! [`Wallet::fold`], and it takes an entry and nothing else: so a wallet *is* the fold of its entries.
//!
//! **Invariant:** integers; after every entry balance = what is left in grants - overdraft; no grant below 0;
//! `seq` without gap. A breach is an error that stops the shard, never a posting. Pure: no clock, no I/O, no
//! randomness.

mod apply;
mod command;
mod encode;
mod entry;
mod fold;
mod level;
mod policy;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use apply::{Refusal, apply};
pub use command::{Cause, Command, JobCharge, JobHistory, Moment};
pub use encode::encode_snapshot;
pub use entry::{
    BucketTotals, ContractTerms, Entry, EntryType, GrantEffect, GrantKind, GrantTerms, LEDGER_FORMAT,
    LedgerRecord, Origin,
};
pub use fold::{Breach, FoldError};
pub use level::{Level, LevelRules};
pub use policy::Policy;
pub use snapshot::{SNAPSHOT_FORMAT, WalletSnapshot};
pub use state::{Bucket, Contract, Grant, Wallet};
