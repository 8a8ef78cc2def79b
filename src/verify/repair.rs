//! Writes to ClickHouse again what differs there, from the topics, and nothing else.
//!
//! Rows are made and inserted as the sink does it: every one is an upsert by key. Grants come from folding the whole
//! ledger of their wallet, for latest states no longer hold those that ended.
//!
//! **Invariant:** deleted is only what the topics do not have, and only where nothing speaks against the topics: a ledger
//! that was cut, or the wrong brokers, must not empty ClickHouse. While it runs, the usage of the wallets that are mended
//! is not to be seen for a moment. Memory is bounded: what is more is left to `rebuild-clickhouse`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::entry::each_entry;
use super::report::Check;
use super::{Told, Verification, VerifyError};
use crate::kafka::{RecordView, Stretch};
use crate::metrics::Metrics;
use crate::sink::block::Block;
use crate::sink::guard::{FoldGuard, Stored as Known};
use crate::sink::insert::{ClickHouse, FrozenInsert};
use crate::sink::record::{Record, Source};
use crate::sink::{rows, tables};
use crate::wallet::{FoldError, LedgerRecord, Wallet};

/// Wallets that are mended at most, those with another state or with other usage.
pub const WALLETS_MAX: usize = 10_000;
/// Ledger records, alerts, and rows without one that are mended at most.
pub const ENTRIES_MAX: usize = 100_000;
/// Offsets that are read and written together.
const OFFSETS_AT_ONCE: i64 = 50_000;
/// Rows of grants that are written together.
const GRANTS_AT_ONCE: u64 = 50_000;

/// What differs. No more is kept than is mended.
#[derive(Default)]
pub struct ToMend {
    /// Ledger records with an entry that is missing or other: shard, offset.
    records: BTreeSet<(i32, i64)>,
    /// Entries that the ledger does not have.
    extra_entries: Vec<(String, u64)>,
    /// Wallets whose state differs: shard, wallet.
    states: BTreeSet<(i32, String)>,
    /// Rows of `wallets` that no state says: wallet, seq.
    extra_states: Vec<(String, u64)>,
    /// Wallets whose usage differs.
    usage: BTreeSet<(i32, String)>,
    /// Alerts that are missing or other: shard, offset in their topic.
    alerts: BTreeSet<(i32, i64)>,
    /// Alerts that their topic does not have, or has otherwise: wallet, alert.
    extra_alerts: Vec<(String, String)>,
}

impl ToMend {
    /// Wallets, and entries and rows, that are kept.
    pub fn kept(&self) -> (usize, usize) {
        let entries = self.records.len() + self.extra_entries.len() + self.extra_states.len();
        let alerts = self.alerts.len() + self.extra_alerts.len();
        (self.states.len() + self.usage.len(), entries + alerts)
    }

    /// Whether more differs than is mended row by row.
    pub fn is_too_much(&self) -> bool {
        let (wallets, entries) = self.kept();
        wallets > WALLETS_MAX || entries > ENTRIES_MAX
    }

    /// Adds what another part of the comparison found. Two parts that each fit may be too much together.
    pub fn append(&mut self, other: ToMend) {
        if self.is_too_much() {
            return;
        }
        let ToMend { records, extra_entries, states, extra_states, usage, alerts, extra_alerts } = other;
        self.records.extend(records);
        self.extra_entries.extend(extra_entries);
        self.states.extend(states);
        self.extra_states.extend(extra_states);
        self.usage.extend(usage);
        self.alerts.extend(alerts);
        self.extra_alerts.extend(extra_alerts);
    }

    /// A ledger record must be written again.
    pub fn add_record(&mut self, shard: i32, offset: i64) {
        if !self.is_too_much() {
            self.records.insert((shard, offset));
        }
    }

    /// An entry must go.
    pub fn add_extra_entry(&mut self, wallet_id: String, seq: u64) {
        if !self.is_too_much() {
            self.extra_entries.push((wallet_id, seq));
        }
    }

    /// A wallet's state and grants must be written again.
    pub fn add_state(&mut self, shard: i32, wallet_id: &str) {
        if !self.is_too_much() {
            self.states.insert((shard, wallet_id.to_owned()));
        }
    }

