//! Owns the proof that nothing was lost or doubled: source ↔ ledger ↔ wallets ↔ ClickHouse.
//!
//! It reads the topics themselves (committed records, one by one; offsets are never subtracted for a count) and asks
//! ClickHouse; it shares no state and no counter with the running service. Memory is bounded by the wallets of one shard
//! and the hours of the ledger.
//!
//! **Invariant:** it may run beside the service at any time. Everything is cut at positions that were read first, so that
//! what is under way is no difference. It changes nothing, but for [`repair`].

mod fold;
mod rebuild;
mod repair;
mod report;
mod source;
mod stored;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

pub use rebuild::{RebuildError, rebuild};
pub use report::{Between, Check, Difference, Report};
pub use watch::watch;

use crate::config::Config;
use crate::kafka::{Clients, KafkaLog, ReadError, Stretch, TopicReader};
use crate::sink::insert::ClickHouseError;
use crate::time::Timestamp;
use fold::{HourTotals, ShardFold, Window};
use source::{Progress, Quarantined};
use stored::{Hours, Stored};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// What differs only because ClickHouse was asked about two tables, one after the other, is the same some seconds later.
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];

/// Why it cannot tell.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The topics could not be read.
    #[error(transparent)]
    Kafka(#[from] ReadError),
    /// ClickHouse did not answer.
    #[error("clickhouse: {0}; check clickhouse.url, and that `creditstream init` was run")]
    ClickHouse(#[from] ClickHouseError),
    /// ClickHouse does not take what is to be repaired.
    #[error(transparent)]
    Repair(#[from] crate::sink::insert::Refused),
}

/// What is to be compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Only entries posted from then on.
    pub from: Option<Timestamp>,
    /// Only entries posted before then.
    pub to: Option<Timestamp>,
}

impl Scope {
    fn window(&self) -> Window {
        Window {
            from: self.from.unwrap_or(Timestamp::MIN),
            to: self.to.unwrap_or(Timestamp::MAX),
            is_whole: self.from.is_none() && self.to.is_none(),
        }
    }
}

/// Called now and then with a sentence about where the work is.
pub type Told<'t> = &'t (dyn Fn(&str) + Sync);

/// One run of the comparison.
pub struct Verification {
    config: Arc<Config>,
    reader: TopicReader,
    stored: Stored,
    window: Window,
    scope: Scope,
    shards: i32,
    /// The sink's committed positions in the ledger and in the wallets topic, by partition.
    ledger_positions: BTreeMap<i32, i64>,
    wallet_positions: BTreeMap<i32, i64>,
    source: Check,
    wallets: Check,
    clickhouse: Check,
    notes: Vec<String>,
    entries: u64,
    /// What ClickHouse must hold.
    hours: Hours,
    to_mend: repair::ToMend,
}

impl Verification {
    /// Makes its clients, and reads how far the sink says that it has come.
    ///
    /// # Errors
    /// The brokers do not answer, or `init` was not run.
    pub fn begin(config: &Arc<Config>, scope: Scope) -> Result<Verification, VerifyError> {
        let clients = Clients::new(Arc::clone(config));
        let reader = TopicReader::new(&clients, "verify")?;
        let shards = reader.partitions(&config.topics.ledger)?;
        let group = clients.group_reader(&config.sink.group).map_err(ReadError::from)?;
        let positions = |topic: &str| committed(&group, topic, shards);
        Ok(Verification {
            ledger_positions: positions(&config.topics.ledger)?,
            wallet_positions: positions(&config.topics.wallets)?,
            stored: Stored::new(&config.clickhouse),
            window: scope.window(),
            config: Arc::clone(config),
            reader,
            scope,
            shards,
            source: Check::new(Between::SourceLedger),
            wallets: Check::new(Between::LedgerWallets),
            clickhouse: Check::new(Between::LedgerClickhouse),
            notes: Vec::new(),
            entries: 0,
            hours: Hours::new(),
            to_mend: repair::ToMend::default(),
        })
    }

    /// Compares everything; with `repairs`, writes to ClickHouse what differs there.
    ///
    /// # Errors
    /// Where it cannot tell: a component does not answer.
    pub async fn run(mut self, repairs: bool, told: Told<'_>) -> Result<Report, VerifyError> {
        // Reading Kafka blocks; nothing else runs on this thread.
        tokio::task::block_in_place(|| self.compare_source(told))?;
        for shard in 0..self.shards {
            told(&format!("shard {shard} of {}: wallets and ledger", self.shards));
            let fold = tokio::task::block_in_place(|| self.fold_shard(shard))?;
            self.compare_wallet_rows(shard, &fold).await?;
        }
        told("clickhouse: entries by hour");
        self.compare_hours().await?;
        if self.window.is_whole {
            told("clickhouse: usage and grants");
            self.compare_derived().await?;
        }
        let repaired = match repairs {
            true => Some(self.repair(told).await?),
            false => None,
        };
        let checks = vec![self.source, self.wallets, self.clickhouse];
        Ok(Report {
            equal: checks.iter().all(Check::is_equal),
            from: self.scope.from,
            to: self.scope.to,
            checks,
            entries: self.entries,
            notes: self.notes,
            repaired,
        })
    }

    /// The records of the sources against the books, and the books against intake and quarantine.
    fn compare_source(&mut self, told: Told<'_>) -> Result<(), VerifyError> {
        if !self.window.is_whole {
            self.notes.push(
                "the books of the sources, usage by hour and grants are totals: not compared for a range"
                    .to_owned(),
            );
            return Ok(());
        }
        let topics = self.config.topics.clone();
        let sources = sources(&self.config);
        let reader = &self.reader;
        told("sources: books");
        let quarantine_before = reader.all(&topics.quarantine)?;
        let mut read =
            || Progress::read(reader, &topics.progress, &reader.all(&topics.progress)?, &mut self.source);
        let (earlier, later) = (read()?, read()?);
        let mut partitions = Vec::new();
        for topic in &sources {
            told(&format!("sources: records of {topic}"));
            source::compare_records(reader, &later, topic, &mut self.source, &mut self.notes)?;
            partitions.extend((0..reader.partitions(topic)?).map(|partition| (topic.clone(), partition)));
        }
        told("sources: intake and quarantine");
        source::compare_handed_over(
            reader,
            (&earlier, &later),
            &partitions,
            &topics.intake,
            &mut self.source,
        )?;
        let quarantined = Quarantined::read(reader, &topics.quarantine, &quarantine_before)?;
        let books = earlier.quarantined(&partitions, &topics.intake, self.shards);
        quarantined.compare(&books, &mut self.source);
        Ok(())
    }

    /// Reads one shard: its books, then its wallets' states, then its ledger up to an end beyond all of them.
    fn fold_shard(&mut self, shard: i32) -> Result<ShardFold, VerifyError> {
        let topics = self.config.topics.clone();
        // A shard's own progress, and that of the partitions that it may read at home, stand in the partition of its number.
        let progress = match self.window.is_whole {
            true => {
                let stretch = self.reader.whole(&topics.progress, shard)?;
                Progress::read(&self.reader, &topics.progress, &[stretch], &mut self.source)?
            }
            false => Progress::default(),
        };
        let position = self.ledger_positions.get(&shard).copied().unwrap_or(0);
        let mut fold = ShardFold::new(shard, self.window, position);
        let states = self.reader.whole(&topics.wallets, shard)?;
        let wallets = &mut self.wallets;
        self.reader.read(&topics.wallets, &[states], |record| {
            if let (Some(key), Some(value)) = (record.key, record.value) {
                fold.add_snapshot(key, value, record.offset, wallets);
            }
        })?;
        let ledger = self.stretch(shard)?;
        if ledger.from > 0 && self.window.is_whole {
            self.notes.push(format!(
                "the ledger of shard {shard} begins at offset {}: is it kept for ever?",
                ledger.from
            ));
        }
        let (source, wallets) = (&mut self.source, &mut self.wallets);
        let cut = |topic: &str, partition, offset| progress.counts(shard, topic, partition, offset);
        self.reader.read(&topics.ledger, &[ledger], |record| {
            fold.add(record.value.unwrap_or_default(), record.offset, &cut, source, wallets);
        })?;
        fold.finish(wallets);
        if self.window.is_whole {
            let books = progress.posted(shard, &sources(&self.config), &topics.intake);
            source::compare_posted(shard, &fold.posted, &books, source);
        }
        self.entries += fold.entries;
        self.hours.extend(fold.hours.iter().map(|(hour, totals)| ((shard, *hour), *totals)));
        if fold.ahead_of_sink > 0 {
            let entries = fold.ahead_of_sink;
            self.notes.push(format!(
                "shard {shard}: {entries} entries are not written by the sink yet: not compared"
            ));
        }
        Ok(fold)
    }

    /// The ledger of a shard, from where entries of the window may stand.
    fn stretch(&self, shard: i32) -> Result<Stretch, VerifyError> {
        let topic = &self.config.topics.ledger;
        let mut stretch = [self.reader.whole(topic, shard)?];
        if let Some(from) = self.scope.from {
            // A record's Kafka timestamp is that of its sending, a little later than the posting.
            self.reader.begin_at(topic, &mut stretch, from.millis())?;
        }
        let [stretch] = stretch;
        Ok(stretch)
    }

    /// Rows of `wallets` against the states in the topic, as far as the sink has read it.
    async fn compare_wallet_rows(&mut self, shard: i32, fold: &ShardFold) -> Result<(), VerifyError> {
        let position = self.wallet_positions.get(&shard).copied().unwrap_or(0);
        let rows = self.stored.wallets(shard, self.shards).await?;
        let mut seen = 0;
        for (wallet_id, row) in &rows {
            let Some(state) = fold.snapshots.get(wallet_id.as_str()) else {
                self.wallet_differs(
                    shard,
                    wallet_id,
                    row.seq,
                    "wallets has a row, the topic no state".to_owned(),
                    0,
                );
                continue;
            };
            seen += u64::from(state.offset < position);
            // A newer row was read from a newer state.
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
            let known: std::collections::HashSet<&str> =
                rows.iter().map(|(wallet_id, _)| wallet_id.as_str()).collect();
            for (wallet_id, state) in fold.snapshots.iter().filter(|(_, state)| state.offset < position) {
                if !known.contains(&**wallet_id) {
                    let what = "wallets has no row of it".to_owned();
                    self.wallet_differs(shard, wallet_id, state.seq, what, state.balance.unsigned_abs());
                }
            }
        }
        Ok(())
    }

    fn wallet_differs(&mut self, shard: i32, wallet_id: &str, seq: u64, what: String, credits: u64) {
        self.to_mend.states.insert((shard, wallet_id.to_owned()));
        self.clickhouse.differs(Difference {
            place: format!("shard {shard}"),
            wallet_id: Some(wallet_id.to_owned()),
            seq: Some(seq),
            what,
            records: 1,
            credits,
        });
    }

    /// Entries by shard and hour of posting; where an hour differs, entry by entry.
    async fn compare_hours(&mut self) -> Result<(), VerifyError> {
        let found = self.stored.hours(&self.ledger_positions, &self.window).await?;
        self.clickhouse.compared += self.hours.values().map(|totals| totals.entries).sum::<u64>();
        let mut keys: Vec<(i32, i64)> = self.hours.keys().chain(found.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let expected = self.hours.get(&key).copied().unwrap_or_default();
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
        let position = self.ledger_positions.get(&shard).copied().unwrap_or(i64::MAX);
        let mut stored = self.stored.of_hour(shard, hour, position).await?;
        let place = format!("shard {shard}, hour {}", Timestamp::from_millis(hour * crate::time::HOUR_MS));
        let (check, to_mend) = (&mut self.clickhouse, &mut self.to_mend);
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
        let mut seen = std::collections::HashSet::new();
        let mut text = String::new();
        let stretch = Stretch { partition: shard, from: totals.offsets.0, to: totals.offsets.1 + 1 };
        let stretches = if totals.entries == 0 { &[][..] } else { &[stretch] };
        tokio::task::block_in_place(|| {
            self.reader.read(&self.config.topics.ledger, stretches, |record| {
                let mut is_whole = true;
                fold::each_entry(record.value.unwrap_or_default(), |wallet_id, entry| {
                    // A double is passed over: the first one counts.
                    if fold::hour_of(entry.posted_at) != hour
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
                    to_mend.records.insert((shard, record.offset));
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
            to_mend.extra_entries.push((wallet_id, seq));
        }
        Ok(())
    }

    /// What other tables derive from entries and states.
    async fn compare_derived(&mut self) -> Result<(), VerifyError> {
        let mut grants = self.stored.grant_differences().await?;
        let mut usage = self.stored.usage_differences().await?;
        for pause in ASK_AGAIN {
            if grants.is_empty() && usage.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            let (again, usage_again) =
                (self.stored.grant_differences().await?, self.stored.usage_differences().await?);
            // A wallet that is in use differs each time otherwise.
            grants.retain(|one| again.contains(one));
            usage.retain(|one| {
                usage_again.iter().any(|other| other.wallet_id == one.wallet_id && other.usage == one.usage)
            });
        }
        for (wallet_id, covered, remaining) in grants {
            let what = format!("its grants have {remaining} credits left, its row in wallets says {covered}");
            let shard = crate::kafka::partition_for(wallet_id.as_bytes(), self.shards);
            self.to_mend.states.insert((shard, wallet_id.clone()));
            self.clickhouse.differs(of_wallet("grants", wallet_id, what, covered.abs_diff(remaining)));
        }
        for difference in usage {
            let stored::UsageDifference { wallet_id, usage, entries } = difference;
            let what = format!(
                "usage_hourly says {} charged, {} reversed, {} refused; its entries say {}, {}, {}",
                usage.0, usage.1, usage.2, entries.0, entries.1, entries.2
            );
            let credits =
                usage.0.abs_diff(entries.0) + usage.1.abs_diff(entries.1) + usage.2.abs_diff(entries.2);
            let shard = crate::kafka::partition_for(wallet_id.as_bytes(), self.shards);
            self.to_mend.usage.insert((shard, wallet_id.clone()));
            self.clickhouse.differs(of_wallet("usage_hourly", wallet_id, what, credits));
        }
        Ok(())
    }
}

fn of_wallet(table: &str, wallet_id: String, what: String, credits: u64) -> Difference {
    Difference { place: table.to_owned(), wallet_id: Some(wallet_id), seq: None, what, records: 1, credits }
}

/// All source topics.
fn sources(config: &Config) -> Vec<String> {
    let topics = &config.topics;
    topics.generation_topics().into_iter().chain(topics.wallet_topics()).collect()
}

/// The committed positions of a group; 0: it has none.
fn committed(
    group: &BaseConsumer<KafkaLog>,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<i32, i64>, ReadError> {
    let mut wanted = TopicPartitionList::new();
    for partition in 0..partitions {
        wanted.add_partition(topic, partition);
    }
    let found = group.committed_offsets(wanted, REQUEST_TIMEOUT)?;
    let position = |partition| match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => 0,
    };
    Ok((0..partitions).map(|partition| (partition, position(partition))).collect())
}
