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
mod contract;
mod contracts;
mod decode;
mod due;
mod encode;
mod entry;
mod fold;
mod grant;
mod hold;
mod job;
mod level;
mod policy;
mod posting;
mod reversal;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod usage;
mod warning;

pub use apply::{Refusal, apply};
pub use command::{Cause, Command, Moment, PricedUsage};
pub use contract::{Contract, PlanSpan, Term};
pub use due::{next_due, post_due};
pub use entry::{
    BucketTotals, ContractTerms, Entry, EntryType, GrantEffect, GrantKind, GrantTerms, LEDGER_FORMAT,
    LedgerRecord, Origin, PlanTerms, WalletLimits,
};
pub use fold::{Breach, FoldError};
pub use grant::{Grant, GrantOrigin};
pub use hold::{Hold, Holds};
pub use job::{JobHistory, JobMemo, JobName, remember};
pub use level::{Level, LevelRules};
pub use policy::Policy;
pub use snapshot::{ContractState, GrantState, SNAPSHOT_FORMAT, WalletSnapshot};
pub use state::Wallet;
pub use warning::{ExpiryWarning, Overdrawn, Pace, WarningKind};
