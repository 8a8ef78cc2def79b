//! The calls into librdkafka that the safe API lacks, and the only `unsafe` code of the product.
//!
//! - Queue events: an end of partition with its topic, and a rebalance as a value that the polling loop handles
//!   itself, instead of a callback.
//! - Producing a whole batch in one call, a flush that waits for acknowledgements instead of polling to its
//!   deadline (rust-rdkafka's takes 100 ms each time), and transactions whose errors keep their class.
//! - The generation of a group member, without which nobody can tell a zombie.
//! - Topic ids: a topic deleted and made anew has the same name.
//!
//! Every pointer that librdkafka hands out is either borrowed for the length of one function, or owned by a
//! struct whose `Drop` gives it back.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka_sys as rd;
use thiserror::Error;

/// A record, borrowed from librdkafka for as long as it is looked at.
pub struct RecordView<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since the epoch; -1: none.
    pub timestamp: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    message: *const rd::rd_kafka_message_t,
}

/// What a poll brought.
#[derive(Debug)]
pub enum Polled<R> {
    /// A record, as the caller took it.
    Record(R),
    /// Everything up to `offset` has been read.
    EndOfPartition {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The next offset.
        offset: i64,
    },
    /// The group gives these partitions; the caller must answer with `assign`.
    Assigned(Vec<(String, i32)>),
    /// The group takes all partitions back; the caller must answer with `unassign`.
    Revoked,
    /// An error of the client. librdkafka recovers by itself from those that are not fatal.
    Error {
        /// Its code.
        code: RDKafkaErrorCode,
        /// Its words.
        message: String,
        /// Whether only a new client helps.
        is_fatal: bool,
    },
    /// Nothing until the timeout, or an event of no interest.
    Nothing,
}

struct OwnedEvent(*mut rd::rd_kafka_event_t);

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_poll, owned here.
        unsafe { rd::rd_kafka_event_destroy(self.0) }
    }
}

/// A consumer with its queue at hand.
pub struct PolledConsumer<C: ConsumerContext + 'static> {
    queue: *mut rd::rd_kafka_queue_t,
    /// The client must outlive the queue's handle.
    consumer: BaseConsumer<C>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl<C: ConsumerContext + 'static> Send for PolledConsumer<C> {}

impl<C: ConsumerContext + 'static> Drop for PolledConsumer<C> {
    fn drop(&mut self) {
        // SAFETY: a counted reference of ours; the client is still there.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) }
    }
}

impl<C: ConsumerContext + 'static> std::ops::Deref for PolledConsumer<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        &self.consumer
    }
}

impl<C: ConsumerContext + 'static> PolledConsumer<C> {
    /// Takes the queue of a consumer that has a group.
    ///
    /// # Errors
    /// It has no group, and so no queue of its own.
    pub fn new(consumer: BaseConsumer<C>) -> Result<PolledConsumer<C>, KafkaError> {
        // SAFETY: a counted reference, given back on drop.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        if queue.is_null() {
            return Err(KafkaError::ClientCreation("a consumer without a group has no queue".to_owned()));
        }
        Ok(PolledConsumer { queue, consumer })
    }
}

