//! One alert, as it stands in `credits.alerts` and as a webhook's body (config/schemas/alert.schema.json).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::wallet::Level;

/// Version of the record.
pub const ALERT_FORMAT: u32 = 1;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// The level changed.
    Level,
    /// At the present pace the credits end soon.
    Runway,
    /// Credits expire soon.
    Expiring,
    /// An overdraft is not paid.
    OverdraftUnpaid,
    /// A reservation was neither used nor released in time.
    HoldTimedOut,
}

/// One alert. Key of its record: the wallet id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert<'a> {
    /// [`ALERT_FORMAT`].
    pub v: u32,
    /// Wallet.
    #[serde(borrow)]
    pub wallet_id: Cow<'a, str>,
    /// `<wallet>:<kind or level>:<seq>`: the same alert has the same id for ever.
    #[serde(borrow)]
    pub alert_id: Cow<'a, str>,
    /// What it is about.
    pub kind: AlertKind,
    /// Level of the wallet after the entry.
    pub level: Level,
    /// Level before, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_before: Option<Level>,
    /// Entry of the wallet that it was posted with.
    pub seq: u64,
    /// When that entry was posted.
    pub raised_at: Timestamp,
    /// Credits available after the entry.
    pub available: i64,
    /// Credits of the running month's allocation.
    pub allocation: i64,
    /// Plan; empty: none.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub plan: Cow<'a, str>,
    /// Credits that a warning is about: available, about to expire, in overdraft, or released. Absent: a change of level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// `expiring`: days before the expiry for which the warning is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u16>,
    /// `expiring`: when the credits expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// `expiring`: contract of the credits; empty: none.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub contract_id: Cow<'a, str>,
    /// `hold_timed_out`: job of the reservation; empty: none.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub job_id: Cow<'a, str>,
}

impl AlertKind {
    /// All kinds.
    pub const ALL: [AlertKind; 5] = [
        AlertKind::Level,
        AlertKind::Runway,
        AlertKind::Expiring,
        AlertKind::OverdraftUnpaid,
        AlertKind::HoldTimedOut,
    ];

    /// The name in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertKind::Level => "level",
            AlertKind::Runway => "runway",
            AlertKind::Expiring => "expiring",
            AlertKind::OverdraftUnpaid => "overdraft_unpaid",
            AlertKind::HoldTimedOut => "hold_timed_out",
        }
    }
}