    /// A row of `wallets` must go.
    pub fn add_extra_state(&mut self, wallet_id: &str, seq: u64) {
        if !self.is_too_much() {
            self.extra_states.push((wallet_id.to_owned(), seq));
        }
    }

    /// An alert must be written again.
    pub fn add_alert(&mut self, shard: i32, offset: i64) {
        if !self.is_too_much() {
            self.alerts.insert((shard, offset));
        }
    }

    /// An alert's row must go, if only for another one.
    pub fn add_extra_alert(&mut self, alert: (String, String)) {
        if !self.is_too_much() {
            self.extra_alerts.push(alert);
        }
    }

    /// A wallet's usage must be written again.
    pub fn add_usage(&mut self, shard: i32, wallet_id: &str) {
        if !self.is_too_much() {
            self.usage.insert((shard, wallet_id.to_owned()));
        }
    }
}

impl Verification {
    /// Mends ClickHouse; how many rows were written or deleted.
    pub(super) async fn repair(&mut self, told: Told<'_>) -> Result<u64, VerifyError> {
        let to_mend = std::mem::take(&mut self.found.to_mend);
        if to_mend.is_too_much() {
            self.found.notes.push(format!(
                "more than {WALLETS_MAX} wallets or {ENTRIES_MAX} entries differ: nothing was repaired; `creditstream rebuild-clickhouse` fills ClickHouse anew"
            ));
            return Ok(0);
        }
        let deletes = match self.doubt() {
            None => true,
            Some(doubt) => {
                self.found.notes.push(format!("nothing was deleted in ClickHouse, only written: {doubt}"));
                false
            }
        };
        let into = ClickHouse::new(&self.common.config.clickhouse, &self.common.config.sink, Metrics::new());
        let mut written = 0;
        if deletes {
            told("repair: rows that no topic has");
            self.common.stored.delete_rows("ledger_entries", &to_mend.extra_entries).await?;
            self.common.stored.delete_rows("wallets", &to_mend.extra_states).await?;
            self.common.stored.delete_alerts(&to_mend.extra_alerts).await?;
            let extra = to_mend.extra_entries.len() + to_mend.extra_states.len() + to_mend.extra_alerts.len();
            written += extra as u64;
            let usage: Vec<String> = to_mend.usage.iter().map(|(_, wallet_id)| wallet_id.clone()).collect();
            self.common.stored.delete_usage(&usage).await?;
        }
        for shard in 0..self.common.shards {
            told(&format!("repair: shard {shard}"));
            written += self.repair_shard(shard, &to_mend, &into, deletes).await?;
        }
        if written > 0 {
            self.common.stored.forget_refreshed_days().await?;
        }
        Ok(written)
    }

    /// Why the topics are not to be trusted with deleting what they do not have.
    fn doubt(&self) -> Option<String> {
        if let Some(shard) = self.found.cut.first() {
            return Some(format!(
                "the ledger of shard {shard} does not begin at offset 0, and what stood there is not known"
            ));
        }
        let are_equal =
            [&self.found.source, &self.found.wallets, &self.found.alerts].into_iter().all(Check::is_equal);
        let doubt = "sources, ledger, wallets and alerts differ among themselves; are these the brokers that ClickHouse was filled from, with the whole ledger?";
        (!are_equal).then(|| doubt.to_owned())
    }