/// Polls a consumer's queue once. `on_record` sees a record where it lies.
pub fn poll_events<C: ConsumerContext, R>(
    consumer: &PolledConsumer<C>,
    timeout: Duration,
    on_record: impl FnOnce(&RecordView<'_>) -> R,
) -> Polled<R> {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the queue lives as long as `consumer`; the event is owned by `event`.
    let event = unsafe { rd::rd_kafka_queue_poll(consumer.queue, timeout_ms) };
    if event.is_null() {
        return Polled::Nothing;
    }
    let event = OwnedEvent(event);
    // SAFETY: the event lives until the end of this function, and all that is borrowed from it no longer.
    unsafe {
        match rd::rd_kafka_event_type(event.0) {
            rd::RD_KAFKA_EVENT_FETCH => record(&event, on_record),
            rd::RD_KAFKA_EVENT_ERROR => error(&event),
            rd::RD_KAFKA_EVENT_REBALANCE => rebalance(&event),
            _ => Polled::Nothing,
        }
    }
}

unsafe fn record<R>(event: &OwnedEvent, on_record: impl FnOnce(&RecordView<'_>) -> R) -> Polled<R> {
    // SAFETY: the message belongs to the event.
    unsafe {
        let message = rd::rd_kafka_event_message_next(event.0);
        if message.is_null() {
            return Polled::Nothing;
        }
        let fields = &*message;
        let view = RecordView {
            topic: text(rd::rd_kafka_topic_name(fields.rkt)),
            partition: fields.partition,
            offset: fields.offset,
            timestamp: rd::rd_kafka_message_timestamp(message, std::ptr::null_mut()),
            key: bytes(fields.key, fields.key_len),
            value: bytes(fields.payload, fields.len),
            message,
        };
        Polled::Record(on_record(&view))
    }
}

unsafe fn error<R>(event: &OwnedEvent) -> Polled<R> {
    // SAFETY: strings and partition belong to the event or are given back.
    unsafe {
        let code = rd::rd_kafka_event_error(event.0);
        if code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
            let place = rd::rd_kafka_event_topic_partition(event.0);
            if place.is_null() {
                return Polled::Nothing;
            }
            let end = Polled::EndOfPartition {
                topic: text((*place).topic).to_owned(),
                partition: (*place).partition,
                offset: (*place).offset,
            };
            rd::rd_kafka_topic_partition_destroy(place);
            return end;
        }
        Polled::Error {
            code: code.into(),
            message: text(rd::rd_kafka_event_error_string(event.0)).to_owned(),
            is_fatal: rd::rd_kafka_event_error_is_fatal(event.0) != 0,
        }
    }
}

unsafe fn rebalance<R>(event: &OwnedEvent) -> Polled<R> {
    // SAFETY: the list belongs to the event.
    unsafe {
        if rd::rd_kafka_event_error(event.0) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
        {
            return Polled::Revoked;
        }
        let list = rd::rd_kafka_event_topic_partition_list(event.0);
        let mut partitions = Vec::new();
        if !list.is_null() && (*list).cnt > 0 {
            for element in std::slice::from_raw_parts((*list).elems, (*list).cnt as usize) {
                partitions.push((text(element.topic).to_owned(), element.partition));
            }
        }
        Polled::Assigned(partitions)
    }
}

impl RecordView<'_> {
    /// Calls `each` with every header, in order. A name that is not UTF-8 is passed over.
    pub fn for_each_header(&self, mut each: impl FnMut(&str, &[u8])) {
        let mut headers = std::ptr::null_mut();
        // SAFETY: headers belong to the message, which outlives this view.
        unsafe {
            let found = rd::rd_kafka_message_headers(self.message, &mut headers);
            if found != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            for index in 0.. {
                let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
                let found = rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
                if found != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                if let Ok(name) = CStr::from_ptr(name).to_str() {
                    each(name, bytes(value as *mut c_void, size).unwrap_or_default());
                }
            }
        }
    }
}

unsafe fn bytes<'a>(from: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: librdkafka gives a pointer and a length that belong together; null is "none".
    (!from.is_null()).then(|| unsafe { std::slice::from_raw_parts(from as *const u8, length) })
}

unsafe fn text<'a>(from: *const c_char) -> &'a str {
    if from.is_null() {
        return "";
    }
    // SAFETY: librdkafka's strings end with 0.
    unsafe { CStr::from_ptr(from) }.to_str().unwrap_or("")
}

/// What the group knew of this member when it was asked.
pub struct GroupMetadata(*mut rd::rd_kafka_consumer_group_metadata_t);

