//! Alerts: those that the ledger tells of, those in their topic, and those that ClickHouse has.
//!
//! Compared wallet by wallet, by sums of hashes: memory is bounded by the wallets of a shard. Where those of a wallet
//! differ, the topics are read again for it, alert by alert.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh64::xxh64;

use super::entry::LedgerRecordView;
use super::fold::ShardFold;
use super::report::{Check, Difference, NAMED_MAX};
use super::stored::AlertRow;
use super::{Verification, VerifyError};
use crate::alert::{Alert, AlertKind};
use crate::kafka::{RecordView, Stretch};
use crate::wallet::Level;

/// How many alerts, and the sum of their hashes modulo 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub alerts: u64,
    /// The sum.
    pub hash: u64,
}

impl Totals {
    fn add(&mut self, hash: u64) {
        self.alerts += 1;
        self.hash = self.hash.wrapping_add(hash);
    }
}

/// Totals by wallet.
pub type ByWallet = FxHashMap<Box<str>, Totals>;

/// What an alert says that the ledger says too.
struct Told<'a> {
    alert_id: &'a str,
    kind: AlertKind,
    level: Level,
    level_before: Option<Level>,
    seq: u64,
    raised_at_ms: i64,
    available: i64,
    amount: i64,
    job_id: &'a str,
}

impl Told<'_> {
    fn hash(&self, wallet_id: &str, text: &mut String) -> u64 {
        let Told { alert_id, kind, level, level_before, seq, raised_at_ms, available, amount, job_id } = self;
        text.clear();
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "{wallet_id}\t{alert_id}\t{}\t{}\t{}\t{seq}\t{raised_at_ms}\t{available}\t{amount}\t{job_id}",
            kind.as_str(),
            level.as_str(),
            level_before.map_or("", Level::as_str),
        );
        xxh64(text.as_bytes(), 0)
    }
}

/// All that a row of ClickHouse has of an alert, as it makes the same text. Its xxHash64 is the second of [`hashes`].
pub const HASH_SQL: &str = "xxHash64(concat(wallet_id, '\\t', alert_id, '\\t', kind, '\\t', level, '\\t', level_before, '\\t', toString(seq), \
    '\\t', toString(toUnixTimestamp64Milli(raised_at)), '\\t', toString(available), '\\t', toString(amount), '\\t', job_id, '\\t', \
    toString(allocation), '\\t', plan, '\\t', toString(days), '\\t', \
    ifNull(toString(toUnixTimestamp64Milli(expires_at)), ''), '\\t', contract_id))";

/// Hash of what an alert says that the ledger says too, and that of all of it.
fn hashes(alert: &Alert<'_>, text: &mut String) -> (u64, u64) {
    let told = Told {
        alert_id: &alert.alert_id,
        kind: alert.kind,
        level: alert.level,
        level_before: alert.level_before,
        seq: alert.seq,
        raised_at_ms: alert.raised_at.millis(),
        available: alert.available,
        amount: alert.amount.unwrap_or(0),
        job_id: &alert.job_id,
    };
    let of_told = told.hash(&alert.wallet_id, text);
    let expires_at = alert.expires_at.map_or(String::new(), |at| at.millis().to_string());
    let _ = write!(
        text,
        "\t{}\t{}\t{}\t{expires_at}\t{}",
        alert.allocation,
        alert.plan,
        alert.days.unwrap_or(0),
        alert.contract_id
    );
    (of_told, xxh64(text.as_bytes(), 0))
}

/// Shows `each` the alerts that a ledger record tells of: id, seq, hash. By the published rules alone: a level that is
/// another one after the record, and notes without an event that name a warning.
fn each_told(
    record: &LedgerRecordView<'_>,
    level_before: Level,
    text: &mut String,
    mut each: impl FnMut(&str, u64, u64),
) {
    let wallet_id = &*record.wallet_id;
    let Some(last) = record.entries.last() else { return };
    let available = last.balance_after.saturating_sub(last.held_after);
    let mut alert_id = String::new();
    if last.level != level_before {
        let _ = write!(alert_id, "{wallet_id}:{}:{}", last.level.as_str(), last.seq);
        let told = Told {
            alert_id: &alert_id,
            kind: AlertKind::Level,
            level: last.level,
            level_before: Some(level_before),
            seq: last.seq,
            raised_at_ms: last.posted_at.millis(),
            available,
            amount: 0,
            job_id: "",
        };
        each(&alert_id, last.seq, told.hash(wallet_id, text));
    }
    for entry in &record.entries {
        let is_warning = entry.entry_type == "noted" && entry.event_type.is_empty();
        let kinds = AlertKind::ALL.into_iter().filter(|kind| is_warning && *kind != AlertKind::Level);
        let Some(kind) = kinds.into_iter().find(|kind| kind.as_str() == entry.reason) else { continue };
        alert_id.clear();
        let _ = write!(alert_id, "{wallet_id}:{}:{}", kind.as_str(), entry.seq);
        let told = Told {
            alert_id: &alert_id,
            kind,
            level: entry.level,
            level_before: None,
            seq: entry.seq,
            raised_at_ms: entry.posted_at.millis(),
            available,
            amount: entry.amount,
            job_id: &entry.job_id,
        };
        each(&alert_id, entry.seq, told.hash(wallet_id, text));
    }
}

