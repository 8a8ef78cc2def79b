//! The second thread of a worker: it owns the producer and makes each computed batch one transaction.
//!
//! **Invariant:** it reports [`CommitResult::Committed`] only after the broker said so. What it cannot settle it
//! reports as [`CommitResult::Unknown`], after a new producer has fenced the old one: then the topics tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode;
use tracing::{error, info, warn};

use super::outbox::{OutTopic, Outbox};
use super::stage::LedgerError;
use super::world::{Producer, World};
use crate::config::TopicsConfig;
use crate::fault::{fault_point, planted};
use crate::kafka::{GroupMetadata, TransactionError, TransactionalProducer};
use crate::metrics::Metrics;

/// How long a commit whose outcome is not known is asked again, before the topics are.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);
const INIT_TIMEOUT: Duration = Duration::from_secs(15);

/// A batch to be committed.
pub struct Job {
    /// All that it writes.
    pub outboxes: Vec<Outbox>,
    /// Next offset of every partition that it read.
    pub offsets: TopicPartitionList,
    /// The group as it was when its records were polled.
    pub group: GroupMetadata,
}

/// What came of it.
#[derive(Debug)]
pub enum CommitResult {
    /// The broker said so.
    Committed,
    /// Nothing of it counts.
    Aborted(TransactionError),
    /// The producer is new; whether the batch counts must be read from the topics.
    Unknown(TransactionError),
    /// Nothing of it counts, and nothing will until somebody acts.
    Stopped(LedgerError),
}

/// The answer to a [`Job`].
pub struct Done {
    /// Its outboxes, empty, to be used again.
    pub outboxes: Vec<Outbox>,
    /// What came of it.
    pub result: CommitResult,
    /// How long that took.
    pub took: Duration,
}

/// What the thread needs.
pub struct Committer<W> {
    /// Makes producers, tells the time.
    pub world: W,
    /// Number of the worker.
    pub worker: usize,
    /// Topics that are written.
    pub topics: TopicsConfig,
    /// `ledger.transaction_timeout_ms`.
    pub timeout: Duration,
    /// To be updated.
    pub metrics: Metrics,
    /// Set once the stage stops: nothing is tried for long then.
    pub stopping: Arc<AtomicBool>,
}

