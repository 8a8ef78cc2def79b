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
    /// `<wallet>:<kind or level>:<epoch>`: the same alert has the same id for ever.
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
}
