//! The second thread of a worker: it owns the producer and makes each computed batch one transaction.
//!
//! **Invariant:** it reports [`CommitResult::Committed`] only after the broker said so. What it cannot settle it
//! reports as [`CommitResult::Unknown`], after a new producer has fenced the old one: then the topics tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;
use tracing::{error, info, warn};

use super::outbox::{OutTopic, Outbox};
use crate::config::TopicsConfig;
use crate::fault::fault_point;
use crate::kafka::{
    BatchTopic, Clients, GroupMetadata, KafkaLog, KafkaProducer, TransactionError, TransactionalProducer,
};
use crate::metrics::Metrics;

/// How long a commit whose outcome is not known is asked again, before the topics are.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);
const INIT_TIMEOUT: Duration = Duration::from_secs(15);

/// A batch to be committed.
pub struct Job {
    /// All that it writes.
    pub outbox: Outbox,
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
}

/// The answer to a [`Job`].
pub struct Done {
    /// Its outbox, to be used again.
    pub outbox: Outbox,
    /// What came of it.
    pub result: CommitResult,
}

/// What the thread needs.
pub struct Committer {
    /// Makes producers.
    pub clients: Clients,
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

/// A producer with its topics. The topics go first.
struct Ready {
    ledger: BatchTopic<KafkaLog>,
    wallets: BatchTopic<KafkaLog>,
    progress: BatchTopic<KafkaLog>,
    producer: Arc<KafkaProducer>,
}

impl Committer {
    /// Makes the producer, fencing what an earlier run of this worker left, and serves jobs until their sender
    /// is dropped.
    ///
    /// # Errors
    /// A producer cannot be made at all: a setting that librdkafka refuses.
    pub fn run(self, jobs: &Receiver<Job>, done: &SyncSender<Done>, ready: &SyncSender<KafkaResult<()>>) {
        let mut producer = match self.new_producer() {
            Ok(producer) => producer,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        while let Ok(job) = jobs.recv() {
            let started = Instant::now();
            let result = match self.commit(&producer, &job) {
                Ok(()) => CommitResult::Committed,
                Err(failure) => self.settle(&mut producer, failure),
            };
            fault_point!("commit.settled");
            self.count(&result, started);
            let mut outbox = job.outbox;
            outbox.clear();
            if done.send(Done { outbox, result }).is_err() {
                return;
            }
        }
    }

    fn count(&self, result: &CommitResult, started: Instant) {
        let outcome = match result {
            CommitResult::Committed => {
                self.metrics.transaction_duration_seconds.observe(started.elapsed().as_secs_f64());
                "committed"
            }
            CommitResult::Unknown(failure) if is_fenced(failure) => "fenced",
            CommitResult::Aborted(_) | CommitResult::Unknown(_) => "aborted",
        };
        self.metrics.transactions.with_label_values(&[outcome]).inc();
    }

    fn commit(&self, ready: &Ready, job: &Job) -> Result<(), TransactionError> {
        let producer = &ready.producer;
        fault_point!("commit.before_begin");
        producer.begin()?;
        fault_point!("commit.begun");
        ready.ledger.produce(job.outbox.records(OutTopic::Ledger))?;
        fault_point!("commit.entries_queued");
        ready.wallets.produce(job.outbox.records(OutTopic::Wallets))?;
        ready.progress.produce(job.outbox.records(OutTopic::Progress))?;
        fault_point!("commit.progress_queued");
        self.produce_with_headers(producer, &job.outbox)?;
        fault_point!("commit.handed_over");
        producer.flush_all(self.timeout)?;
        fault_point!("commit.flushed");
        producer.send_offsets(&job.offsets, &job.group, self.timeout)?;
        fault_point!("commit.offsets_sent");
        let deadline = Instant::now() + COMMIT_PATIENCE;
        loop {
            match producer.commit(self.timeout) {
                Err(failure)
                    if failure.is_retriable
                        && !failure.is_fatal
                        && !failure.requires_abort
                        && Instant::now() < deadline =>
                {
                    warn!(%failure, "the commit is not settled yet: asking again");
                }
                result => return result,
            }
        }
    }

    fn produce_with_headers(
        &self,
        producer: &KafkaProducer,
        outbox: &Outbox,
    ) -> Result<(), TransactionError> {
        for record in &outbox.with_headers {
            let topic = if record.is_quarantine { &self.topics.quarantine } else { &self.topics.intake };
            let mut out: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(topic).partition(record.partition).headers(record.headers.clone());
            if let Some(key) = &record.key {
                out = out.key(key);
            }
            if let Some(value) = &record.value {
                out = out.payload(value);
            }
            producer.send(out).map_err(|(cause, _)| TransactionError {
                step: "produce",
                code: cause.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
                message: format!("a record for topic {topic} could not be queued: {cause}"),
                is_fatal: false,
                requires_abort: true,
                is_retriable: false,
            })?;
        }
        Ok(())
    }

    /// Brings the producer into a state from which the next transaction can begin.
    fn settle(&self, producer: &mut Ready, failure: TransactionError) -> CommitResult {
        // A commit that is still not settled may have happened: only the topics know.
        let is_ambiguous = failure.step == "commit_transaction" && !failure.requires_abort;
        if !failure.is_fatal && !is_ambiguous {
            warn!(%failure, "transaction aborted");
            match self.abort(&producer.producer) {
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
                Err(error) => {
                    warn!(%error, "no new producer yet");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
        CommitResult::Unknown(failure)
    }

    fn abort(&self, producer: &KafkaProducer) -> Result<(), TransactionError> {
        let deadline = Instant::now() + COMMIT_PATIENCE;
        loop {
            match producer.abort(self.timeout) {
                Err(failure) if failure.is_retriable && !failure.is_fatal && Instant::now() < deadline => {}
                result => return result,
            }
        }
    }

    fn new_producer(&self) -> KafkaResult<Ready> {
        let producer = Arc::new(self.clients.transactional_producer(self.worker)?);
        loop {
            match producer.init(INIT_TIMEOUT) {
                Ok(()) => break,
                Err(failure) if failure.is_retriable && !self.stopping.load(Ordering::Relaxed) => {
                    warn!(%failure, "the broker is not ready for transactions yet");
                }
                Err(failure) => {
                    warn!(%failure, "the producer could not be made ready");
                    return Err(KafkaError::ClientCreation(failure.to_string()));
                }
            }
        }
        let open = |name: &str| BatchTopic::open(&producer, name, INIT_TIMEOUT);
        Ok(Ready {
            ledger: open(&self.topics.ledger)?,
            wallets: open(&self.topics.wallets)?,
            progress: open(&self.topics.progress)?,
            producer,
        })
    }
}

fn is_fenced(failure: &TransactionError) -> bool {
    matches!(
        failure.code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
