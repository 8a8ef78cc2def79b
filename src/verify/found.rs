//! What was found so far: of a part of the comparison, or of all parts.

use super::clickhouse::Answers;
use super::repair::ToMend;
use super::report::{Between, Check};
use super::stored::Hours;

/// What was found.
pub struct Found {
    /// Sources, books and ledger.
    pub source: Check,
    /// Ledger and wallets.
    pub wallets: Check,
    /// Ledger and ClickHouse.
    pub clickhouse: Check,
    /// Ledger and alerts.
    pub alerts: Check,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
    /// Entries of the ledger that were read.
    pub entries: u64,
    /// What ClickHouse must hold …
    pub hours: Hours,
    /// … and what it answered; nothing, as long as it was not asked.
    pub answers: Answers,
    /// What differs in ClickHouse.
    pub to_mend: ToMend,
    /// Shards whose ledger has lost its beginning.
    pub cut: Vec<i32>,
    /// Shards of whose ledger a cut was accepted.
    pub accepted: Vec<i32>,
}

impl Default for Found {
    /// Nothing yet.
    fn default() -> Found {
        Found {
            source: Check::new(Between::SourceLedger),
            wallets: Check::new(Between::LedgerWallets),
            clickhouse: Check::new(Between::LedgerClickhouse),
            alerts: Check::new(Between::LedgerAlerts),
            notes: Vec::new(),
            entries: 0,
            hours: Hours::new(),
            answers: Answers::default(),
            to_mend: ToMend::default(),
            cut: Vec::new(),
            accepted: Vec::new(),
        }
    }
}

impl Found {
    /// Adds what a later part found. Nothing comes otherwise than if one part had found both, one after the other.
    pub fn append(&mut self, later: Found) {
        let Found {
            source,
            wallets,
            clickhouse,
            alerts,
            notes,
            entries,
            hours,
            answers,
            to_mend,
            cut,
            accepted,
        } = later;
        self.source.append(source);
        self.wallets.append(wallets);
        self.clickhouse.append(clickhouse);
        self.alerts.append(alerts);
        self.notes.extend(notes);
        self.entries += entries;
        self.hours.extend(hours);
        self.answers.hours.extend(answers.hours);
        self.answers.derived = self.answers.derived.take().or(answers.derived);
        self.to_mend.append(to_mend);
        self.cut.extend(cut);
        self.accepted.extend(accepted);
    }
}
