//! Owns the proof that nothing was lost or doubled: source ↔ ledger ↔ wallets and alerts ↔ ClickHouse.
//!
//! It reads the topics themselves (committed records, one by one; offsets are never subtracted for a count) and asks
//! ClickHouse; it shares no state and no counter with the running service. Memory is bounded by the wallets of the shards
//! that are compared at once and the hours of the ledger.
//!
//! **Invariant:** it may run beside the service at any time. Everything is cut at positions that were read first, so that
//! what is under way is no difference. It changes nothing, but for [`repair`].

mod alerts;
mod clickhouse;
mod entry;
mod fold;
mod found;
mod parts;
mod rebuild;
mod repair;
mod report;
mod shard;
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
use crate::kafka::{Clients, KafkaLog, ReadError, TopicReader};
use crate::sink::error::ClickHouseError;
use crate::time::Timestamp;
use fold::Window;
use found::Found;
use source::{Progress, Quarantined};
use stored::Stored;

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

/// One run of the comparison, or a part of it that runs beside others with a reader of its own.
pub struct Verification {
    common: Arc<Common>,
    reader: TopicReader,
    found: Found,
}

/// What all parts share. Nothing of it changes.
struct Common {
    config: Arc<Config>,
    stored: Stored,
    window: Window,
    scope: Scope,
    shards: i32,
    /// The sink's committed positions in the ledger, in the wallets topic and in that of alerts, by partition.
    ledger_positions: BTreeMap<i32, i64>,
    wallet_positions: BTreeMap<i32, i64>,
    alert_positions: BTreeMap<i32, i64>,
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
        let common = Common {
            ledger_positions: positions(&config.topics.ledger)?,
            wallet_positions: positions(&config.topics.wallets)?,
            alert_positions: positions(&config.topics.alerts)?,
            stored: Stored::new(&config.clickhouse),
            window: scope.window(),
            config: Arc::clone(config),
            scope,
            shards,
        };
        Ok(Verification { common: Arc::new(common), reader, found: Found::default() })
    }

    /// Compares everything; with `repairs`, writes to ClickHouse what differs there.
    ///
    /// # Errors
    /// Where it cannot tell: a component does not answer.
    pub async fn run(mut self, repairs: bool, told: Told<'_>) -> Result<Report, VerifyError> {
        // Reading Kafka blocks; nothing else runs on this thread.
        tokio::task::block_in_place(|| self.compare_parts(told))?;
        let answers = std::mem::take(&mut self.found.answers);
        told("clickhouse: entries by hour");
        self.compare_hours(answers.hours).await?;
        if let Some(derived) = answers.derived {
            told("clickhouse: usage and grants");
            self.compare_derived(derived).await?;
        }
        if !self.found.accepted.is_empty() && !self.found.clickhouse.is_equal() {
            self.found.notes.push(format!(
                "the ledger of shard {} was cut, and that was accepted: what ClickHouse has from before goes with `creditstream rebuild-clickhouse`",
                self.found.accepted.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        let repaired = match repairs {
            true => Some(self.repair(told).await?),
            false => None,
        };
        let Found { source, wallets, clickhouse, alerts, notes, entries, .. } = self.found;
        let checks = vec![source, wallets, clickhouse, alerts];
        Ok(Report {
            equal: checks.iter().all(Check::is_equal),
            from: self.common.scope.from,
            to: self.common.scope.to,
            checks,
            entries,
            notes,
            repaired,
        })
    }

    /// The records of the sources against the books, and the books against intake and quarantine.
    fn compare_source(&mut self, told: Told<'_>) -> Result<(), VerifyError> {
        if !self.common.window.is_whole {
            self.found.notes.push(
                "the books of the sources, usage by hour and grants are totals, and a change of level follows from what was before: these and alerts are not compared for a range"
                    .to_owned(),
            );
            return Ok(());
        }
        let topics = self.common.config.topics.clone();
        let sources = sources(&self.common.config);
        let reader = &self.reader;
        told("sources: books");
        // What is settled: the books may not know yet what an open transaction wrote.
        let mut quarantine_before = reader.all(&topics.quarantine)?;
        for stretch in &mut quarantine_before {
            stretch.to = reader.stable(&topics.quarantine, stretch.partition)?;
        }
        let mut read = || {
            Progress::read(reader, &topics.progress, &reader.all(&topics.progress)?, &mut self.found.source)
        };
        let (earlier, later) = (read()?, read()?);
        let mut partitions = Vec::new();
        for topic in &sources {
            told(&format!("sources: records of {topic}"));
            source::compare_records(reader, &later, topic, &mut self.found.source, &mut self.found.notes)?;
            let known = later.partitions_of(topic).into_iter();
            partitions.extend(known.map(|partition| (topic.clone(), partition)));
        }
        told("sources: intake and quarantine");
        source::compare_handed_over(
            reader,
            (&earlier, &later),
            &partitions,
            &topics.intake,
            &mut self.found.source,
        )?;
        let quarantined = Quarantined::read(reader, &topics.quarantine, &quarantine_before)?;
        let books = earlier.quarantined(&partitions, &topics.intake, self.common.shards);
        quarantined.compare(&books, &mut self.found.source);
        Ok(())
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
