//! Writes to ClickHouse again what differs there, from the topics, and nothing else.
//!
//! Rows are made and inserted as the sink does it: every one is an upsert by key. Deleted is only what the topics do not
//! have. While it runs, the usage of the wallets that are mended is not to be seen for a moment.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Told, Verification, VerifyError, fold};
use crate::kafka::{RecordView, Stretch};
use crate::metrics::Metrics;
use crate::sink::guard::{FoldGuard, Stored as Known};
use crate::sink::insert::{ClickHouse, FrozenInsert};
use crate::sink::record::{Record, Source};
use crate::sink::rows;

/// Records that are written together.
const RECORDS_AT_ONCE: usize = 10_000;

/// What differs.
#[derive(Default)]
pub struct ToMend {
    /// Ledger records with an entry that is missing or other: shard, offset.
    pub records: BTreeSet<(i32, i64)>,
    /// Entries that the ledger does not have.
    pub extra_entries: Vec<(String, u64)>,
    /// Wallets whose state differs: shard, wallet.
    pub states: BTreeSet<(i32, String)>,
    /// Wallets whose usage differs.
    pub usage: BTreeSet<(i32, String)>,
}

impl Verification {
    /// Mends ClickHouse; how many rows were written or deleted.
    pub(super) async fn repair(&mut self, told: Told<'_>) -> Result<u64, VerifyError> {
        let to_mend = std::mem::take(&mut self.to_mend);
        let into = ClickHouse::new(&self.config.clickhouse, &self.config.sink, Metrics::new());
        let mut written = to_mend.extra_entries.len() as u64;
        told("repair: entries");
        self.stored.delete_entries(&to_mend.extra_entries).await?;
        let names = |of: &BTreeSet<(i32, String)>| {
            of.iter().map(|(_, wallet_id)| wallet_id.clone()).collect::<Vec<_>>()
        };
        self.stored.delete_wallets("usage_hourly", &names(&to_mend.usage)).await?;
        for table in ["wallets", "grants"] {
            self.stored.delete_wallets(table, &names(&to_mend.states)).await?;
        }
        for shard in 0..self.shards {
            told(&format!("repair: shard {shard}"));
            let of_shard = |of: &BTreeSet<(i32, String)>| -> HashSet<String> {
                of.iter().filter(|(at, _)| *at == shard).map(|(_, wallet_id)| wallet_id.clone()).collect()
            };
            let offsets: BTreeSet<i64> = to_mend
                .records
                .range((shard, i64::MIN)..=(shard, i64::MAX))
                .map(|(_, offset)| *offset)
                .collect();
            let (usage, states) = (of_shard(&to_mend.usage), of_shard(&to_mend.states));
            let ledger = self.gather(Source::Ledger, shard, |record| {
                offsets.contains(&record.offset) || key_in(record, &usage)
            })?;
            let wallets = self.gather(Source::Wallets, shard, |record| key_in(record, &states))?;
            for records in ledger.chunks(RECORDS_AT_ONCE).chain(wallets.chunks(RECORDS_AT_ONCE)) {
                written += write(&into, records, &self.config.topics).await?;
            }
        }
        if written > 0 {
            self.stored.forget_refreshed_days().await?;
        }
        Ok(written)
    }

    /// The records of a shard that are wanted, detached.
    fn gather(
        &self,
        source: Source,
        shard: i32,
        is_wanted: impl Fn(&RecordView<'_>) -> bool,
    ) -> Result<Vec<Record>, VerifyError> {
        let topic = source.topic(&self.config.topics);
        let stretch: Stretch = self.reader.whole(topic, shard)?;
        let mut found = Vec::new();
        let mut seen: HashSet<(Option<Box<[u8]>>, u64)> = HashSet::new();
        tokio::task::block_in_place(|| {
            self.reader.read(topic, &[stretch], |record| {
                if !is_wanted(record) {
                    return;
                }
                let first = first_seq(record.value.unwrap_or_default());
                // A record that stands in the ledger twice: the first one counts.
                let is_double = source == Source::Ledger && !seen.insert((record.key.map(Box::from), first));
                if !is_double {
                    found.push(Record::detach(source, record));
                }
            })
        })?;
        Ok(found)
    }
}

/// Number of the first entry of a ledger record; 0: it has none.
fn first_seq(value: &[u8]) -> u64 {
    let mut first = 0;
    fold::each_entry(value, |_, entry| first = if first == 0 { entry.seq } else { first });
    first
}

fn key_in(record: &RecordView<'_>, wallets: &HashSet<String>) -> bool {
    let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
    key.is_some_and(|key| wallets.contains(key))
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
        let (mut first, mut last) = (0, 0);
        if record.from.source == Source::Ledger {
            fold::each_entry(record.value.as_deref().unwrap_or_default(), |_, entry| {
                first = if first == 0 { entry.seq } else { first };
                last = entry.seq;
            });
        }
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
            written += block.rows();
            into.insert(&FrozenInsert::new(block)).await?;
        }
    }
    Ok(written)
}
