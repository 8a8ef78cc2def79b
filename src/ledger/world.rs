//! What the ledger stage asks of Kafka, of the clocks and of threads, and the real thing behind it.
//!
//! **Invariant:** nothing here decides. Whatever answers these questions otherwise (the model of the simulation does) runs
//! the very same stage. All of it is static dispatch: a record costs nothing more.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::outbox::{HeaderRecord, OutTopic};
use crate::config::TopicsConfig;
use crate::kafka::{
    BatchTopic, Clients, ConnectionLog, GroupMetadata, KafkaConsumer, KafkaLog, OutgoingRecord, Polled,
    RecordView, TransactionError, TransactionalProducer, poll_events, serve_events, take_records, watermarks,
};
use crate::time::Timestamp;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes clients, tells the time, starts threads.
pub trait World: Clone + Send + Sync + 'static {
    /// A member of the ledger group.
    type Member: Member;
    /// Reads partitions, and knows their ends.
    type Reader: Reader;
    /// The producer of a worker.
    type Producer: Producer;

    /// The member of a worker.
    ///
    /// # Errors
    /// A setting that the client refuses.
    fn member(&self, worker: usize) -> KafkaResult<Self::Member>;
    /// A reader of its own.
    ///
    /// # Errors
    /// A setting that the client refuses.
    fn reader(&self) -> KafkaResult<Self::Reader>;
    /// The producer of a worker, not yet ready for transactions.
    ///
    /// # Errors
    /// A setting that the client refuses.
    fn producer(&self, worker: usize, topics: &TopicsConfig) -> KafkaResult<Self::Producer>;
    /// How many threads compute for each of so many workers.
    fn threads(&self, workers: usize) -> usize;
    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// Waits.
    fn sleep(&self, time: Duration);
    /// Starts a thread that nobody joins: it ends when its channels do.
    ///
    /// # Errors
    /// The system has no thread to give.
    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()>;
    /// Waits for what another thread sends; `None`: for as long as it takes.
    ///
    /// # Errors
    /// Nothing came in time, or nobody is left to send.
    fn receive<T>(&self, from: &Receiver<T>, timeout: Option<Duration>) -> Result<T, RecvTimeoutError>;
}