    async fn repair_shard(
        &self,
        shard: i32,
        to_mend: &ToMend,
        into: &ClickHouse,
        deletes: bool,
    ) -> Result<u64, VerifyError> {
        let of_shard = |of: &BTreeSet<(i32, String)>| -> Vec<String> {
            of.iter().filter(|(at, _)| *at == shard).map(|(_, wallet_id)| wallet_id.clone()).collect()
        };
        let offsets: BTreeSet<i64> =
            to_mend.records.range((shard, i64::MIN)..=(shard, i64::MAX)).map(|(_, offset)| *offset).collect();
        let (usage, states) = (of_shard(&to_mend.usage), of_shard(&to_mend.states));
        // Asked before the ledger is read: what is ahead of it then, is in no ledger.
        let grants = self.common.stored.grants(&states).await?;
        let mut ledger = self.reader.whole(&self.common.config.topics.ledger, shard)?;
        if usage.is_empty() && states.is_empty() {
            ledger.from = offsets.first().copied().unwrap_or(ledger.to);
            ledger.to = offsets.last().map_or(ledger.to, |last| last + 1);
        }
        let mut folds: HashMap<String, Wallet> =
            states.iter().map(|wallet_id| (wallet_id.clone(), Wallet::default())).collect();
        let mut last_seqs: HashMap<String, u64> = usage.into_iter().map(|wallet_id| (wallet_id, 0)).collect();
        let is_wanted = |record: &RecordView<'_>| {
            let wallet_id = key_of(record);
            let value = record.value.unwrap_or_default();
            fold_into(&mut folds, wallet_id, value);
            let is_next = last_seqs.get_mut(wallet_id).is_some_and(|last_seq| {
                // What stands in the ledger twice is passed over.
                let (first, last) = seqs(value);
                let is_next = first > *last_seq;
                *last_seq = last.max(*last_seq);
                is_next
            });
            is_next || offsets.contains(&record.offset)
        };
        let mut written = self.rewrite(Source::Ledger, ledger, is_wanted, into).await?;
        if !states.is_empty() {
            let topic = self.reader.whole(&self.common.config.topics.wallets, shard)?;
            let states: HashSet<&str> = states.iter().map(String::as_str).collect();
            let is_wanted = |record: &RecordView<'_>| states.contains(key_of(record));
            written += self.rewrite(Source::Wallets, topic, is_wanted, into).await?;
        }
        let alerts: BTreeSet<i64> =
            to_mend.alerts.range((shard, i64::MIN)..=(shard, i64::MAX)).map(|(_, offset)| *offset).collect();
        if let (Some(first), Some(last)) = (alerts.first(), alerts.last()) {
            let stretch = Stretch { partition: shard, from: *first, to: last + 1 };
            let is_wanted = |record: &RecordView<'_>| alerts.contains(&record.offset);
            written += self.rewrite(Source::Alerts, stretch, is_wanted, into).await?;
        }
        written += write_grants(into, &folds).await?;
        if deletes {
            let surplus = surplus_grants(grants, &folds);
            self.common.stored.delete_grants(&surplus).await?;
            written += surplus.len() as u64;
        }
        Ok(written)
    }

    /// Inserts the rows of the records that are wanted, some at a time; how many.
    async fn rewrite(
        &self,
        source: Source,
        mut left: Stretch,
        mut is_wanted: impl FnMut(&RecordView<'_>) -> bool,
        into: &ClickHouse,
    ) -> Result<u64, VerifyError> {
        let topics = &self.common.config.topics;
        let mut written = 0;
        while left.from < left.to {
            let part = Stretch { to: left.to.min(left.from + OFFSETS_AT_ONCE), ..left };
            let mut records = Vec::new();
            tokio::task::block_in_place(|| {
                self.reader.read(source.topic(topics), &[part], |record| {
                    if is_wanted(record) {
                        records.push(Record::detach(source, record));
                    }
                })
            })?;
            written += write(into, &records, topics).await?;
            left.from = part.to;
        }
        Ok(written)
    }
}

fn key_of<'r>(record: &RecordView<'r>) -> &'r str {
    record.key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
}

/// Numbers of the first and the last entry of a ledger record; 0: it has none.
fn seqs(value: &[u8]) -> (u64, u64) {
    let (mut first, mut last) = (0, 0);
    each_entry(value, |_, entry| {
        first = if first == 0 { entry.seq } else { first };
        last = entry.seq;
    });
    (first, last)
}