/// The alerts that a shard's ledger tells of.
#[derive(Default)]
pub struct LedgerAlerts {
    /// Records from this offset on are not settled everywhere: their alerts are not compared.
    cut: i64,
    told: ByWallet,
    /// Of each wallet with such records the first of their entries.
    beyond: FxHashMap<Box<str>, u64>,
    text: String,
}

impl LedgerAlerts {
    /// Takes in a record whose entries count.
    pub fn add(&mut self, record: &LedgerRecordView<'_>, offset: i64, level_before: Level) {
        let Some(first) = record.entries.first() else { return };
        if offset >= self.cut {
            self.beyond.entry((&*record.wallet_id).into()).or_insert(first.seq);
            return;
        }
        let (told, text) = (&mut self.told, &mut self.text);
        each_told(record, level_before, text, |_, _, hash| add(told, &record.wallet_id, hash));
    }
}

fn add(totals: &mut ByWallet, wallet_id: &str, hash: u64) {
    match totals.get_mut(wallet_id) {
        Some(of) => of.add(hash),
        None => totals.entry(wallet_id.into()).or_default().add(hash),
    }
}

/// Ends of a shard's topics, asked in this order, before the ledger is read: every alert of an entry below the first stands
/// below the last, and the entry of every alert below the settled end stands in the ledger that is read.
#[derive(Clone, Copy)]
pub struct Ends {
    ledger: i64,
    alerts_settled: i64,
    alerts: Stretch,
}

impl Ends {
    /// For a fold that takes in the ledger now.
    pub fn fold(&self) -> LedgerAlerts {
        LedgerAlerts { cut: self.ledger, ..LedgerAlerts::default() }
    }

    /// Whether an alert is newer than what the ledger was read for.
    fn is_ahead(&self, fold: &ShardFold, wallet_id: &str, seq: u64, offset: i64) -> bool {
        let beyond = fold.alerts.as_ref().and_then(|alerts| alerts.beyond.get(wallet_id));
        offset >= self.alerts.to
            || beyond.is_some_and(|first| seq >= *first)
            || (offset >= self.alerts_settled && seq > fold.last_seq(wallet_id))
    }
}

/// Alerts of one wallet in the topic: those that the ledger must tell of, those that the sink has written, all.
#[derive(Clone, Copy, Default)]
struct InTopic {
    settled: Totals,
    written: Totals,
    all: Totals,
}

/// An alert in the topic: first offset, entry, both hashes, and whether the ledger must tell of it.
struct Found {
    offset: i64,
    seq: u64,
    hash: u64,
    hash_of_all: u64,
    is_settled: bool,
}

/// Wallet and alert.
type Id = (String, String);

impl Verification {
    /// Asks how far the topics go.
    pub(super) fn alert_ends(&self, shard: i32) -> Result<Ends, VerifyError> {
        let topics = &self.common.config.topics;
        let ledger = self.reader.stable(&topics.ledger, shard)?;
        let alerts_settled = self.reader.stable(&topics.alerts, shard)?;
        Ok(Ends { ledger, alerts_settled, alerts: self.reader.whole(&topics.alerts, shard)? })
    }

    /// A shard's alerts in all three places. The rows were asked for before the ends.
    pub(super) async fn compare_alerts(
        &mut self,
        shard: i32,
        fold: &ShardFold,
        ends: Ends,
        rows: ByWallet,
    ) -> Result<(), VerifyError> {
        let Some(ledger) = &fold.alerts else { return Ok(()) };
        if ends.alerts.from > 0 || self.found.cut.contains(&shard) {
            self.found.notes.push(format!(
                "shard {shard}: the alerts or the ledger do not begin at offset 0: alerts are not compared"
            ));
            return Ok(());
        }
        let position = self.common.alert_positions.get(&shard).copied().unwrap_or(0);
        let topic = tokio::task::block_in_place(|| self.sum_alerts(shard, fold, ends, position))?;
        self.found.alerts.compared += ledger.told.values().map(|of| of.alerts).sum::<u64>();
        let (mut of_ledger, mut of_clickhouse) = (BTreeSet::new(), BTreeSet::new());
        let wallets: BTreeSet<&str> =
            ledger.told.keys().chain(topic.keys()).chain(rows.keys()).map(|wallet_id| &**wallet_id).collect();
        for wallet_id in wallets {
            let in_topic = topic.get(wallet_id).copied().unwrap_or_default();
            let told = ledger.told.get(wallet_id).copied().unwrap_or_default();
            let stored = rows.get(wallet_id).copied().unwrap_or_default();
            if told != in_topic.settled && is_looked_at(&mut self.found.alerts, &of_ledger, shard, wallet_id)
            {
                of_ledger.insert(wallet_id.to_owned());
            }
            if stored != in_topic.written
                && stored != in_topic.all
                && is_looked_at(&mut self.found.clickhouse, &of_clickhouse, shard, wallet_id)
            {
                of_clickhouse.insert(wallet_id.to_owned());
            }
        }
        if !of_ledger.is_empty() {
            tokio::task::block_in_place(|| self.compare_told(shard, fold, ends, &of_ledger))?;
        }
        if !of_clickhouse.is_empty() {
            self.compare_stored(shard, fold, ends, position, &of_clickhouse).await?;
        }
        Ok(())
    }

