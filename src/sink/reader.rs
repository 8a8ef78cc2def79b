//! Owns the Kafka consumer: a thread that collects records into batches and hands them over one by one.
//!
//! While a batch is being frozen the next one is collected, up to its bounds; then the partitions are
//! paused, and the thread goes on polling, so that the group never takes an instance for dead that waits for
//! ClickHouse.
//!
//! **Invariant:** offsets are committed only by [`Reader::commit`], of batches that were acknowledged. When
//! partitions are revoked the *epoch* grows, and whatever was read in an earlier one is worth nothing: it is
//! read again from the committed offset by whoever owns the partition then. Hence the `range` assignor, which
//! revokes everything at each rebalance.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot, watch};

use super::record::{Record, Source, SourcePartition};
use crate::config::{Config, SinkConfig, TopicsConfig};
use crate::kafka::set_session;
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// Label of this stage in metrics.
const STAGE: &str = "sink";
/// Longest poll: how soon a stop is noticed. Shortest: how soon it is noticed that the stage has room.
const POLL_MAX: Duration = Duration::from_millis(50);
const POLL_MIN: Duration = Duration::from_millis(5);
/// How often librdkafka reports positions, from which the lag is computed.
const STATISTICS_INTERVAL_MS: &str = "2000";
/// After this long a commit is given up: the next one covers it.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Records that were read together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Grows with each revocation.
    pub epoch: u64,
    /// In the order in which they came.
    pub records: Vec<Record>,
    byte_count: usize,
    begun: Option<Instant>,
}

/// What the threads, the client's callbacks and the stage share.
struct Context {
    epoch: watch::Sender<u64>,
    progress: Mutex<HashMap<SourcePartition, Progress>>,
    /// What is read now. Statistics may be of a time before the last revocation.
    assigned: Mutex<HashSet<SourcePartition>>,
    topics: TopicsConfig,
    metrics: Metrics,
    /// Partitions of the ledger that this member of the group reads.
    owned: watch::Sender<BTreeSet<i32>>,
}

/// How far a partition has come since it was assigned: the offset after the last record …
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// … that was read,
    read: i64,
    /// … that ClickHouse has acknowledged; 0: none yet.
    acknowledged: i64,
}

/// Offsets, and who waits for the broker's answer.
type Commit = (TopicPartitionList, oneshot::Sender<KafkaResult<()>>);

/// Batches in the order in which they were read, then the error that ended the thread.
pub struct Batches(mpsc::Receiver<Result<Batch, KafkaError>>);

/// Which epoch it is.
#[derive(Clone)]
pub struct Epochs(watch::Receiver<u64>);