// SAFETY: the object is immutable, and owned by one thread at a time.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// Reads it; `None` for a consumer without a group.
    pub fn read<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<GroupMetadata> {
        // SAFETY: a new object, owned by the result.
        let metadata = unsafe { rd::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
        (!metadata.is_null()).then_some(GroupMetadata(metadata))
    }

    /// The generation; below 0: no member (any more).
    pub fn generation(&self) -> i32 {
        // SAFETY: owned.
        unsafe { rd::rd_kafka_consumer_group_metadata_generation_id(self.0) }
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.0) }
    }
}

/// Why a step of a transaction failed. Ask `is_fatal` first: only a new producer helps then.
#[derive(Clone, Debug, Error)]
#[error("{step}: {message} ({code:?})")]
pub struct TransactionError {
    /// The step.
    pub step: &'static str,
    /// Its code.
    pub code: RDKafkaErrorCode,
    /// Its words.
    pub message: String,
    /// Whether the producer is done for.
    pub is_fatal: bool,
    /// Whether the transaction must be aborted.
    pub requires_abort: bool,
    /// Whether the same call may be tried again.
    pub is_retriable: bool,
}

unsafe fn transaction_result(
    step: &'static str,
    error: *mut rd::rd_kafka_error_t,
) -> Result<(), TransactionError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error of ours, given back below.
    unsafe {
        let failure = TransactionError {
            step,
            code: rd::rd_kafka_error_code(error).into(),
            message: text(rd::rd_kafka_error_string(error)).to_owned(),
            is_fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
            is_retriable: rd::rd_kafka_error_is_retriable(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

/// `RD_KAFKA_PARTITION_UA`: with `MSG_F_PARTITION` each record names its own.
const PARTITION_OF_RECORD: i32 = -1;

/// A record on its way out: ranges of one buffer.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    /// Partition: always named, no client's partitioner is trusted with it.
    pub partition: i32,
    /// Key.
    pub key: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

/// A topic that batches are produced to, with its partitions known to the client.
///
/// librdkafka puts a record of a batch onto "no partition" while it does not know the topic's partitions yet, and
/// then fails the transaction. So a handle asks for them first, and keeps the topic known for as long as it lives.
pub struct BatchTopic<C: ProducerContext + 'static> {
    handle: *mut rd::rd_kafka_topic_t,
    name: String,
    /// The client must outlive the handle.
    _producer: Arc<BaseProducer<C>>,
}

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl<C: ProducerContext + 'static> Send for BatchTopic<C> {}

impl<C: ProducerContext + 'static> Drop for BatchTopic<C> {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_topic_new, owned here; the client is still there.
        unsafe { rd::rd_kafka_topic_destroy(self.handle) }
    }
}

