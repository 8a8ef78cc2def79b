//! A grant: a lot of credits with one origin and one expiry.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::GrantKind;
use crate::rate::UsdCents;
use crate::time::Timestamp;

/// A lot of credits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Where its credits come from.
    pub origin: GrantOrigin,
    /// Credits at the start.
    pub granted: i64,
    /// Credits left.
    pub remaining: i64,
    /// How many of them went into overdraft.
    pub repaid: i64,
    /// Seq of the entry with which it last repaid overdraft; 0: it never did.
    pub repaid_at: u64,
    /// Lower pays first.
    pub priority: u16,
    /// By the event's time, or when it was due.
    pub granted_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Seq of the entry that made it.
    pub made_at: u64,
    /// Seq of the last entry that touched it.
    pub seq: u64,
    /// Day of the last entry that touched it, since the epoch.
    pub touched_on: i32,
}

/// Where the credits of a grant come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantOrigin {
    /// A month of a contract.
    Plan {
        /// Place of the contract in its wallet.
        contract: u16,
        /// Month of the contract, from 0.
        month: u32,
        /// More for a month that was granted before.
        is_difference: bool,
    },
    /// A top-up pack.
    Topup {
        /// Its id.
        id: CompactString,
        /// Its price.
        amount_usd: UsdCents,
    },
    /// A person.
    Adjustment {
        /// Its id.
        id: CompactString,
    },
}

impl GrantOrigin {
    /// The kind of grant.
    pub fn kind(&self) -> GrantKind {
        match self {
            GrantOrigin::Plan { .. } => GrantKind::Plan,
            GrantOrigin::Topup { .. } => GrantKind::Topup,
            GrantOrigin::Adjustment { .. } => GrantKind::Adjustment,
        }
    }
}

impl Grant {
    /// Whether it may pay for what happened then.
    pub fn is_valid_at(&self, event_time: Timestamp) -> bool {
        self.expires_at.is_none_or(|expiry| event_time < expiry)
    }
}