/// The stage's handle on the threads.
pub struct Reader {
    context: Arc<Context>,
    commits: std::sync::mpsc::Sender<Commit>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Batch {
    fn new(epoch: u64) -> Batch {
        Batch { epoch, ..Batch::default() }
    }

    fn push(&mut self, record: Record) {
        self.begun.get_or_insert_with(Instant::now);
        self.byte_count += record.byte_count();
        self.records.push(record);
    }

    fn is_full(&self, config: &SinkConfig) -> bool {
        self.records.len() >= config.batch_records_max || self.byte_count >= config.batch_bytes_max
    }

    /// How long it may still wait for more records; `None`: it is empty.
    fn wait_left(&self, config: &SinkConfig) -> Option<Duration> {
        Some(config.batch_wait_max().saturating_sub(self.begun?.elapsed()))
    }
}

impl Batches {
    /// The next batch.
    ///
    /// # Errors
    /// Where the consumer cannot go on.
    pub async fn next(&mut self) -> Result<Batch, KafkaError> {
        let ended = || KafkaError::Canceled;
        self.0.recv().await.ok_or_else(ended)?
    }
}

impl Epochs {
    /// Does the work unless the partitions are revoked that it is for; `None`: it was abandoned.
    pub async fn while_in<T>(&self, epoch: u64, work: impl Future<Output = T>) -> Option<T> {
        let mut epochs = self.0.clone();
        tokio::select! {
            biased;
            // An error says that the reader is gone: then nothing is worth finishing either.
            _ = epochs.wait_for(|now| *now != epoch) => {
                tracing::info!("a batch is abandoned: its partitions were revoked");
                None
            }
            done = work => Some(done),
        }
    }
}

impl Reader {
    /// Joins the consumer group and begins to read.
    ///
    /// # Errors
    /// Where the client cannot be made; a broker that is away is no error.
    pub fn start(
        config: &Config,
        metrics: Metrics,
        owned: watch::Sender<BTreeSet<i32>>,
    ) -> Result<(Reader, Batches), KafkaError> {
        let context = Context {
            epoch: watch::Sender::new(0),
            progress: Mutex::default(),
            assigned: Mutex::default(),
            topics: config.topics.clone(),
            metrics,
            owned,
        };
        let consumer: BaseConsumer<Context> = client_config(config).create_with_context(context)?;
        let context = Arc::clone(consumer.context());
        let consumer = Arc::new(consumer);
        let topics: Vec<&str> = Source::ALL.iter().map(|source| source.topic(&config.topics)).collect();
        consumer.subscribe(&topics)?;

        let (sender, batches) = mpsc::channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut collector = Collector {
            consumer: Arc::clone(&consumer),
            context: Arc::clone(&context),
            config: config.sink.clone(),
            sender,
            stop: Arc::clone(&stop),
            is_paused: false,
        };
        let (commits, requests) = std::sync::mpsc::channel();
        let committed_by = Arc::downgrade(&consumer);
        drop(consumer);
        spawn("sink-committer", move || commit_each(&committed_by, &requests))?;
        let thread = spawn("sink-reader", move || collector.run())?;
        let reader = Reader { context, commits, stop, thread: Some(thread) };
        Ok((reader, Batches(batches)))
    }

    /// The present epoch, and its changes.
    pub fn epochs(&self) -> Epochs {
        Epochs(self.context.epoch.subscribe())
    }

