//! What every output shares: pace, progress, errors.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::encode::Record;
use super::generator::Generator;
use crate::config::TopicsConfig;
use crate::event::SourceKind;

/// Time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Longest sleep: progress goes on while the pace is slow.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Why generating ended early.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// Options for which no books can be kept: usage.
    #[error("{0}")]
    Options(String),
    /// Kafka is not there, or lacks a topic.
    #[error("kafka at {brokers}: {detail}")]
    Unreachable {
        /// The bootstrap servers.
        brokers: String,
        /// What was tried, and what to do.
        detail: String,
    },
    /// Records were not acknowledged: the books do not hold.
    #[error("{count} records were not acknowledged ({first}): the topics hold fewer than the books say")]
    Undelivered {
        /// How many.
        count: u64,
        /// The first failure.
        first: String,
    },
    /// The file or standard output.
    #[error("cannot write the records: {0}")]
    Write(#[from] std::io::Error),
}

/// The source topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// For usage.
    pub generation: String,
    /// For contracts, top-ups and adjustments.
    pub wallet: String,
}

impl Topics {
    /// The first source topic of each kind.
    pub fn first_of(config: &TopicsConfig) -> Topics {
        let first = |names: Vec<String>| names.into_iter().next().unwrap_or_default();
        Topics { generation: first(config.generation_topics()), wallet: first(config.wallet_topics()) }
    }

    /// The topic of a kind.
    pub fn name(&self, kind: SourceKind) -> &str {
        match kind {
            SourceKind::Generation => &self.generation,
            SourceKind::Wallet => &self.wallet,
        }
    }
}

/// How fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it goes.
    #[default]
    Full,
    /// So many records a second.
    RecordsPerSecond(u64),
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Records handed to the output.
    pub records: u64,
    /// Records in all.
    pub records_total: u64,
}

/// What a run sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// From the first record to the last acknowledgement.
    pub elapsed: Duration,
}

impl Sent {
    /// Records a second.
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Hands every record to `send`, at the pace, until there are no more, `send` fails, or `progress` breaks off.
pub(super) fn drive(
    generator: &mut Generator,
    pace: Pace,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    mut send: impl FnMut(&Record) -> Result<(), GenerateError>,
) -> Result<Sent, GenerateError> {
    let records_total = generator.records_total();
    let begun = Instant::now();
    let mut next_report = Duration::ZERO;
    let mut record = Record::default();
    let mut sent = Sent::default();
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= next_report {
            next_report = elapsed + PROGRESS_EVERY;
            if progress(Progress { records: sent.records, records_total }).is_break() {
                break;
            }
        }
        let wait = wait_for(pace, sent.records, elapsed);
        if !wait.is_zero() {
            std::thread::sleep(wait.min(SLEEP_MAX));
            continue;
        }
        if generator.next_record(&mut record).is_none() {
            break;
        }
        send(&record)?;
        sent.records += 1;
        sent.value_bytes += record.value().map_or(0, |value| value.len() as u64);
    }
    // Done, whatever the caller says to it.
    let _ = progress(Progress { records: sent.records, records_total });
    sent.elapsed = begun.elapsed();
    Ok(sent)
}

/// How long the next record has to wait.
fn wait_for(pace: Pace, records: u64, elapsed: Duration) -> Duration {
    let Pace::RecordsPerSecond(rate) = pace else {
        return Duration::ZERO;
    };
    let nanos = u128::from(records) * 1_000_000_000 / u128::from(rate.max(1));
    let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    due.saturating_sub(elapsed)
}