impl<C: ProducerContext + 'static> BatchTopic<C> {
    /// Asks the brokers about the topic.
    ///
    /// # Errors
    /// They do not answer, or do not know it.
    pub fn open(
        producer: &Arc<BaseProducer<C>>,
        name: &str,
        timeout: Duration,
    ) -> Result<BatchTopic<C>, KafkaError> {
        let c_name = CString::new(name)
            .map_err(|_| KafkaError::ClientCreation(format!("topic name {name:?} has a NUL")))?;
        // SAFETY: the client lives as long as `producer`; the handle is counted.
        let handle = unsafe {
            rd::rd_kafka_topic_new(producer.client().native_ptr(), c_name.as_ptr(), std::ptr::null_mut())
        };
        if handle.is_null() {
            return Err(KafkaError::ClientCreation(format!("topic {name:?} cannot be opened")));
        }
        let topic = BatchTopic { handle, name: name.to_owned(), _producer: Arc::clone(producer) };
        let metadata = producer.client().fetch_metadata(Some(name), timeout)?;
        if metadata.topics().first().is_none_or(|topic| topic.partitions().is_empty()) {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        Ok(topic)
    }

    /// Copies the records into the producer's queue, in one call.
    ///
    /// # Errors
    /// The first record's error; those before it are in the queue: abort the transaction.
    pub fn produce<'a>(
        &self,
        records: impl ExactSizeIterator<Item = OutgoingRecord<'a>>,
    ) -> Result<(), TransactionError> {
        let failure = |code: RDKafkaErrorCode| TransactionError {
            step: "produce",
            code,
            message: format!("a record for topic {} could not be queued", self.name),
            is_fatal: false,
            requires_abort: true,
            is_retriable: false,
        };
        let mut messages: Vec<rd::rd_kafka_message_t> = records
            .map(|record| rd::rd_kafka_message_t {
                err: rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: std::ptr::null_mut(),
                partition: record.partition,
                payload: record.value.as_ptr() as *mut c_void,
                len: record.value.len(),
                key: record.key.as_ptr() as *mut c_void,
                key_len: record.key.len(),
                offset: 0,
                _private: std::ptr::null_mut(),
            })
            .collect();
        let count = i32::try_from(messages.len()).map_err(|_| failure(RDKafkaErrorCode::InvalidArgument))?;
        let flags = rd::RD_KAFKA_MSG_F_COPY | rd::RD_KAFKA_MSG_F_PARTITION;
        // SAFETY: librdkafka copies key and value (MSG_F_COPY) before it returns.
        let queued = unsafe {
            rd::rd_kafka_produce_batch(self.handle, PARTITION_OF_RECORD, flags, messages.as_mut_ptr(), count)
        };
        if queued == count {
            return Ok(());
        }
        let failed = messages
            .iter()
            .find(|message| message.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
        Err(failure(failed.map_or(RDKafkaErrorCode::Unknown, |message| message.err.into())))
    }
}

/// The steps of a transaction, with errors that keep their class.
pub trait TransactionalProducer {
    /// Fences earlier producers of this `transactional.id` and settles what they left.
    ///
    /// # Errors
    /// Retriable ones may be tried again.
    fn init(&self, timeout: Duration) -> Result<(), TransactionError>;
    /// Begins.
    ///
    /// # Errors
    /// Fatal ones need a new producer.
    fn begin(&self) -> Result<(), TransactionError>;
    /// Waits until every record is acknowledged or has failed.
    ///
    /// # Errors
    /// Those of the deadline.
    fn flush_all(&self, timeout: Duration) -> Result<(), TransactionError>;
    /// Puts consumed offsets into the transaction.
    ///
    /// # Errors
    /// Abortable where the group knows another generation by now.
    fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), TransactionError>;
    /// Commits. Call [`TransactionalProducer::flush_all`] before.
    ///
    /// # Errors
    /// Retriable: the outcome is not known yet, the same call must be repeated.
    fn commit(&self, timeout: Duration) -> Result<(), TransactionError>;
    /// Aborts, dropping what is in the queue.
    ///
    /// # Errors
    /// Retriable: repeat the same call.
    fn abort(&self, timeout: Duration) -> Result<(), TransactionError>;
}

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

impl<C: ProducerContext> TransactionalProducer for BaseProducer<C> {
    fn init(&self, timeout: Duration) -> Result<(), TransactionError> {
        // SAFETY: the client lives as long as `self`; so below.
        unsafe {
            let error = rd::rd_kafka_init_transactions(self.client().native_ptr(), millis(timeout));
            transaction_result("init_transactions", error)
        }
    }

    fn begin(&self) -> Result<(), TransactionError> {
        unsafe {
            transaction_result(
                "begin_transaction",
                rd::rd_kafka_begin_transaction(self.client().native_ptr()),
            )
        }
    }

