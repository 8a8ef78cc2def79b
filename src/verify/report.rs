//! What was compared, and what differs.

use serde::Serialize;

use crate::time::Timestamp;

/// Differences that are named one by one, for each check; beyond, they are counted.
pub const NAMED_MAX: usize = 1_000;

/// What two places are compared. The names are those of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Between {
    /// Records of the sources, what became of them by the books, and what stands in the ledger and the quarantine.
    SourceLedger,
    /// The entries of each wallet, and its latest state.
    LedgerWallets,
    /// Entries, latest states and alerts, and what ClickHouse answers.
    LedgerClickhouse,
    /// The alerts that entries tell of, and those in their topic. Not watched beside the running service.
    LedgerAlerts,
}

impl Between {
    /// Those that are watched.
    pub const WATCHED: [Between; 3] =
        [Between::SourceLedger, Between::LedgerWallets, Between::LedgerClickhouse];

    /// The label of the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Between::SourceLedger => "source_ledger",
            Between::LedgerWallets => "ledger_wallets",
            Between::LedgerClickhouse => "ledger_clickhouse",
            Between::LedgerAlerts => "ledger_alerts",
        }
    }
}

/// Something that is not the same in two places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: a partition, a shard, an hour.
    pub place: String,
    /// The wallet, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet_id: Option<String>,
    /// The entry, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What was expected, and what is there.
    pub what: String,
    /// Records or entries that differ.
    pub records: u64,
    /// By so many credits, without sign.
    pub credits: u64,
}

/// One comparison.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Which.
    pub between: Between,
    /// Records, wallets, entries or alerts that were compared.
    pub compared: u64,
    /// Records that differ.
    pub drift_records: u64,
    /// Credits that differ, each difference without its sign.
    pub drift_credits: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Check {
    /// Nothing compared yet.
    pub fn new(between: Between) -> Check {
        Check { between, compared: 0, drift_records: 0, drift_credits: 0, differences: Vec::new() }
    }

    /// Adds a difference.
    pub fn differs(&mut self, difference: Difference) {
        self.drift_records += difference.records;
        self.drift_credits = self.drift_credits.saturating_add(difference.credits);
        if self.differences.len() < NAMED_MAX {
            self.differences.push(difference);
        }
    }

    /// Adds what a later part of the same comparison found.
    pub fn append(&mut self, later: Check) {
        self.compared += later.compared;
        self.drift_records += later.drift_records;
        self.drift_credits = self.drift_credits.saturating_add(later.drift_credits);
        let room = NAMED_MAX.saturating_sub(self.differences.len());
        self.differences.extend(later.differences.into_iter().take(room));
    }

    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.drift_records == 0 && self.drift_credits == 0
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether nothing differs.
    pub equal: bool,
    /// Only entries posted from then on; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Only entries posted before then; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// The comparisons.
    pub checks: Vec<Check>,
    /// Entries of the ledger that were read.
    pub entries: u64,
    /// What could not be compared now, and why.
    pub notes: Vec<String>,
    /// Rows that were written again or deleted in ClickHouse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<u64>,
}
