//! From records to rows: one batch of records becomes at most one block per table.
//!
//! **Invariant:** rows are absolute and keyed, so that writing a record twice is as writing it once; within
//! a batch a key of `usage_hourly`, `wallets` and `grants` is written once, with its last state. The same
//! records give the same blocks. A record that cannot be read stops its partition *before* it: nothing is
//! skipped. Pure: no clock, no I/O.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use compact_str::CompactString;
use hashbrown::HashMap;
use serde::Deserialize;
use thiserror::Error;

use super::block::Block;
use super::guard::{Contradiction, FoldGuard, Verdict};
use super::quarantined;
use super::record::{Record, Source, SourcePartition};
use super::tables;
use crate::alert::{ALERT_FORMAT, Alert};
use crate::config::TopicsConfig;
use crate::rate::AssetType;
use crate::wallet::{
    BucketTotals, Entry, GrantState, LEDGER_FORMAT, LedgerRecord, Level, SNAPSHOT_FORMAT, WalletSnapshot,
};

/// What a batch of records comes to.
#[derive(Debug, Default)]
pub struct Rows {
    /// Blocks with at least one row.
    pub blocks: Vec<Block>,
    /// For each partition the offset after the last record that the blocks cover.
    pub positions: BTreeMap<SourcePartition, i64>,
    /// Partitions that cannot go on.
    pub stops: Vec<Stop>,
    /// Entries passed over because the ledger holds them twice.
    pub doubles: u64,
}

/// A partition that cannot go on, and why.
#[derive(Debug)]
pub struct Stop {
    /// The partition.
    pub of: SourcePartition,
    /// The record at which it stands.
    pub offset: i64,
    /// Why.
    pub reason: RecordError,
}

/// A record that cannot become rows.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Not what the ledger stage writes.
    #[error("the value is not a record that the ledger stage writes: {0}; find out who wrote it")]
    Malformed(#[from] serde_json::Error),
    /// A tombstone where there can be none.
    #[error(
        "the record has no value, but ledger entries and alerts are never deleted; find out who wrote it"
    )]
    NoValue,
    /// Written by a newer version.
    #[error(
        "the record has format {found}, this sink reads up to {known}: start a newer version of creditstream"
    )]
    NewerFormat {
        /// The format of the record.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// A number that its column cannot hold.
    #[error("{column} = {value} does not fit its column; lower the limit in [events] and correct the entry")]
    DoesNotFit {
        /// The column.
        column: &'static str,
        /// The value.
        value: i128,
    },
    /// Entries missing or in another order.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// Key of a rollup bucket, borrowed from the records.
#[derive(PartialEq, Eq, Hash)]
struct UsageKey<'r> {
    wallet_id: Cow<'r, str>,
    hour: u32,
    asset_type: Option<AssetType>,
    model: Cow<'r, str>,
    plan: CompactString,
    part: u64,
}

struct Usage {
    totals: BucketTotals,
    video_seconds: i64,
    seq: u64,
}

struct Builder<'r> {
    ledger: Block,
    alerts: Block,
    quarantined: Block,
    usage: HashMap<UsageKey<'r>, Usage>,
    snapshots: HashMap<&'r [u8], &'r Record>,
    doubles: u64,
}

/// Turns records into rows. Records of `stopped` partitions are left out; the guard learns what counted.
pub fn build(
    records: &[Record],
    topics: &TopicsConfig,
    guard: &mut FoldGuard,
    stopped: &HashSet<SourcePartition>,
) -> Rows {
    let mut builder = Builder::new();
    let mut stopped = stopped.clone();
    let mut rows = Rows::default();
    for record in records {
        if stopped.contains(&record.from) {
            continue;
        }
        if let Err(reason) = builder.add(record, topics, guard) {
            stopped.insert(record.from);
            rows.stops.push(Stop { of: record.from, offset: record.offset, reason });
            continue;
        }
        rows.positions.insert(record.from, record.offset.saturating_add(1));
    }
    builder.finish(&mut rows);
    rows
}