impl<W: World> Committer<W> {
    /// Makes the producer, fencing what an earlier run of this worker left, and serves jobs until their sender
    /// is dropped.
    ///
    /// # Errors
    /// A producer cannot be made at all: a setting that librdkafka refuses.
    pub fn run(
        self,
        jobs: &Receiver<Job>,
        done: &SyncSender<Done>,
        ready: &SyncSender<Result<(), LedgerError>>,
    ) {
        let mut producer = match self.new_producer() {
            Ok(producer) => producer,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        while let Ok(job) = self.world.receive(jobs, None) {
            let started = self.world.now();
            let result = match self.commit(&producer, &job) {
                Ok(()) => CommitResult::Committed,
                Err(failure) => self.settle(&mut producer, failure),
            };
            fault_point!("commit.settled");
            let took = self.world.now().duration_since(started);
            self.count(&result, took);
            let mut outboxes = job.outboxes;
            outboxes.iter_mut().for_each(Outbox::clear);
            if done.send(Done { outboxes, result, took }).is_err() {
                return;
            }
        }
    }

    fn count(&self, result: &CommitResult, took: Duration) {
        let outcome = match result {
            CommitResult::Committed => {
                self.metrics.transaction_duration_seconds.observe(took.as_secs_f64());
                "committed"
            }
            CommitResult::Unknown(failure) if is_fenced(failure) => "fenced",
            CommitResult::Aborted(_) | CommitResult::Unknown(_) | CommitResult::Stopped(_) => "aborted",
        };
        self.metrics.transactions.with_label_values(&[outcome]).inc();
    }

    fn commit(&self, producer: &W::Producer, job: &Job) -> Result<(), TransactionError> {
        let transactions = producer.transactions();
        let records = |topic| job.outboxes.iter().flat_map(move |outbox| outbox.records(topic));
        fault_point!("commit.before_begin");
        transactions.begin()?;
        fault_point!("commit.begun");
        producer.produce(OutTopic::Ledger, records(OutTopic::Ledger))?;
        fault_point!("commit.entries_queued");
        if !planted!(AlertsAfterCommit) {
            producer.produce(OutTopic::Alerts, records(OutTopic::Alerts))?;
        }
        fault_point!("commit.alerts_queued");
        producer.produce(OutTopic::Wallets, records(OutTopic::Wallets))?;
        producer.produce(OutTopic::Progress, records(OutTopic::Progress))?;
        fault_point!("commit.progress_queued");
        let mut with_headers = job.outboxes.iter().flat_map(Outbox::records_with_headers);
        with_headers.try_for_each(|record| producer.produce_one(&record))?;
        fault_point!("commit.handed_over");
        if !planted!(CommitWithoutFlush) {
            transactions.flush_all(self.timeout)?;
        }
        fault_point!("commit.flushed");
        transactions.send_offsets(&job.offsets, &job.group, self.timeout)?;
        fault_point!("commit.offsets_sent");
        self.check_connections(producer)?;
        let deadline = self.world.now() + COMMIT_PATIENCE;
        let result = loop {
            match transactions.commit(self.timeout) {
                Err(failure)
                    if failure.is_retriable
                        && !failure.is_fatal
                        && !failure.requires_abort
                        && self.world.now() < deadline =>
                {
                    warn!(%failure, "the commit is not settled yet: asking again");
                }
                result => break result,
            }
        };
        if planted!(AlertsAfterCommit) && result.is_ok() {
            let queue = |()| producer.produce(OutTopic::Alerts, records(OutTopic::Alerts));
            let flushed =
                transactions.begin().and_then(queue).and_then(|()| transactions.flush_all(self.timeout));
            drop(flushed.and_then(|()| transactions.commit(self.timeout)));
        }
        result.and_then(|()| self.check_connections(producer))
    }

    /// A broker that stops between the two halves of a commit can take it for complete when it is back, and never write
    /// the markers. The next transaction of the same producer would close it, in those of its partitions that it meets
    /// itself. So a producer serves as long as its connections do: a new one, and what is settled in the topics by then.
    fn check_connections(&self, producer: &W::Producer) -> Result<(), TransactionError> {
        if producer.connections_lost() == 0 || planted!(GoOnAfterAnOutage) {
            return Ok(());
        }
        Err(TransactionError {
            step: "commit_transaction",
            code: RDKafkaErrorCode::BrokerTransportFailure,
            message: "a connection was lost: the broker may have stopped, and not know what it had decided"
                .to_owned(),
            is_fatal: false,
            requires_abort: false,
            is_retriable: false,
        })
    }

    /// Brings the producer into a state from which the next transaction can begin.
    fn settle(&self, producer: &mut W::Producer, failure: TransactionError) -> CommitResult {
        // A commit that is still not settled may have happened: only the topics know.
        let is_ambiguous = failure.step == "commit_transaction" && !failure.requires_abort;
        if !failure.is_fatal && !is_ambiguous {
            warn!(%failure, "transaction aborted");
            match self.abort(producer.transactions()) {
                Ok(()) if is_forbidden(failure.code) => return CommitResult::Stopped(forbidden(&failure)),
                Ok(()) => return CommitResult::Aborted(failure),
                Err(second) => warn!(failure = %second, "the abort failed too"),
            }
        }
        error!(%failure, "the producer is given up: a new one fences it, and state is read from the topics");
        while !self.stopping.load(Ordering::Relaxed) {
            match self.new_producer() {
                Ok(new) => {
                    *producer = new;
                    info!("new producer ready");
                    break;
                }
                Err(error @ LedgerError::Forbidden(_)) => return CommitResult::Stopped(error),
                Err(error) => {
                    warn!(%error, "no new producer yet");
                    self.world.sleep(Duration::from_secs(1));
                }
            }
        }
        CommitResult::Unknown(failure)
    }

    fn abort(&self, producer: &impl TransactionalProducer) -> Result<(), TransactionError> {
        let deadline = self.world.now() + COMMIT_PATIENCE;
        loop {
            match producer.abort(self.timeout) {
                Err(failure) if failure.is_retriable && !failure.is_fatal && self.world.now() < deadline => {}
                result => return result,
            }
        }
    }

    fn new_producer(&self) -> Result<W::Producer, LedgerError> {
        let mut producer = self.world.producer(self.worker, &self.topics)?;
        loop {
            match producer.transactions().init(INIT_TIMEOUT) {
                Ok(()) => break,
                Err(failure) if failure.is_retriable && !self.stopping.load(Ordering::Relaxed) => {
                    warn!(%failure, "the broker is not ready for transactions yet");
                }
                Err(failure) if is_forbidden(failure.code) => return Err(forbidden(&failure)),
                Err(failure) => {
                    warn!(%failure, "the producer could not be made ready");
                    return Err(LedgerError::Unreachable(failure.to_string()));
                }
            }
        }
        producer.open(INIT_TIMEOUT)?;
        Ok(producer)
    }
}

/// Lacking rights are no fault of a batch: neither another try nor a smaller one helps.
fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

fn forbidden(failure: &TransactionError) -> LedgerError {
    LedgerError::Forbidden(format!(
        "kafka does not allow what the ledger stage must do: {failure}; grant the right (Write on its topics and \
         transactional ids, Read on its group), then start it again"
    ))
}

fn is_fenced(failure: &TransactionError) -> bool {
    matches!(
        failure.code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