    fn sum_alerts(
        &mut self,
        shard: i32,
        fold: &ShardFold,
        ends: Ends,
        position: i64,
    ) -> Result<FxHashMap<Box<str>, InTopic>, VerifyError> {
        let mut topic: FxHashMap<Box<str>, InTopic> = FxHashMap::default();
        let (mut text, check) = (String::new(), &mut self.found.alerts);
        self.reader.read(&self.common.config.topics.alerts, &[ends.alerts], |record| {
            let alert = match serde_json::from_slice::<Alert<'_>>(record.value.unwrap_or_default()) {
                Ok(alert) => alert,
                Err(error) => {
                    let what = format!(
                        "the record at offset {} of the alerts cannot be read: {error}",
                        record.offset
                    );
                    return check.differs(difference(shard, None, what));
                }
            };
            let (of_told, of_all) = hashes(&alert, &mut text);
            let of = topic.entry((&*alert.wallet_id).into()).or_default();
            of.all.add(of_all);
            if record.offset < position {
                of.written.add(of_all);
            }
            if !ends.is_ahead(fold, &alert.wallet_id, alert.seq, record.offset) {
                of.settled.add(of_told);
            }
        })?;
        Ok(topic)
    }

    /// The alerts of some wallets up to an end, by their ids; what stands there again is shown to `again`.
    fn find_alerts(
        &self,
        fold: &ShardFold,
        ends: Ends,
        stretch: Stretch,
        wallets: &BTreeSet<String>,
        mut again: impl FnMut(&Id, &Found),
    ) -> Result<BTreeMap<Id, Found>, VerifyError> {
        let mut topic: BTreeMap<Id, Found> = BTreeMap::new();
        let mut text = String::new();
        self.reader.read(&self.common.config.topics.alerts, &[stretch], |record| {
            let alert = serde_json::from_slice::<Alert<'_>>(record.value.unwrap_or_default());
            let Ok(alert) = alert.map_err(drop) else { return };
            if !wallets.contains(&*alert.wallet_id) {
                return;
            }
            let (hash, hash_of_all) = hashes(&alert, &mut text);
            let is_settled = !ends.is_ahead(fold, &alert.wallet_id, alert.seq, record.offset);
            let found = Found { offset: record.offset, seq: alert.seq, hash, hash_of_all, is_settled };
            let id = (alert.wallet_id.into_owned(), alert.alert_id.into_owned());
            match topic.entry(id) {
                Entry::Vacant(first) => {
                    first.insert(found);
                }
                Entry::Occupied(first) => again(first.key(), &found),
            }
        })?;
        Ok(topic)
    }

    /// Ledger and topic, alert by alert.
    fn compare_told(
        &mut self,
        shard: i32,
        fold: &ShardFold,
        ends: Ends,
        wallets: &BTreeSet<String>,
    ) -> Result<(), VerifyError> {
        let mut told: BTreeMap<Id, (u64, u64)> = BTreeMap::new();
        let mut last: FxHashMap<Box<str>, (u64, Level)> = FxHashMap::default();
        let mut text = String::new();
        let ledger = Stretch { partition: shard, from: 0, to: ends.ledger };
        self.reader.read(&self.common.config.topics.ledger, &[ledger], |record| {
            if !key_of(record).is_some_and(|wallet_id| wallets.contains(wallet_id)) {
                return;
            }
            let read = LedgerRecordView::decode(record.value.unwrap_or_default());
            let Ok(record) = read.map_err(drop) else { return };
            let before = last.entry((&*record.wallet_id).into()).or_default();
            // A double is passed over: the first one counts.
            let Some(entry) = record.entries.last().filter(|entry| entry.seq > before.0) else { return };
            each_told(&record, before.1, &mut text, |alert_id, seq, hash| {
                told.insert((record.wallet_id.clone().into_owned(), alert_id.to_owned()), (seq, hash));
            });
            *before = (entry.seq, entry.level);
        })?;
        let mut doubles = Vec::new();
        let mut topic = self.find_alerts(fold, ends, ends.alerts, wallets, |id, found| {
            doubles.push((id.clone(), found.seq, found.offset));
        })?;
        let mut differs = |(wallet_id, alert_id): &Id, seq: u64, what: &str| {
            let what = format!("alert {alert_id}: {what}");
            self.found
                .alerts
                .differs(Difference { seq: Some(seq), ..difference(shard, Some(wallet_id), what) });
        };
        for (id, (seq, hash)) in &told {
            match topic.remove(id) {
                Some(found) if found.hash == *hash => {}
                Some(_) => differs(id, *seq, "the topic has it otherwise than its entry"),
                None => differs(id, *seq, "the topic does not have it"),
            }
        }
        for (id, found) in topic.iter().filter(|(_, found)| found.is_settled) {
            differs(id, found.seq, "the topic has it, but no entry tells of it");
        }
        for (id, seq, offset) in &doubles {
            differs(id, *seq, &format!("it stands in the topic twice, the second time at offset {offset}"));
        }
        Ok(())
    }

    /// Topic and ClickHouse, alert by alert. Rows are asked for again, and then the topic is read to its end.
    async fn compare_stored(
        &mut self,
        shard: i32,
        fold: &ShardFold,
        ends: Ends,
        position: i64,
        wallets: &BTreeSet<String>,
    ) -> Result<(), VerifyError> {
        let names: Vec<String> = wallets.iter().cloned().collect();
        let rows = self.common.stored.alerts(&names).await?;
        let topic = tokio::task::block_in_place(|| {
            let whole = self.reader.whole(&self.common.config.topics.alerts, shard)?;
            self.find_alerts(fold, ends, whole, wallets, |_, _| {})
        })?;
        let mut rows: BTreeMap<Id, (u64, u64)> = rows
            .into_iter()
            .map(|AlertRow { wallet_id, alert_id, seq, hash }| ((wallet_id, alert_id), (seq, hash)))
            .collect();
        let (check, to_mend) = (&mut self.found.clickhouse, &mut self.found.to_mend);
        let mut differs = |(wallet_id, alert_id): &Id, seq: u64, what: &str| {
            let what = format!("alert {alert_id}: {what}");
            check.differs(Difference { seq: Some(seq), ..difference(shard, Some(wallet_id), what) });
        };
        for (id, found) in &topic {
            match rows.remove(id) {
                Some((_, hash)) if hash == found.hash_of_all => {}
                Some(_) => {
                    differs(id, found.seq, "clickhouse has it otherwise");
                    to_mend.add_extra_alert(id.clone());
                    to_mend.add_alert(shard, found.offset);
                }
                None if found.offset < position => {
                    differs(id, found.seq, "clickhouse does not have it");
                    to_mend.add_alert(shard, found.offset);
                }
                None => {}
            }
        }
        for (id, (seq, _)) in rows {
            differs(&id, seq, "clickhouse has it, the topic does not");
            to_mend.add_extra_alert(id);
        }
        Ok(())
    }
}