    /// Commits positions whose records are all in ClickHouse, and waits for the broker's answer.
    ///
    /// # Errors
    /// Where they could not be committed. Nothing is lost by that: the next commit covers them, and without
    /// one the records are read and written again.
    pub async fn commit(&self, positions: &BTreeMap<SourcePartition, i64>) -> KafkaResult<()> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for (of, next_offset) in positions {
            let topic = of.source.topic(&self.context.topics);
            offsets.add_partition_offset(topic, of.partition, Offset::Offset(*next_offset))?;
        }
        let (sender, answer) = oneshot::channel();
        self.commits.send((offsets, sender)).map_err(|_| KafkaError::Canceled)?;
        let answer = tokio::time::timeout(COMMIT_WAIT_MAX, answer).await;
        let timed_out = KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut);
        answer.map_err(|_| timed_out)?.map_err(|_| KafkaError::Canceled)??;
        for (of, next_offset) in positions {
            self.context.note(*of, |progress| progress.acknowledged = *next_offset);
        }
        Ok(())
    }

    /// Leaves the group. Waits at most `patience` for the thread: it may hang on a broker that is away.
    pub async fn stop(mut self, patience: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !thread.is_finished() {
            tracing::warn!(
                "the sink's consumer did not leave its group in time; the group notices by itself"
            );
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn client_config(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // Back-off and thresholds of the defaults starve the poll loop.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "32768");
    for (name, value) in config.kafka.properties.as_map() {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", config.kafka.bootstrap_servers())
        .set("client.id", format!("{}-sink", config.kafka.client_id))
        .set("group.id", &config.sink.group)
        .set("partition.assignment.strategy", "range")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    // One setting for both stages: Kafka's default has a killed sink waited for for 45 s.
    set_session(&mut client, config.ledger.session_timeout_ms);
    client
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> KafkaResult<JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| KafkaError::ClientCreation(format!("no thread {name}: {error}")))
}

/// Commits as asked, until nobody can ask any more. On a thread of its own: a commit blocks while the broker
/// is away, and an asynchronous one never reports back (rdkafka 0.39 leaves librdkafka's callback unset). It
/// does not keep the consumer alive: closing it is the reader's.
fn commit_each(consumer: &Weak<BaseConsumer<Context>>, requests: &std::sync::mpsc::Receiver<Commit>) {
    for (offsets, answer) in requests {
        let consumer = consumer.upgrade().ok_or(KafkaError::Canceled);
        // An error says that the stage has given up waiting.
        let _ = answer.send(consumer.and_then(|consumer| consumer.commit(&offsets, CommitMode::Sync)));
    }
}

/// The thread that reads.
struct Collector {
    consumer: Arc<BaseConsumer<Context>>,
    context: Arc<Context>,
    config: SinkConfig,
    sender: mpsc::Sender<Result<Batch, KafkaError>>,
    stop: Arc<AtomicBool>,
    is_paused: bool,
}

impl Collector {
    fn run(&mut self) {
        let mut batch = Batch::new(0);
        while !self.stop.load(Ordering::Relaxed) && !self.sender.is_closed() {
            let epoch = *self.context.epoch.borrow();
            if epoch != batch.epoch {
                batch = Batch::new(epoch);
                self.is_paused = false;
            }
            batch = self.hand_over(batch);
            self.pause_or_resume(batch.is_full(&self.config));
            let poll = batch.wait_left(&self.config).unwrap_or(POLL_MAX).clamp(POLL_MIN, POLL_MAX);
            match self.consumer.poll(poll) {
                // Also while paused: what comes then was on its way, and must not be lost.
                Some(Ok(message)) => self.push(&mut batch, epoch, &message),
                Some(Err(error)) if is_fatal(&error) => {
                    let _ = self.sender.blocking_send(Err(error));
                    return;
                }
                Some(Err(error)) => tracing::warn!(%error, "the sink's consumer: it tries again by itself"),
                None => {}
            }
        }
    }

    /// Hands the batch over if it is due and the stage has room, else keeps it.
    fn hand_over(&self, batch: Batch) -> Batch {
        let is_due = batch.wait_left(&self.config).is_some_and(|left| left.is_zero());
        if !is_due && !batch.is_full(&self.config) {
            return batch;
        }
        let epoch = batch.epoch;
        match self.sender.try_send(Ok(batch)) {
            Ok(()) => Batch::new(epoch),
            Err(
                mpsc::error::TrySendError::Full(Ok(batch)) | mpsc::error::TrySendError::Closed(Ok(batch)),
            ) => batch,
            Err(_) => Batch::new(epoch),
        }
    }

    fn push(&self, batch: &mut Batch, epoch: u64, message: &BorrowedMessage<'_>) {
        // A revocation was served by this very poll: then the batch is thrown away by the caller.
        if *self.context.epoch.borrow() != epoch {
            *batch = Batch::new(*self.context.epoch.borrow());
        }
        match Source::of(message.topic(), &self.context.topics) {
            Some(source) => {
                let record = detach(source, message);
                self.context.note(record.from, |progress| progress.read = record.offset.saturating_add(1));
                batch.push(record);
            }
            None => tracing::warn!(topic = message.topic(), "a record of a topic that was not asked for"),
        }
    }

    fn pause_or_resume(&mut self, is_full: bool) {
        if is_full == self.is_paused {
            return;
        }
        let assignment = self.consumer.assignment();
        let done = assignment.and_then(|partitions| match is_full {
            true => self.consumer.pause(&partitions),
            false => self.consumer.resume(&partitions),
        });
        match done {
            Ok(()) => self.is_paused = is_full,
            Err(error) => {
                tracing::warn!(%error, is_full, "the sink's partitions could not be paused or resumed")
            }
        }
    }
}

/// Errors after which polling is no use.
fn is_fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, Fatal, GroupAuthorizationFailed,
        SaslAuthenticationFailed, TopicAuthorizationFailed,
    };
    let is_refusal = |code: RDKafkaErrorCode| {
        matches!(
            code,
            Authentication
                | ClusterAuthorizationFailed
                | Fatal
                | GroupAuthorizationFailed
                | SaslAuthenticationFailed
                | TopicAuthorizationFailed
        )
    };
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code().is_some_and(is_refusal)
}

fn detach(source: Source, message: &BorrowedMessage<'_>) -> Record {
    let headers = match (source, message.headers()) {
        (Source::Quarantine, Some(headers)) => headers
            .iter()
            .map(|header| (header.key.into(), header.value.unwrap_or_default().into()))
            .collect(),
        _ => Vec::new(),
    };
    Record {
        from: SourcePartition { source, partition: message.partition() },
        offset: message.offset(),
        timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0).max(0)),
        key: message.key().unwrap_or_default().into(),
        value: message.payload().map(Into::into),
        headers,
    }
}

