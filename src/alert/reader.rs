//! Owns an endpoint's Kafka consumer: a thread that reads, commits as it is told, and says when partitions go.
//!
//! **Invariant:** events come in the order in which they happened. What was read before [`Event::Revoked`] is worth
//! nothing after it: whoever owns the partition then reads it again from the committed position. A position is
//! committed only where [`Reader::commit`] says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::dead::{ENDPOINT, REPLAY_OF};
use super::endpoint::wanted;
use super::queue::{Place, Source};
use crate::config::{Config, EndpointConfig, TopicsConfig};
use crate::fault::fault_point;
use crate::kafka::{Clients, KafkaLog, ReadError, RecordView, Stretch, TopicReader};
use crate::time::Timestamp;

/// Longest poll: how soon a commit or a stop is noticed.
const POLL_MAX: Duration = Duration::from_millis(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two commits: so much is sent again after a kill.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// Pause before the brokers are asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A record as it was read.
#[derive(Debug)]
pub struct Received {
    /// Where it stands.
    pub place: Place,
    /// Kafka's timestamp.
    pub timestamp: Timestamp,
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
    /// Of a replay: the endpoint that it is for.
    pub replay_for: Option<String>,
}

/// Alerts that an endpoint wants and does not get, for they were too old when its group got its first positions.
#[derive(Clone, Copy, Debug)]
pub struct PassedOver {
    /// How many.
    pub alerts: u64,
    /// Kafka's timestamp of the first one.
    pub oldest: Timestamp,
    /// And of the last.
    pub newest: Timestamp,
}

/// What the thread says.
#[derive(Debug)]
pub enum Event {
    /// Before anything is read: what is passed over.
    PassedOver(PassedOver),
    /// A record.
    Record(Received),
    /// All partitions were taken away.
    Revoked,
    /// The thread has ended.
    Ended(KafkaError),
}

/// Positions of one epoch: the number of [`Event::Revoked`] before them.
type Commit = (u64, Vec<(Source, i32, i64)>);

struct Context {
    events: mpsc::UnboundedSender<Event>,
    epoch: AtomicU64,
    endpoint: String,
}

/// The task's handle on the thread.
pub struct Reader {
    events: mpsc::UnboundedReceiver<Event>,
    commits: std::sync::mpsc::Sender<Commit>,
    /// Records that the task holds or that are on their way to it: the thread reads no further than to the bound.
    held: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    epoch: u64,
}

impl Reader {
    /// Joins the endpoint's group and begins to read.
    ///
    /// # Errors
    /// Where the client cannot be made; a broker that is away is no error.
    pub fn start(config: &Arc<Config>, endpoint: &EndpointConfig) -> KafkaResult<Reader> {
        let (sender, events) = mpsc::unbounded_channel();
        let context = Context { events: sender, epoch: AtomicU64::new(0), endpoint: endpoint.name.clone() };
        let clients = Clients::new(Arc::clone(config));
        let group = config.dispatcher.group_of(endpoint);
        let consumer = clients.group_member("dispatcher", &group, context)?;
        let (commits, requests) = std::sync::mpsc::channel();
        let (held, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut reading = Reading {
            consumer,
            config: Arc::clone(config),
            endpoint: endpoint.clone(),
            requests,
            held: Arc::clone(&held),
            stop: Arc::clone(&stop),
            is_paused: false,
            epoch: 0,
            to_commit: TopicPartitionList::new(),
            committed_at: Instant::now(),
        };
        let spawned =
            std::thread::Builder::new().name("alert-reader".to_owned()).spawn(move || reading.run());
        let thread = spawned.map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
        Ok(Reader { events, commits, held, stop, thread: Some(thread), epoch: 0 })
    }

    /// The next event. Dropping the future loses none.
    pub async fn next(&mut self) -> Event {
        let event = self.events.recv().await.unwrap_or(Event::Ended(KafkaError::Canceled));
        if matches!(event, Event::Revoked) {
            self.epoch += 1;
        }
        event
    }

    /// Has positions committed, soon. One that is lost is covered by the next.
    pub fn commit(&self, positions: Vec<(Source, i32, i64)>) {
        // An error says that the thread has ended, which the next event says too.
        let _ = self.commits.send((self.epoch, positions));
    }

    /// Says that the task holds so many records less.
    pub fn release(&self, count: usize) {
        self.held.fetch_sub(count, Ordering::Relaxed);
    }

    /// Commits what is left and leaves the group. Waits at most `patience`: the thread may hang on a broker that is away.
    pub async fn stop(mut self, patience: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The thread.
struct Reading {
    consumer: BaseConsumer<Context>,
    config: Arc<Config>,
    endpoint: EndpointConfig,
    requests: std::sync::mpsc::Receiver<Commit>,
    held: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    is_paused: bool,
    /// That of `to_commit` and of `is_paused`.
    epoch: u64,
    to_commit: TopicPartitionList,
    committed_at: Instant,
}

impl Reading {
    fn run(&mut self) {
        while let Err(error) = self.place_new_group() {
            tracing::warn!(%error, "the positions of an endpoint's group cannot be read: trying again");
            std::thread::sleep(RETRY_PAUSE);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
        let topics = [Source::Alerts, Source::Dead].map(|source| source.topic(&self.config.topics));
        if let Err(error) = self.consumer.subscribe(&topics) {
            return self.end(error);
        }
        while !self.stop.load(Ordering::Relaxed) {
            self.begin_epoch();
            self.collect_positions();
            if self.committed_at.elapsed() >= COMMIT_EVERY {
                self.commit();
            }
            self.pause_or_resume();
            match self.consumer.poll(POLL_MAX) {
                Some(Ok(message)) => self.hand_over(&message),
                None => {}
                Some(Err(error)) if is_fatal(&error) => return self.end(error),
                Some(Err(error)) => {
                    tracing::warn!(%error, "an endpoint's consumer: it tries again by itself")
                }
            }
        }
        self.collect_positions();
        self.commit();
    }

    /// What was assigned anew is not paused, and positions of before are somebody else's.
    fn begin_epoch(&mut self) {
        let epoch = self.consumer.context().epoch.load(Ordering::Relaxed);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.is_paused = false;
            self.to_commit = TopicPartitionList::new();
        }
    }

    fn end(&self, error: KafkaError) {
        // An error says that nobody listens.
        let _ = self.consumer.context().events.send(Event::Ended(error));
    }

    /// Gives a group that has no position one that does not depend on when it first commits: it begins with the alerts
    /// that are not too old to be sent. Whether the endpoint is new, or its positions were lost, cannot be told: what is
    /// passed over is said in either case.
    fn place_new_group(&self) -> Result<(), ReadError> {
        let begin_ms =
            Timestamp::now().millis() - i64::from(self.config.dispatcher.give_up_after_seconds) * 1_000;
        let mut partitions = TopicPartitionList::new();
        for source in [Source::Alerts, Source::Dead] {
            let topic = source.topic(&self.config.topics);
            let metadata = self.consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                partitions.add_partition(topic, partition.id());
            }
        }
        let committed = self.consumer.committed_offsets(partitions, REQUEST_TIMEOUT)?;
        let mut unplaced = TopicPartitionList::new();
        for element in committed.elements() {
            if !matches!(element.offset(), Offset::Offset(_)) {
                unplaced.add_partition_offset(
                    element.topic(),
                    element.partition(),
                    Offset::Offset(begin_ms),
                )?;
            }
        }
        if unplaced.count() == 0 {
            return Ok(());
        }
        let found = self.consumer.offsets_for_times(unplaced, REQUEST_TIMEOUT)?;
        let mut placed = TopicPartitionList::new();
        for element in found.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                // All of it is older.
                _ => self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?.1,
            };
            placed.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        // Before the positions are committed: a crash in between says it twice rather than never.
        if let Some(passed_over) = self.passed_over(&placed)? {
            let _ = self.consumer.context().events.send(Event::PassedOver(passed_over));
        }
        if let Err(error) = self.consumer.commit(&placed, CommitMode::Sync) {
            // The group has members: another instance has placed it.
            tracing::info!(%error, "the group's first positions were not committed");
        }
        fault_point!("dispatcher.group_placed");
        Ok(())
    }

    /// What the endpoint would have wanted of what stands before these positions.
    fn passed_over(&self, placed: &TopicPartitionList) -> Result<Option<PassedOver>, ReadError> {
        let reader = TopicReader::new(&Clients::new(Arc::clone(&self.config)), "dispatcher")?;
        let mut found: Option<PassedOver> = None;
        for source in [Source::Alerts, Source::Dead] {
            let topic = source.topic(&self.config.topics);
            let mut stretches = Vec::new();
            for element in placed.elements_for_topic(topic) {
                if let Offset::Offset(to) = element.offset() {
                    stretches.push(Stretch { to, ..reader.whole(topic, element.partition())? });
                }
            }
            reader.read(topic, &stretches, |record| {
                if let Ok(item) = wanted(&self.endpoint, received(source, record)) {
                    let at = item.since;
                    let so_far = found.unwrap_or(PassedOver { alerts: 0, oldest: at, newest: at });
                    found = Some(PassedOver {
                        alerts: so_far.alerts + 1,
                        oldest: so_far.oldest.min(at),
                        newest: so_far.newest.max(at),
                    });
                }
            })?;
        }
        Ok(found)
    }

    fn hand_over(&self, message: &BorrowedMessage<'_>) {
        let Some(source) = Source::of(message.topic(), &self.config.topics) else { return };
        let header = |wanted: &str| {
            let headers = message.headers()?;
            let found = headers.iter().find(|header| header.key == wanted)?;
            Some(String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned())
        };
        let received = Received {
            place: Place { source, partition: message.partition(), offset: message.offset() },
            timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0).max(0)),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            replay_for: header(REPLAY_OF).and_then(|_| header(ENDPOINT)),
        };
        self.held.fetch_add(1, Ordering::Relaxed);
        let _ = self.consumer.context().events.send(Event::Record(received));
    }

    fn collect_positions(&mut self) {
        while let Ok((epoch, positions)) = self.requests.try_recv() {
            if epoch != self.epoch {
                continue;
            }
            for (source, partition, offset) in positions {
                let topic = source.topic(&self.config.topics);
                let done = match self.to_commit.find_partition(topic, partition) {
                    Some(mut element) => element.set_offset(Offset::Offset(offset)),
                    None => self.to_commit.add_partition_offset(topic, partition, Offset::Offset(offset)),
                };
                if let Err(error) = done {
                    tracing::warn!(%error, topic, partition, offset, "not a position");
                }
            }
        }
    }

    /// Blocks the thread while the broker is away; it has nothing else to do then.
    fn commit(&mut self) {
        if self.to_commit.count() == 0 {
            return;
        }
        self.committed_at = Instant::now();
        match self.consumer.commit(&self.to_commit, CommitMode::Sync) {
            Ok(()) => {
                fault_point!("dispatcher.positions_committed");
                self.to_commit = TopicPartitionList::new();
            }
            Err(error) => tracing::warn!(%error, "an endpoint's positions were not committed: trying again"),
        }
    }

    fn pause_or_resume(&mut self) {
        let held = self.held.load(Ordering::Relaxed);
        let bound = self.config.dispatcher.pending_max;
        let should_pause = if self.is_paused { held > bound / 2 } else { held >= bound };
        if should_pause == self.is_paused {
            return;
        }
        let assignment = self.consumer.assignment();
        let done = assignment.and_then(|partitions| match should_pause {
            true => self.consumer.pause(&partitions),
            false => self.consumer.resume(&partitions),
        });
        match done {
            Ok(()) => self.is_paused = should_pause,
            Err(error) => tracing::warn!(%error, "an endpoint's partitions could not be paused or resumed"),
        }
    }
}