/// The wallets of these records that the guard has not met. The key of a ledger record is its wallet's id.
pub fn wallets_to_meet<'r>(records: &'r [Record], guard: &FoldGuard) -> HashSet<&'r str> {
    let ledger = records.iter().filter(|record| record.from.source == Source::Ledger);
    let keys = ledger.filter_map(|record| std::str::from_utf8(&record.key).ok());
    keys.filter(|wallet_id| !guard.has_met(wallet_id)).collect()
}

impl<'r> Builder<'r> {
    fn new() -> Builder<'r> {
        Builder {
            ledger: Block::new(&tables::LEDGER_ENTRIES),
            alerts: Block::new(&tables::ALERTS),
            quarantined: Block::new(&tables::QUARANTINED_EVENTS),
            usage: HashMap::new(),
            snapshots: HashMap::new(),
            doubles: 0,
        }
    }

    fn add(
        &mut self,
        record: &'r Record,
        topics: &TopicsConfig,
        guard: &mut FoldGuard,
    ) -> Result<(), RecordError> {
        match record.from.source {
            Source::Ledger => self.add_entries(record, guard),
            Source::Wallets => {
                // The last one in its partition is the newest. A tombstone changes nothing: a wallet stays.
                if record.value.is_some() {
                    self.snapshots.insert(&record.key, record);
                }
                Ok(())
            }
            Source::Alerts => append_alert(&mut self.alerts, record),
            Source::Quarantine => {
                quarantined::append(&mut self.quarantined, record, &topics.quarantine);
                Ok(())
            }
        }
    }

    fn add_entries(&mut self, record: &'r Record, guard: &mut FoldGuard) -> Result<(), RecordError> {
        let value = record.value.as_deref().ok_or(RecordError::NoValue)?;
        check_format(value, LEDGER_FORMAT)?;
        let ledger_record: LedgerRecord<'r> = LedgerRecord::decode(value)?;
        for entry in &ledger_record.entries {
            match guard.check(&ledger_record.wallet_id, entry.seq, record.offset)? {
                Verdict::Double => self.doubles += 1,
                Verdict::Counts => {
                    append_entry(&mut self.ledger, &ledger_record.wallet_id, entry, record)?;
                    self.add_usage(&ledger_record, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps the last totals of the entry's bucket.
    fn add_usage(&mut self, record: &LedgerRecord<'r>, entry: &Entry<'r>) -> Result<(), RecordError> {
        let Some(totals) = entry.bucket else { return Ok(()) };
        let hour = totals.hour.millis().div_euclid(1000);
        let hour = u32::try_from(hour).map_err(|_| does_not_fit("hour", hour))?;
        let video_seconds = totals.video_seconds.0;
        let video_seconds =
            i64::try_from(video_seconds).map_err(|_| does_not_fit("video_seconds", video_seconds))?;
        let key = UsageKey {
            wallet_id: record.wallet_id.clone(),
            hour,
            asset_type: entry.asset_type,
            model: entry.model.clone(),
            plan: entry.plan.clone(),
            part: totals.part,
        };
        self.usage.insert(key, Usage { totals, video_seconds, seq: entry.seq });
        Ok(())
    }

    fn finish(self, rows: &mut Rows) {
        let mut wallets = Block::new(&tables::WALLETS);
        let mut grants = Block::new(&tables::GRANTS);
        // By position, so that the same records give the same bytes.
        let mut snapshots: Vec<&Record> = self.snapshots.into_values().collect();
        snapshots.sort_unstable_by_key(|record| (record.from.partition, record.offset));
        for record in snapshots {
            if let Err(reason) = append_snapshot(&mut wallets, &mut grants, record) {
                rows.positions.remove(&record.from);
                rows.stops.push(Stop { of: record.from, offset: record.offset, reason });
            }
        }
        let usage = usage_block(self.usage);
        let blocks = [self.ledger, usage, wallets, grants, self.alerts, self.quarantined];
        rows.blocks = blocks.into_iter().filter(|block| block.rows() > 0).collect();
        rows.doubles = self.doubles;
    }
}

/// The format of a record may be older, never newer.
fn check_format(value: &[u8], known: u32) -> Result<(), RecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    // Read only where it matters: `v` is the first field of what the ledger stage writes.
    let is_known = value.starts_with(format!("{{\"v\":{known},").as_bytes());
    if !is_known {
        let Versioned { v: found } = serde_json::from_slice(value)?;
        if found > known {
            return Err(RecordError::NewerFormat { found, known });
        }
    }
    Ok(())
}

fn does_not_fit(column: &'static str, value: impl Into<i128>) -> RecordError {
    RecordError::DoesNotFit { column, value: value.into() }
}

fn append_entry(
    block: &mut Block,
    wallet_id: &str,
    entry: &Entry<'_>,
    record: &Record,
) -> Result<(), RecordError> {
    let video_seconds = i32::try_from(entry.video_seconds.0)
        .ok()
        .filter(|thousandths| *thousandths < 1_000_000_000)
        .ok_or_else(|| does_not_fit("video_seconds", entry.video_seconds.0))?;
    let rate = entry.rate.map_or(0, |rate| rate.0);
    let rate = i64::try_from(rate).map_err(|_| does_not_fit("rate", rate))?;

    let mut row = block.row();
    row.text("wallet_id", wallet_id);
    row.u64("seq", entry.seq);
    row.text("entry_type", entry.entry_type.as_str());
    row.i64("credits", entry.credits);
    row.i64("held_credits", entry.held_credits);
    row.i64("amount", entry.amount);
    row.time("posted_at", entry.posted_at);
    row.time("event_time", entry.event_time);
    row.text("event_type", &entry.event_type);
    row.text("source", &entry.source);
    row.text("event_id", &entry.event_id);
    row.text("job_id", &entry.job_id);
    row.text("asset_id", &entry.asset_id);
    row.text("asset_type", entry.asset_type.map_or("", AssetType::as_str));
    row.text("model", &entry.model);
    row.text("user_id", &entry.user_id);
    row.text("project_id", &entry.project_id);
    row.u32("images", entry.images);
    row.decimal32("video_seconds", video_seconds);
    row.text("rate_card", &entry.rate_card);
    row.decimal64("rate", rate);
    row.list("grant_effects", entry.grant_effects.iter(), |field, effect| {
        field.text("grant_id", &effect.grant_id);
        field.text("kind", effect.kind.as_str());
        field.i64("credits", effect.credits);
        field.i64("remaining_after", effect.remaining_after);
        field.time_or_null("expires_at", effect.expires_at);
    });
    row.i64("balance_after", entry.balance_after);
    row.i64("held_after", entry.held_after);
    row.i64("overdraft_after", entry.overdraft_after);
    row.text("level", entry.level.as_str());
    row.text("plan", &entry.plan);
    row.text("contract_id", &entry.contract_id);
    row.day_or_null("period_start", entry.period_start);
    row.decimal64("amount_usd", entry.amount_usd.0);
    row.text("reason", &entry.reason);
    row.text("actor", &entry.actor);
    row.text("reference", &entry.reference);
    row.text("origin_topic", &entry.origin_topic);
    row.i32("origin_partition", entry.origin_partition);
    row.i64("origin_offset", entry.origin_offset);
    row.i32("ledger_partition", record.from.partition);
    row.i64("ledger_offset", record.offset);
    row.u64("fingerprint", entry.fingerprint.0);
    row.text("business_id", &entry.business_id);
    row.end();
    Ok(())
}

fn usage_block(usage: HashMap<UsageKey<'_>, Usage>) -> Block {
    let mut block = Block::new(&tables::USAGE_HOURLY);
    let mut buckets: Vec<_> = usage.into_iter().collect();
    // In the order of the table's key but for the last columns, and always the same: seq is unique per wallet.
    buckets.sort_unstable_by(|(a, one), (b, other)| (&a.wallet_id, one.seq).cmp(&(&b.wallet_id, other.seq)));
    for (key, Usage { totals, video_seconds, seq }) in &buckets {
        let mut row = block.row();
        row.text("wallet_id", &key.wallet_id);
        row.seconds("hour", key.hour);
        row.text("asset_type", key.asset_type.map_or("", AssetType::as_str));
        row.text("model", &key.model);
        row.text("plan", &key.plan);
        row.u64("jobs", totals.jobs);
        row.u64("part", key.part);
        row.u64("images", totals.images);
        row.decimal64("video_seconds", *video_seconds);
        row.i64("credits_charged", totals.credits_charged);
        row.i64("credits_reversed", totals.credits_reversed);
        row.i64("credits_refused", totals.credits_refused);
        row.u64("seq", *seq);
        row.end();
    }
    block
}

fn append_snapshot(wallets: &mut Block, grants: &mut Block, record: &Record) -> Result<(), RecordError> {
    let value = record.value.as_deref().ok_or(RecordError::NoValue)?;
    check_format(value, SNAPSHOT_FORMAT)?;
    let wallet = WalletSnapshot::decode(value)?;
    let mut row = wallets.row();
    row.text("wallet_id", &wallet.wallet_id);
    row.text("plan", &wallet.plan);
    row.text("contract_id", &wallet.contract_id);
    row.i64("balance", wallet.balance);
    row.i64("held", wallet.held);
    row.i64("available", wallet.available);
    row.i64("overdraft", wallet.overdraft);
    row.i64("plan_credits", wallet.plan_credits);
    row.i64("topup_credits", wallet.topup_credits);
    row.i64("adjustment_credits", wallet.adjustment_credits);
    row.i64("allocation", wallet.allocation);
    row.text("level", wallet.level.as_str());
    row.time_or_null("next_allocation_at", wallet.next_allocation_at);
    row.time_or_null("term_started_at", wallet.term_started_at);
    row.time_or_null("term_ends_at", wallet.term_ends_at);
    row.time("first_seen_at", wallet.first_seen_at);
    row.time("updated_at", wallet.updated_at);
    row.u64("seq", wallet.seq);
    row.end();
    for grant in &wallet.grants {
        // The snapshot's seq, not the grant's own: a later snapshot always wins, whatever it changed.
        append_grant(grants, &wallet.wallet_id, grant, wallet.seq);
    }
    Ok(())
}

fn append_alert(block: &mut Block, record: &Record) -> Result<(), RecordError> {
    let value = record.value.as_deref().ok_or(RecordError::NoValue)?;
    check_format(value, ALERT_FORMAT)?;
    let alert: Alert<'_> = serde_json::from_slice(value)?;
    let mut row = block.row();
    row.text("wallet_id", &alert.wallet_id);
    row.text("alert_id", &alert.alert_id);
    row.text("kind", alert.kind.as_str());
    row.text("level", alert.level.as_str());
    row.text("level_before", alert.level_before.map_or("", Level::as_str));
    row.u64("seq", alert.seq);
    row.time("raised_at", alert.raised_at);
    row.i64("available", alert.available);
    row.i64("allocation", alert.allocation);
    row.text("plan", &alert.plan);
    row.i64("amount", alert.amount.unwrap_or(0));
    row.u16("days", alert.days.unwrap_or(0));
    row.time_or_null("expires_at", alert.expires_at);
    row.text("contract_id", &alert.contract_id);
    row.text("job_id", &alert.job_id);
    row.end();
    Ok(())
}

/// A row of `grants`; `seq`: the entry of the wallet up to which it is right.
pub fn append_grant(grants: &mut Block, wallet_id: &str, grant: &GrantState<'_>, seq: u64) {
    let mut row = grants.row();
    row.text("wallet_id", wallet_id);
    row.text("grant_id", &grant.grant_id);
    row.text("kind", grant.kind.as_str());
    row.i64("credits_granted", grant.credits_granted);
    row.i64("credits_remaining", grant.credits_remaining);
    row.i64("credits_repaid", grant.credits_repaid);
    row.u16("priority", grant.priority);
    row.time("granted_at", grant.granted_at);
    row.time_or_null("expires_at", grant.expires_at);
    row.text("contract_id", &grant.contract_id);
    row.decimal64("amount_usd", grant.amount_usd.0);
    row.u64("seq", seq);
    row.end();
}