    fn flush_all(&self, timeout: Duration) -> Result<(), TransactionError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Failed deliveries are events that wait to be polled, and count as in flight until then.
            self.poll(Duration::ZERO);
            let result = unsafe { rd::rd_kafka_flush(self.client().native_ptr(), 100) };
            if result == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(TransactionError {
                    step: "flush",
                    code: result.into(),
                    message: format!(
                        "{} records were not acknowledged in {timeout:?}",
                        self.in_flight_count()
                    ),
                    is_fatal: false,
                    requires_abort: true,
                    is_retriable: false,
                });
            }
        }
    }

    fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), TransactionError> {
        unsafe {
            let client = self.client().native_ptr();
            let error =
                rd::rd_kafka_send_offsets_to_transaction(client, offsets.ptr(), group.0, millis(timeout));
            transaction_result("send_offsets_to_transaction", error)
        }
    }

    fn commit(&self, timeout: Duration) -> Result<(), TransactionError> {
        unsafe {
            let error = rd::rd_kafka_commit_transaction(self.client().native_ptr(), millis(timeout));
            transaction_result("commit_transaction", error)
        }
    }

    fn abort(&self, timeout: Duration) -> Result<(), TransactionError> {
        // An abort purges the queue and waits for the reports of what it purged, so these must be polled.
        unsafe {
            let client = self.client().native_ptr();
            rd::rd_kafka_purge(client, (rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT) as i32);
            let deadline = Instant::now() + timeout;
            while self.in_flight_count() > 0 && Instant::now() < deadline {
                self.poll(Duration::from_millis(5));
            }
            transaction_result("abort_transaction", rd::rd_kafka_abort_transaction(client, millis(timeout)))
        }
    }
}

/// A topic as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Id: another one after the topic was deleted and made anew.
    pub topic_id: String,
    /// Number of partitions; 0 where the topic does not exist.
    pub partitions: i32,
}

struct OwnedQueue<'a>(*mut rd::rd_kafka_queue_t, PhantomData<&'a ()>);

impl Drop for OwnedQueue<'_> {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_new, owned here.
        unsafe { rd::rd_kafka_queue_destroy(self.0) }
    }
}

/// Asks the cluster about topics by name. Those that do not exist have 0 partitions.
///
/// # Errors
/// The cluster did not answer in time, or an answer is an error other than "unknown topic".
pub fn describe_topics<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<TopicDescription>, String> {
    let owned: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = owned.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: collection, queue and event are given back; descriptions are read while the event lives.
    unsafe {
        let queue = OwnedQueue(rd::rd_kafka_queue_new(client.native_ptr()), PhantomData);
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        rd::rd_kafka_DescribeTopics(client.native_ptr(), topics, std::ptr::null(), queue.0);
        rd::rd_kafka_TopicCollection_destroy(topics);
        let event = rd::rd_kafka_queue_poll(queue.0, millis(timeout));
        if event.is_null() {
            return Err(format!("the brokers did not describe topics in {timeout:?}"));
        }
        let event = OwnedEvent(event);
        if rd::rd_kafka_event_error(event.0) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(rd::rd_kafka_event_error_string(event.0)).to_owned());
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err("the answer is no description of topics".to_owned());
        }
        let mut count = 0;
        let descriptions = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if descriptions.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        std::slice::from_raw_parts(descriptions, count).iter().map(|topic| description(*topic)).collect()
    }
}

unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> Result<TopicDescription, String> {
    // SAFETY: the description belongs to an event that outlives this call.
    unsafe {
        let name = text(rd::rd_kafka_TopicDescription_name(topic)).to_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code: RDKafkaErrorCode = rd::rd_kafka_error_code(error).into();
            return match code {
                RDKafkaErrorCode::NoError => Err(format!("topic {name}: no description")),
                RDKafkaErrorCode::UnknownTopicOrPartition => {
                    Ok(TopicDescription { name, topic_id: String::new(), partitions: 0 })
                }
                _ => Err(format!("topic {name}: {}", text(rd::rd_kafka_error_string(error)))),
            };
        }
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let topic_id =
            text(rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(topic))).to_owned();
        Ok(TopicDescription { name, topic_id, partitions: i32::try_from(partitions).unwrap_or(i32::MAX) })
    }
}

/// Version of librdkafka.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
