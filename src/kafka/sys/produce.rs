//! Producing whole batches, and transactions whose errors keep their class.

use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka_sys as rd;
use thiserror::Error;

use super::{millis, text};

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

#[cfg(test)]
impl GroupMetadata {
    /// As a model of a group has it.
    pub fn made(generation: i32, member: &str) -> GroupMetadata {
        let member = CString::new(member).unwrap_or_default();
        // SAFETY: the strings are copied; a new object, owned by the result.
        GroupMetadata(unsafe {
            rd::rd_kafka_consumer_group_metadata_new_with_genid(
                c"group".as_ptr(),
                generation,
                member.as_ptr(),
                std::ptr::null(),
            )
        })
    }

    /// The member's id; empty: none (any more).
    pub fn member(&self) -> String {
        // SAFETY: the string belongs to the object.
        unsafe { text(rd::rd_kafka_consumer_group_metadata_member_id(self.0)) }.to_owned()
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

/// Records that are queued in one call.
const AT_ONCE: usize = 1024;
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

    /// Copies the records into the producer's queue, many in one call.
    ///
    /// # Errors
    /// The first record's error; those before it are in the queue: abort the transaction.
    pub fn produce<'a>(
        &self,
        mut records: impl Iterator<Item = OutgoingRecord<'a>>,
    ) -> Result<(), TransactionError> {
        let failure = |code: RDKafkaErrorCode| TransactionError {
            step: "produce",
            code,
            message: format!("a record for topic {} could not be queued", self.name),
            is_fatal: false,
            requires_abort: true,
            is_retriable: false,
        };
        let message = |record: OutgoingRecord<'_>| rd::rd_kafka_message_t {
            err: rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
            rkt: std::ptr::null_mut(),
            partition: record.partition,
            payload: record.value.as_ptr() as *mut c_void,
            len: record.value.len(),
            key: record.key.as_ptr() as *mut c_void,
            key_len: record.key.len(),
            offset: 0,
            _private: std::ptr::null_mut(),
        };
        let mut messages: Vec<rd::rd_kafka_message_t> = Vec::with_capacity(AT_ONCE);
        loop {
            messages.clear();
            messages.extend(records.by_ref().take(AT_ONCE).map(message));
            if messages.is_empty() {
                return Ok(());
            }
            let count =
                i32::try_from(messages.len()).map_err(|_| failure(RDKafkaErrorCode::InvalidArgument))?;
            let flags = rd::RD_KAFKA_MSG_F_COPY | rd::RD_KAFKA_MSG_F_PARTITION;
            // SAFETY: librdkafka copies key and value (MSG_F_COPY) before it returns.
            let queued = unsafe {
                rd::rd_kafka_produce_batch(
                    self.handle,
                    PARTITION_OF_RECORD,
                    flags,
                    messages.as_mut_ptr(),
                    count,
                )
            };
            if queued != count {
                let failed = messages
                    .iter()
                    .find(|message| message.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
                return Err(failure(failed.map_or(RDKafkaErrorCode::Unknown, |message| message.err.into())));
            }
        }
    }
}

/// Serves what waits for the producer to be polled: reports of deliveries, errors, lines of librdkafka's log.
pub fn serve_events<C: ProducerContext>(producer: &BaseProducer<C>) {
    // SAFETY: the client lives as long as `producer`; the handle is given back.
    let waiting = unsafe {
        let queue = rd::rd_kafka_queue_get_main(producer.client().native_ptr());
        let waiting = rd::rd_kafka_queue_length(queue);
        rd::rd_kafka_queue_destroy(queue);
        waiting
    };
    // A poll that does not wait serves one of them.
    (0..waiting).for_each(|_| producer.poll(Duration::ZERO));
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
            rd::rd_kafka_purge(client, rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT);
            let deadline = Instant::now() + timeout;
            while self.in_flight_count() > 0 && Instant::now() < deadline {
                self.poll(Duration::from_millis(5));
            }
            transaction_result("abort_transaction", rd::rd_kafka_abort_transaction(client, millis(timeout)))
        }
    }
}
