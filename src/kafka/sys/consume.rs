//! Polling a consumer's queue: records, ends of partitions and rebalances as values.

use std::ffi::{CStr, c_void};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka_sys as rd;

use super::{OwnedEvent, bytes, millis, text};

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
    // SAFETY: the queue lives as long as `consumer`; the event is owned by `event`.
    let event = unsafe { rd::rd_kafka_queue_poll(consumer.queue, millis(timeout)) };
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