impl Context {
    fn note(&self, of: SourcePartition, change: impl FnOnce(&mut Progress)) {
        change(lock(&self.progress).entry(of).or_default());
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(partitions) => {
                // librdkafka keeps a partition paused, and the position that it was paused at, over assignments.
                if let Err(error) = consumer.resume(partitions) {
                    tracing::warn!(%error, "the sink's partitions could not be resumed");
                }
                self.epoch.send_modify(|epoch| *epoch += 1);
                lock(&self.progress).clear();
                lock(&self.assigned).clear();
                self.owned.send_replace(BTreeSet::new());
                for element in partitions.elements() {
                    self.metrics.clear_lag(STAGE, element.topic(), &element.partition().to_string());
                }
                tracing::info!(partitions = partitions.count(), "the sink lets partitions go");
            }
            Rebalance::Assign(partitions) => {
                let elements = partitions.elements();
                let assigned = elements.iter().filter_map(|element| {
                    let source = Source::of(element.topic(), &self.topics)?;
                    Some(SourcePartition { source, partition: element.partition() })
                });
                *lock(&self.assigned) = assigned.collect();
                let of_ledger = elements.iter().filter(|element| element.topic() == self.topics.ledger);
                self.owned.send_replace(of_ledger.map(|element| element.partition()).collect());
                tracing::info!(partitions = partitions.count(), "the sink is given partitions");
            }
            Rebalance::Error(error) => tracing::warn!(%error, "the sink's group cannot be balanced"),
        }
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        for (topic, statistics) in &statistics.topics {
            let Some(source) = Source::of(topic, &self.topics) else {
                continue;
            };
            for partition in
                statistics.partitions.values().filter(|partition| partition.fetch_state == "active")
            {
                let of = SourcePartition { source, partition: partition.partition };
                if !lock(&self.assigned).contains(&of) {
                    continue;
                }
                let progress = lock(&self.progress).get(&of).copied().unwrap_or_default();
                let lag = lag_records(partition, progress);
                let labels = [STAGE, topic, &partition.partition.to_string()];
                self.metrics.lag_records.with_label_values(&labels).set(lag);
            }
        }
    }
}

/// Records that are not in ClickHouse yet. Where all that was read is there, only what is still to be read
/// counts: transaction markers take up offsets at the end of a partition, and are never read.
fn lag_records(partition: &Partition, progress: Progress) -> i64 {
    if progress.acknowledged < progress.read {
        let begin = progress.acknowledged.max(partition.committed_offset).max(partition.lo_offset);
        return partition.ls_offset.saturating_sub(begin).max(0);
    }
    let to_fetch = partition.ls_offset.saturating_sub(partition.next_offset).max(0);
    to_fetch.saturating_add(partition.fetchq_cnt)
}

/// A poisoned lock guards plain numbers here: a panic elsewhere leaves none half written.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librdkafka draws up statistics by itself: those of before a revocation may come after it, and their series would stay.
    #[test]
    fn the_lag_of_a_partition_that_was_taken_away_is_not_told_again() {
        let topics = Config::default().topics;
        let partition = Partition { partition: 1, fetch_state: "active".to_owned(), ..Partition::default() };
        let statistics = || {
            let mut statistics = Statistics::default();
            let topic = statistics.topics.entry(topics.ledger.clone()).or_default();
            topic.partitions.insert(1, partition.clone());
            statistics
        };
        let context = Context {
            epoch: watch::Sender::new(0),
            progress: Mutex::default(),
            assigned: Mutex::default(),
            topics: topics.clone(),
            metrics: Metrics::new(),
            owned: watch::Sender::new(BTreeSet::new()),
        };
        let told = || context.metrics.encode().contains(r#"creditstream_lag_records{partition="1""#);
        context.stats(statistics());
        assert!(!told());
        lock(&context.assigned).extend(
            Source::of(&topics.ledger, &topics).map(|source| SourcePartition { source, partition: 1 }),
        );
        context.stats(statistics());
        assert!(told());
    }
}