/// Whether the alerts of a wallet that differ are looked at one by one; if there are too many such wallets it is counted.
fn is_looked_at(check: &mut Check, so_far: &BTreeSet<String>, shard: i32, wallet_id: &str) -> bool {
    if so_far.len() >= NAMED_MAX {
        check.differs(difference(shard, Some(wallet_id), "its alerts differ".to_owned()));
        return false;
    }
    true
}

fn difference(shard: i32, wallet_id: Option<&str>, what: String) -> Difference {
    let place = format!("shard {shard}");
    Difference { place, wallet_id: wallet_id.map(str::to_owned), seq: None, what, records: 1, credits: 0 }
}

fn key_of<'r>(record: &RecordView<'r>) -> Option<&'r str> {
    std::str::from_utf8(record.key?).ok()
}

/// The alerts that a ledger record tells of: id and hash.
#[cfg(test)]
pub fn told_by(record: &str, level_before: Level) -> Vec<(String, u64)> {
    let record = serde_json::from_str(record).unwrap_or_else(|error| panic!("{error}"));
    let (mut told, mut text) = (Vec::new(), String::new());
    each_told(&record, level_before, &mut text, |alert_id, _, hash| told.push((alert_id.to_owned(), hash)));
    told
}

/// The same of an alert.
#[cfg(test)]
pub fn told_in(alert: &str) -> (String, u64) {
    let alert: Alert<'_> = serde_json::from_str(alert).unwrap_or_else(|error| panic!("{error}"));
    let (hash, _) = hashes(&alert, &mut String::new());
    (alert.alert_id.into_owned(), hash)
}
