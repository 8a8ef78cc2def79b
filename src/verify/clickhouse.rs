//! What ClickHouse answers against the topics: entries by hour, then entry by entry, latest states, and what other tables
//! derive from both.

use std::collections::HashSet;
use std::time::Duration;

use super::entry::each_entry;
use super::fold::{self, HourTotals, ShardFold, Snapshot};
use super::report::Difference;
use super::stored::{self, Hours};
use super::{Common, Verification, VerifyError};
use crate::kafka::{Stretch, partition_for};
use crate::time::{HOUR_MS, Timestamp};

/// What differs only because ClickHouse was asked about two tables, one after the other, is the same some seconds later.
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];

/// What ClickHouse answers about all shards at once. It may be asked at any time: what is asked about entries ends at
/// positions that were read first, and of what does not, each answer holds two tables of ClickHouse against each other.
#[derive(Default)]
pub struct Answers {
    /// Totals of entries.
    pub hours: Hours,
    /// Absent for a range.
    pub derived: Option<Derived>,
}

/// Wallets that differ between tables of ClickHouse.
pub struct Derived {
    grants: Vec<(String, i64, i64)>,
    usage: Vec<stored::UsageDifference>,
}

impl Common {
    /// Asks, one question after the other: each takes all cores of ClickHouse.
    pub(super) async fn answers(&self) -> Result<Answers, VerifyError> {
        let hours = self.stored.hours(&self.ledger_positions, &self.window).await?;
        let derived = if self.window.is_whole { Some(self.derived().await?) } else { None };
        Ok(Answers { hours, derived })
    }

    async fn derived(&self) -> Result<Derived, VerifyError> {
        let grants = self.stored.grant_differences().await?;
        Ok(Derived { grants, usage: self.stored.usage_differences().await? })
    }
}

impl Verification {
    /// Rows of `wallets` against the states in the topic, as far as the sink has read it. The rows were asked for before
    /// the states were read: what they have, the topic has by then, or it never had.
    pub(super) fn compare_wallet_rows(&mut self, shard: i32, fold: &ShardFold, rows: &[(String, Snapshot)]) {
        let position = self.common.wallet_positions.get(&shard).copied().unwrap_or(0);
        let mut seen = 0;
        for (wallet_id, row) in rows {
            let Some(state) = fold.snapshots.get(wallet_id.as_str()) else {
                self.found.to_mend.add_extra_state(wallet_id, row.seq);
                let what = "wallets has a row, the topic no state".to_owned();
                self.wallet_differs(shard, wallet_id, row.seq, what, row.balance.unsigned_abs());
                continue;
            };
            seen += u64::from(state.offset < position);
            if row.seq > state.seq {
                self.found.to_mend.add_extra_state(wallet_id, row.seq);
                let what = format!(
                    "wallets says entry {}, balance {}; the topic has come to entry {}, balance {}",
                    row.seq, row.balance, state.seq, state.balance
                );
                self.wallet_differs(shard, wallet_id, row.seq, what, row.balance.abs_diff(state.balance));
                continue;
            }
            let is_behind = row.seq < state.seq && state.offset < position;
            let is_other = row.seq == state.seq
                && (row.balance, row.held, row.overdraft) != (state.balance, state.held, state.overdraft);
            if is_behind || is_other {
                let what = format!(
                    "wallets says entry {}, balance {}, held {}, overdraft {}; the topic says entry {}, {}, {}, {}",
                    row.seq,
                    row.balance,
                    row.held,
                    row.overdraft,
                    state.seq,
                    state.balance,
                    state.held,
                    state.overdraft
                );
                self.wallet_differs(shard, wallet_id, row.seq, what, row.balance.abs_diff(state.balance));
            }
        }
        let expected = fold.snapshots.values().filter(|state| state.offset < position).count() as u64;
        if seen < expected {
            let known: HashSet<&str> = rows.iter().map(|(wallet_id, _)| wallet_id.as_str()).collect();
            for (wallet_id, state) in fold.snapshots.iter().filter(|(_, state)| state.offset < position) {
                if !known.contains(&**wallet_id) {
                    let what = "wallets has no row of it".to_owned();
                    self.wallet_differs(shard, wallet_id, state.seq, what, state.balance.unsigned_abs());
                }
            }
        }
    }

    fn wallet_differs(&mut self, shard: i32, wallet_id: &str, seq: u64, what: String, credits: u64) {
        self.found.to_mend.add_state(shard, wallet_id);
        self.found.clickhouse.differs(Difference {
            place: format!("shard {shard}"),
            wallet_id: Some(wallet_id.to_owned()),
            seq: Some(seq),
            what,
            records: 1,
            credits,
        });
    }