/// Folds a ledger record into its wallet, where that is mended. One whose ledger does not fit is mended no further.
fn fold_into(folds: &mut HashMap<String, Wallet>, wallet_id: &str, value: &[u8]) {
    let Some(wallet) = folds.get_mut(wallet_id) else { return };
    let folded = match LedgerRecord::decode(value) {
        // Nothing is forgotten by so long a horizon.
        Ok(record) => wallet.fold_record(&record, i32::MAX).map_err(|error| match error {
            FoldError::Double { .. } => None,
            error => Some(error.to_string()),
        }),
        Err(error) => Err(Some(error.to_string())),
    };
    if let Err(Some(reason)) = folded {
        tracing::warn!(wallet_id, reason, "its grants are not repaired");
        folds.remove(wallet_id);
    }
}

/// Inserts all grants that these wallets ever had; how many.
async fn write_grants(into: &ClickHouse, folds: &HashMap<String, Wallet>) -> Result<u64, VerifyError> {
    let mut written = 0;
    let mut block = Block::new(&tables::GRANTS);
    for (wallet_id, wallet) in folds {
        for grant in wallet.grant_states() {
            rows::append_grant(&mut block, wallet_id, &grant, wallet.seq);
        }
        if block.rows() >= GRANTS_AT_ONCE {
            written += insert(into, &block).await?;
            block = Block::new(&tables::GRANTS);
        }
    }
    Ok(written + insert(into, &block).await?)
}

/// Rows of `grants` that are not in the ledger, or say more than it did after they were asked for.
fn surplus_grants(
    stored: Vec<(String, String, u64)>,
    folds: &HashMap<String, Wallet>,
) -> Vec<(String, String, u64)> {
    let known: HashMap<&str, HashSet<String>> = folds
        .iter()
        .map(|(wallet_id, wallet)| {
            (wallet_id.as_str(), wallet.grant_states().map(|grant| grant.grant_id.into_owned()).collect())
        })
        .collect();
    let is_surplus = |(wallet_id, grant_id, seq): &(String, String, u64)| {
        let (Some(wallet), Some(grants)) = (folds.get(wallet_id), known.get(wallet_id.as_str())) else {
            return false;
        };
        *seq > wallet.seq || !grants.contains(grant_id)
    };
    stored.into_iter().filter(is_surplus).collect()
}

async fn insert(into: &ClickHouse, block: &Block) -> Result<u64, VerifyError> {
    if block.rows() > 0 {
        into.insert(&FrozenInsert::new(block)).await?;
    }
    Ok(block.rows())
}

/// Inserts the rows of these records; how many.
async fn write(
    into: &ClickHouse,
    records: &[Record],
    topics: &crate::config::TopicsConfig,
) -> Result<u64, VerifyError> {
    // The first of the records of each wallet tells where its entries go on; what lies between them is there already.
    let mut lots: Vec<Vec<Record>> = Vec::new();
    let mut next: BTreeMap<Box<[u8]>, (usize, u64)> = BTreeMap::new();
    for record in records {
        let (first, last) = match record.from.source {
            Source::Ledger => seqs(record.value.as_deref().unwrap_or_default()),
            // The last state of a wallet stands.
            _ => (1, 0),
        };
        // Records of a wallet that do not follow upon each other go into different lots.
        let lot = match next.get(&record.key) {
            Some((lot, expected)) if *expected == first => *lot,
            Some((lot, _)) => lot + 1,
            None => 0,
        };
        if lots.len() <= lot {
            lots.resize_with(lot + 1, Vec::new);
        }
        if let Some(lot) = lots.get_mut(lot) {
            lot.push(record.clone());
        }
        next.insert(record.key.clone(), (lot, last + 1));
    }
    let mut written = 0;
    for lot in lots {
        let mut guard = FoldGuard::default();
        for wallet_id in rows::wallets_to_meet(&lot, &FoldGuard::default()) {
            // Whatever comes first is read again, not new.
            guard.learn(wallet_id, Some(Known { seq: u64::MAX, ledger_offset: i64::MAX }));
        }
        let rows = rows::build(&lot, topics, &mut guard, &HashSet::new());
        for stop in &rows.stops {
            tracing::warn!(partition = stop.of.partition, offset = stop.offset, reason = %stop.reason, "not repaired");
        }
        for block in &rows.blocks {
            written += insert(into, block).await?;
        }
    }
    Ok(written)
}
