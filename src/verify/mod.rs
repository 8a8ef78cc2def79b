//! Owns the proof that nothing was lost or doubled: source ↔ ledger ↔ wallets and alerts ↔ ClickHouse.
//!
//! It reads the topics themselves (committed records, one by one; offsets are never subtracted for a count) and asks
//! ClickHouse; it shares no state and no counter with the running service. Memory is bounded by the wallets of one shard
//! and the hours of the ledger.
//!
//! **Invariant:** it may run beside the service at any time. Everything is cut at positions that were read first, so that
//! what is under way is no difference. It changes nothing, but for [`repair`].

mod alerts;
mod clickhouse;
mod entry;
mod fold;
mod rebuild;
mod repair;
mod report;
mod source;
mod stored;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

#[cfg(test)]
pub use alerts::{told_by, told_in};
pub use rebuild::{RebuildError, rebuild};
pub use report::{Between, Check, Difference, Report};
pub use watch::watch;

use crate::config::Config;
use crate::kafka::{Clients, KafkaLog, ReadError, Stretch, TopicReader};
use crate::sink::error::ClickHouseError;
use crate::time::Timestamp;
use alerts::LedgerAlerts;
use fold::{ShardFold, Window};
use source::{Progress, Quarantined};
use stored::{Hours, Stored};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

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
    Repair(#[from] crate::sink::error::Refused),
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
    /// The sink's committed positions in the ledger, in the wallets topic and in that of alerts, by partition.
    ledger_positions: BTreeMap<i32, i64>,
    wallet_positions: BTreeMap<i32, i64>,
    alert_positions: BTreeMap<i32, i64>,
    source: Check,
    wallets: Check,
    clickhouse: Check,
    alerts: Check,
    notes: Vec<String>,
    entries: u64,
    /// What ClickHouse must hold.
    hours: Hours,
    to_mend: repair::ToMend,
    /// Shards whose ledger has lost its beginning.
    cut: Vec<i32>,
    /// Shards of whose ledger a cut was accepted.
    accepted: Vec<i32>,
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
            alert_positions: positions(&config.topics.alerts)?,
            stored: Stored::new(&config.clickhouse),
            window: scope.window(),
            config: Arc::clone(config),
            reader,
            scope,
            shards,
            source: Check::new(Between::SourceLedger),
            wallets: Check::new(Between::LedgerWallets),
            clickhouse: Check::new(Between::LedgerClickhouse),
            alerts: Check::new(Between::LedgerAlerts),
            notes: Vec::new(),
            entries: 0,
            hours: Hours::new(),
            to_mend: repair::ToMend::default(),
            cut: Vec::new(),
            accepted: Vec::new(),
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
            let rows = self.stored.wallets(shard, self.shards).await?;
            let alerts = match self.window.is_whole {
                true => Some((self.stored.alert_totals(shard, self.shards).await?, self.alert_ends(shard)?)),
                false => None,
            };
            let told_of = alerts.as_ref().map(|(_, ends)| ends.fold());
            let fold = tokio::task::block_in_place(|| self.fold_shard(shard, told_of))?;
            self.compare_wallet_rows(shard, &fold, &rows);
            match alerts {
                // What was told before the cut stands in the topic for ever, and some of it was told again.
                Some(_) if self.accepted.contains(&shard) => self.notes.push(format!(
                    "the ledger of shard {shard} was cut, and that was accepted: its alerts are not compared"
                )),
                Some((rows, ends)) => self.compare_alerts(shard, &fold, ends, rows).await?,
                None => {}
            }
        }
        told("clickhouse: entries by hour");
        self.compare_hours().await?;
        if self.window.is_whole {
            told("clickhouse: usage and grants");
            self.compare_derived().await?;
        }
        if !self.accepted.is_empty() && !self.clickhouse.is_equal() {
            self.notes.push(format!(
                "the ledger of shard {} was cut, and that was accepted: what ClickHouse has from before goes with `creditstream rebuild-clickhouse`",
                self.accepted.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        let repaired = match repairs {
            true => Some(self.repair(told).await?),
            false => None,
        };
        let checks = vec![self.source, self.wallets, self.clickhouse, self.alerts];
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
                "the books of the sources, usage by hour and grants are totals, and a change of level follows from what was before: these and alerts are not compared for a range"
                    .to_owned(),
            );
            return Ok(());
        }
        let topics = self.config.topics.clone();
        let sources = sources(&self.config);
        let reader = &self.reader;
        told("sources: books");
        // What is settled: the books may not know yet what an open transaction wrote.
        let mut quarantine_before = reader.all(&topics.quarantine)?;
        for stretch in &mut quarantine_before {
            stretch.to = reader.stable(&topics.quarantine, stretch.partition)?;
        }
        let mut read =
            || Progress::read(reader, &topics.progress, &reader.all(&topics.progress)?, &mut self.source);
        let (earlier, later) = (read()?, read()?);
        let mut partitions = Vec::new();
        for topic in &sources {
            told(&format!("sources: records of {topic}"));
            source::compare_records(reader, &later, topic, &mut self.source, &mut self.notes)?;
            let known = later.partitions_of(topic).into_iter();
            partitions.extend(known.map(|partition| (topic.clone(), partition)));
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
    fn fold_shard(&mut self, shard: i32, alerts: Option<LedgerAlerts>) -> Result<ShardFold, VerifyError> {
        let topics = self.config.topics.clone();
        // A shard's own progress, and that of the partitions that it may read at home, stand in the partition of its number.
        let progress = match self.window.is_whole {
            true => {
                let stretch = self.reader.whole(&topics.progress, shard)?;
                Progress::read(&self.reader, &topics.progress, &[stretch], &mut self.source)?
            }
            false => Progress::default(),
        };
        if progress.cuts(shard) > 0 {
            self.accepted.push(shard);
        }
        let position = self.ledger_positions.get(&shard).copied().unwrap_or(0);
        let mut fold = ShardFold::new(shard, self.window, position);
        fold.alerts = alerts;
        let states = self.reader.whole(&topics.wallets, shard)?;
        let wallets = &mut self.wallets;
        self.reader.read(&topics.wallets, &[states], |record| match (record.key, record.value) {
            (Some(key), Some(value)) => fold.add_snapshot(key, value, record.offset, wallets),
            (Some(key), None) => fold.remove_snapshot(key),
            (None, _) => {}
        })?;
        let ledger = self.stretch(shard)?;
        let (source, wallets) = (&mut self.source, &mut self.wallets);
        let cut = |origin: &fold::Origin<'_>| progress.counts(shard, &topics.intake, origin);
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
    fn stretch(&mut self, shard: i32) -> Result<Stretch, VerifyError> {
        let topic = &self.config.topics.ledger;
        let whole = self.reader.whole(topic, shard)?;
        if whole.from > 0 {
            self.cut.push(shard);
            let note =
                format!("the ledger of shard {shard} begins at offset {}: is it kept for ever?", whole.from);
            self.notes.push(note);
        }
        let mut stretch = [whole];
        if let Some(from) = self.scope.from {
            // A record's Kafka timestamp is that of its sending, a little later than the posting.
            self.reader.begin_at(topic, &mut stretch, from.millis())?;
        }
        let [stretch] = stretch;
        Ok(stretch)
    }
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
    // One that is not known is not 0.
    found.elements().iter().try_for_each(|element| element.error())?;
    let position = |partition| match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => 0,
    };
    Ok((0..partitions).map(|partition| (partition, position(partition))).collect())
}