/// A member of the ledger group: `read_committed`, and a rebalance is a value that the poll brings.
pub trait Member: Send {
    /// Joins the group for these topics.
    ///
    /// # Errors
    /// The client refuses.
    fn subscribe(&self, topics: &[&str]) -> KafkaResult<()>;
    /// What the group knows of this member now.
    fn group(&self) -> Option<GroupMetadata>;
    /// What there is besides the records of assigned partitions; never waits.
    fn poll(&self, on_record: impl FnOnce(&RecordView<'_>)) -> Polled<()>;
    /// Takes records, as [`take_records`].
    fn take(
        &self,
        max: usize,
        timeout: Duration,
        on_record: impl FnMut(&RecordView<'_>),
        on_end: impl FnMut(&str, i32, i64),
    ) -> usize;
    /// Reads these partitions from there on.
    ///
    /// # Errors
    /// The client refuses.
    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()>;
    /// Gives all partitions back.
    ///
    /// # Errors
    /// The client refuses.
    fn unassign(&self) -> KafkaResult<()>;
    /// Reads these no more until they are assigned again.
    ///
    /// # Errors
    /// The client refuses.
    fn pause(&self, partitions: &TopicPartitionList) -> KafkaResult<()>;
    /// Reads on from there; the answer has an error for each that could not be sought.
    ///
    /// # Errors
    /// None could.
    fn seek(&self, places: TopicPartitionList) -> KafkaResult<TopicPartitionList>;
}

/// Reads partitions without being a member of any group, `read_committed`; knows both kinds of ends.
pub trait Reader: Send {
    /// The ledger group's committed offsets, once no transaction that moves them is open.
    ///
    /// # Errors
    /// The group's coordinator does not answer, or they stay open.
    fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList>;
    /// First offset and true end.
    ///
    /// # Errors
    /// The brokers do not answer.
    fn ends(&self, topic: &str, partition: i32) -> KafkaResult<(i64, i64)>;
    /// The last stable offset: the end for `read_committed`.
    ///
    /// # Errors
    /// The brokers do not answer.
    fn stable_end(&self, topic: &str, partition: i32) -> KafkaResult<i64>;
    /// The first offset whose record is not older than that, milliseconds since the epoch; `None`: there is none.
    ///
    /// # Errors
    /// The brokers do not answer.
    fn offset_at(&self, topic: &str, partition: i32, time_ms: i64) -> KafkaResult<Option<i64>>;
    /// Reads these partitions from there on.
    ///
    /// # Errors
    /// The client refuses.
    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()>;
    /// Reads none.
    ///
    /// # Errors
    /// The client refuses.
    fn unassign(&self) -> KafkaResult<()>;
    /// What there is besides the records of assigned partitions; never waits.
    fn poll(&self) -> Polled<()>;
    /// Takes records, as [`take_records`].
    fn take(
        &self,
        max: usize,
        timeout: Duration,
        on_record: impl FnMut(&RecordView<'_>),
        on_end: impl FnMut(&str, i32, i64),
    ) -> usize;
}

/// The producer of a worker.
pub trait Producer: Send {
    /// Its transactions.
    type Transactions: TransactionalProducer;
    /// Its transactions.
    fn transactions(&self) -> &Self::Transactions;
    /// How often it has lost a connection to a broker.
    fn connections_lost(&self) -> u64;
    /// Learns of the topics that batches go to. Once, after `init`.
    ///
    /// # Errors
    /// The brokers do not answer, or do not know them.
    fn open(&mut self, timeout: Duration) -> KafkaResult<()>;
    /// Queues records.
    ///
    /// # Errors
    /// As [`BatchTopic::produce`].
    fn produce<'a>(
        &self,
        topic: OutTopic,
        records: impl Iterator<Item = OutgoingRecord<'a>>,
    ) -> Result<(), TransactionError>;
    /// Queues a record with headers.
    ///
    /// # Errors
    /// The queue does not take it: abort the transaction.
    fn produce_one(&self, record: &HeaderRecord<'_>) -> Result<(), TransactionError>;
}

/// More threads would outrun the client that sends what a worker computes.
const THREADS_MAX: usize = 4;

/// The real thing.
#[derive(Clone)]
pub struct RealWorld(pub Clients);

impl World for RealWorld {
    type Member = KafkaConsumer;
    type Reader = RealReader;
    type Producer = RealProducer;

    fn member(&self, worker: usize) -> KafkaResult<KafkaConsumer> {
        self.0.ledger_consumer(worker)
    }

    fn reader(&self) -> KafkaResult<RealReader> {
        Ok(RealReader {
            reader: self.0.committed_reader("restore")?,
            ends: self.0.watermark_reader("ends")?,
            group: self.0.ledger_group_reader()?,
        })
    }

    fn producer(&self, worker: usize, topics: &TopicsConfig) -> KafkaResult<RealProducer> {
        let client = Arc::new(self.0.transactional_producer(worker)?);
        Ok(RealProducer { open: None, names: topics.clone(), client })
    }

    fn threads(&self, workers: usize) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        (cores / workers.max(1)).clamp(1, THREADS_MAX)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
    }

    fn receive<T>(&self, from: &Receiver<T>, timeout: Option<Duration>) -> Result<T, RecvTimeoutError> {
        match timeout {
            Some(timeout) => from.recv_timeout(timeout),
            None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

impl Member for KafkaConsumer {
    fn subscribe(&self, topics: &[&str]) -> KafkaResult<()> {
        Consumer::subscribe(&**self, topics)
    }

    fn group(&self) -> Option<GroupMetadata> {
        GroupMetadata::read(self)
    }

    fn poll(&self, on_record: impl FnOnce(&RecordView<'_>)) -> Polled<()> {
        poll_events(self, Duration::ZERO, on_record)
    }

    fn take(
        &self,
        max: usize,
        timeout: Duration,
        on_record: impl FnMut(&RecordView<'_>),
        on_end: impl FnMut(&str, i32, i64),
    ) -> usize {
        take_records(self, max, timeout, on_record, on_end)
    }

    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()> {
        end_pauses(self)?;
        self.assign_gathered(places)
    }

    fn unassign(&self) -> KafkaResult<()> {
        end_pauses(self)?;
        Consumer::unassign(&**self)
    }

    fn pause(&self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        Consumer::pause(&**self, partitions)
    }

    fn seek(&self, places: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        self.seek_partitions(places, REQUEST_TIMEOUT)
    }
}

/// librdkafka keeps a partition paused, and the position that it was paused at, over assignments.
fn end_pauses(member: &KafkaConsumer) -> KafkaResult<()> {
    member.resume(&member.assignment()?)
}

/// Three clients, as isolation and group are settings of a client.
pub struct RealReader {
    reader: KafkaConsumer,
    ends: BaseConsumer<KafkaLog>,
    group: BaseConsumer<KafkaLog>,
}

impl Reader for RealReader {
    fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        self.group.committed_offsets(partitions, REQUEST_TIMEOUT)
    }

    fn ends(&self, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
        watermarks(&self.ends, topic, partition)
    }

    fn stable_end(&self, topic: &str, partition: i32) -> KafkaResult<i64> {
        watermarks(&self.reader, topic, partition).map(|(_, end)| end)
    }

    fn offset_at(&self, topic: &str, partition: i32, time_ms: i64) -> KafkaResult<Option<i64>> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(topic, partition, Offset::Offset(time_ms))?;
        let found = self.ends.offsets_for_times(wanted, OFFSETS_TIMEOUT)?;
        Ok(match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        })
    }

    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()> {
        self.reader.assign_unsubscribed(places, REQUEST_TIMEOUT)
    }

    fn unassign(&self) -> KafkaResult<()> {
        Consumer::unassign(&*self.reader)
    }

    fn poll(&self) -> Polled<()> {
        poll_events(&self.reader, Duration::ZERO, |_| ())
    }

    fn take(
        &self,
        max: usize,
        timeout: Duration,
        on_record: impl FnMut(&RecordView<'_>),
        on_end: impl FnMut(&str, i32, i64),
    ) -> usize {
        take_records(&self.reader, max, timeout, on_record, on_end)
    }
}

/// A producer with its topics. The topics go first.
pub struct RealProducer {
    open: Option<OpenTopics>,
    names: TopicsConfig,
    client: Arc<BaseProducer<ConnectionLog>>,
}

struct OpenTopics {
    ledger: BatchTopic<ConnectionLog>,
    alerts: BatchTopic<ConnectionLog>,
    wallets: BatchTopic<ConnectionLog>,
    progress: BatchTopic<ConnectionLog>,
}

impl Producer for RealProducer {
    type Transactions = BaseProducer<ConnectionLog>;

    fn transactions(&self) -> &BaseProducer<ConnectionLog> {
        &self.client
    }

    fn connections_lost(&self) -> u64 {
        // What was lost just now is still to be heard of.
        serve_events(&self.client);
        self.client.client().context().lost()
    }

    fn open(&mut self, timeout: Duration) -> KafkaResult<()> {
        let open = |name: &str| BatchTopic::open(&self.client, name, timeout);
        self.open = Some(OpenTopics {
            ledger: open(&self.names.ledger)?,
            alerts: open(&self.names.alerts)?,
            wallets: open(&self.names.wallets)?,
            progress: open(&self.names.progress)?,
        });
        Ok(())
    }

    fn produce<'a>(
        &self,
        topic: OutTopic,
        records: impl Iterator<Item = OutgoingRecord<'a>>,
    ) -> Result<(), TransactionError> {
        let open = self.open.as_ref().ok_or_else(|| {
            not_queued(RDKafkaErrorCode::State, "a record came before the topics were opened".to_owned())
        })?;
        match topic {
            OutTopic::Ledger => open.ledger.produce(records),
            OutTopic::Alerts => open.alerts.produce(records),
            OutTopic::Wallets => open.wallets.produce(records),
            OutTopic::Progress => open.progress.produce(records),
        }
    }

    fn produce_one(&self, record: &HeaderRecord<'_>) -> Result<(), TransactionError> {
        let topic = if record.is_quarantine { &self.names.quarantine } else { &self.names.intake };
        let none = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record
            .headers
            .iter()
            .fold(none, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let mut out: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(record.partition).headers(headers);
        if let Some(key) = record.key {
            out = out.key(key);
        }
        if let Some(value) = record.value {
            out = out.payload(value);
        }
        self.client.send(out).map_err(|(cause, _)| {
            not_queued(
                cause.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
                format!("a record for topic {topic} could not be queued: {cause}"),
            )
        })
    }
}

fn not_queued(code: RDKafkaErrorCode, message: String) -> TransactionError {
    TransactionError {
        step: "produce",
        code,
        message,
        is_fatal: false,
        requires_abort: true,
        is_retriable: false,
    }
}