fn received(source: Source, record: &RecordView<'_>) -> Received {
    let (mut is_replay, mut endpoint) = (false, None);
    record.for_each_header(|name, value| match name {
        REPLAY_OF => is_replay = true,
        ENDPOINT => endpoint = Some(String::from_utf8_lossy(value).into_owned()),
        _ => {}
    });
    Received {
        place: Place { source, partition: record.partition, offset: record.offset },
        timestamp: Timestamp::from_millis(record.timestamp.max(0)),
        key: record.key.unwrap_or_default().to_vec(),
        value: record.value.unwrap_or_default().to_vec(),
        replay_for: endpoint.filter(|_| is_replay),
    }
}

/// Errors after which polling is no use.
fn is_fatal(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, Fatal, GroupAuthorizationFailed,
        SaslAuthenticationFailed, TopicAuthorizationFailed,
    };
    let refusals = [
        Authentication,
        ClusterAuthorizationFailed,
        Fatal,
        GroupAuthorizationFailed,
        SaslAuthenticationFailed,
        TopicAuthorizationFailed,
    ];
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code().is_some_and(|code| refusals.contains(&code))
}

impl Source {
    fn topic(self, topics: &TopicsConfig) -> &str {
        match self {
            Source::Alerts => &topics.alerts,
            Source::Dead => &topics.alerts_dead,
        }
    }

    fn of(topic: &str, topics: &TopicsConfig) -> Option<Source> {
        [Source::Alerts, Source::Dead].into_iter().find(|source| source.topic(topics) == topic)
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(_) => {
                self.epoch.fetch_add(1, Ordering::Relaxed);
                let _ = self.events.send(Event::Revoked);
            }
            Rebalance::Assign(partitions) => {
                tracing::info!(endpoint = self.endpoint, partitions = partitions.count(), "alerts are read");
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, endpoint = self.endpoint, "an endpoint's group cannot be balanced")
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        KafkaLog.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        KafkaLog.error(error, reason);
    }
}