    /// Entries by shard and hour of posting; where an hour differs, entry by entry.
    pub(super) async fn compare_hours(&mut self, found: Hours) -> Result<(), VerifyError> {
        self.found.clickhouse.compared += self.found.hours.values().map(|totals| totals.entries).sum::<u64>();
        let mut keys: Vec<(i32, i64)> = self.found.hours.keys().chain(found.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let expected = self.found.hours.get(&key).copied().unwrap_or_default();
            let stored = found.get(&key).copied().unwrap_or_default();
            if expected != (HourTotals { offsets: expected.offsets, ..stored }) {
                self.compare_hour(key, expected).await?;
            }
        }
        Ok(())
    }

    async fn compare_hour(
        &mut self,
        (shard, hour): (i32, i64),
        totals: HourTotals,
    ) -> Result<(), VerifyError> {
        let position = self.common.ledger_positions.get(&shard).copied().unwrap_or(i64::MAX);
        let mut stored = self.common.stored.of_hour(shard, hour, position, &self.common.window).await?;
        let place = format!("shard {shard}, hour {}", Timestamp::from_millis(hour * HOUR_MS));
        let (window, check, to_mend) =
            (self.common.window, &mut self.found.clickhouse, &mut self.found.to_mend);
        let mut differs = |wallet_id: &str, seq: u64, what: String, credits: u64| {
            check.differs(Difference {
                place: place.clone(),
                wallet_id: Some(wallet_id.to_owned()),
                seq: Some(seq),
                what,
                records: 1,
                credits,
            });
        };
        let mut seen = HashSet::new();
        let mut text = String::new();
        let stretch = Stretch { partition: shard, from: totals.offsets.0, to: totals.offsets.1 + 1 };
        let stretches = if totals.entries == 0 { &[][..] } else { &[stretch] };
        tokio::task::block_in_place(|| {
            self.reader.read(&self.common.config.topics.ledger, stretches, |record| {
                let mut is_whole = true;
                each_entry(record.value.unwrap_or_default(), |wallet_id, entry| {
                    // A double is passed over: the first one counts.
                    if fold::hour_of(entry.posted_at) != hour
                        || !window.contains(entry.posted_at)
                        || !seen.insert((wallet_id.to_owned(), entry.seq))
                    {
                        return;
                    }
                    let expected = entry.hash(wallet_id, record.offset, &mut text);
                    match stored.remove(&(wallet_id.to_owned(), entry.seq)) {
                        Some((hash, _)) if hash == expected => {}
                        Some((_, credits)) => {
                            let what = format!(
                                "clickhouse has it otherwise ({credits} credits, the ledger says {})",
                                entry.credits
                            );
                            differs(wallet_id, entry.seq, what, credits.abs_diff(entry.credits));
                            is_whole = false;
                        }
                        None => {
                            differs(
                                wallet_id,
                                entry.seq,
                                "clickhouse does not have it".to_owned(),
                                entry.credits.unsigned_abs(),
                            );
                            is_whole = false;
                        }
                    }
                });
                if !is_whole {
                    to_mend.add_record(shard, record.offset);
                }
            })
        })?;
        for ((wallet_id, seq), (_, credits)) in stored {
            differs(
                &wallet_id,
                seq,
                "clickhouse has it, the ledger does not".to_owned(),
                credits.unsigned_abs(),
            );
            to_mend.add_extra_entry(wallet_id, seq);
        }
        Ok(())
    }

    /// What other tables derive from entries and states.
    pub(super) async fn compare_derived(&mut self, first: Derived) -> Result<(), VerifyError> {
        let Derived { mut grants, mut usage } = first;
        for pause in ASK_AGAIN {
            if grants.is_empty() && usage.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            let Derived { grants: again, usage: usage_again } = self.common.derived().await?;
            // A wallet that is in use differs each time otherwise.
            grants.retain(|one| again.contains(one));
            usage.retain(|one| {
                usage_again.iter().any(|other| other.wallet_id == one.wallet_id && other.usage == one.usage)
            });
        }
        for (wallet_id, covered, remaining) in grants {
            let what = format!("its grants have {remaining} credits left, its row in wallets says {covered}");
            let shard = partition_for(wallet_id.as_bytes(), self.common.shards);
            self.found.to_mend.add_state(shard, &wallet_id);
            self.found.clickhouse.differs(of_wallet("grants", wallet_id, what, covered.abs_diff(remaining)));
        }
        for difference in usage {
            let stored::UsageDifference { wallet_id, usage, entries } = difference;
            let what = format!(
                "usage_hourly says {} charged, {} reversed, {} refused; its entries say {}, {}, {}",
                usage.0, usage.1, usage.2, entries.0, entries.1, entries.2
            );
            let credits =
                usage.0.abs_diff(entries.0) + usage.1.abs_diff(entries.1) + usage.2.abs_diff(entries.2);
            let shard = partition_for(wallet_id.as_bytes(), self.common.shards);
            self.found.to_mend.add_usage(shard, &wallet_id);
            self.found.clickhouse.differs(of_wallet("usage_hourly", wallet_id, what, credits));
        }
        Ok(())
    }
}

fn of_wallet(table: &str, wallet_id: String, what: String, credits: u64) -> Difference {
    Difference { place: table.to_owned(), wallet_id: Some(wallet_id), seq: None, what, records: 1, credits }
}
