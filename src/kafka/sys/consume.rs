//! Polling a consumer's queue: records, ends of partitions and rebalances as values.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
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
    /// Headers of a record that no broker delivered.
    #[cfg(test)]
    made: &'a [(String, Vec<u8>)],
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

/// Most records that are taken from librdkafka in one call.
const RECORDS_AT_ONCE: usize = 128;

/// A consumer with its queues at hand.
pub struct PolledConsumer<C: ConsumerContext + 'static> {
    /// Rebalances, errors, and the records of partitions that were assigned without [`PolledConsumer::assign_gathered`].
    queue: *mut rd::rd_kafka_queue_t,
    /// Records and ends of partitions that were assigned with it.
    records: *mut rd::rd_kafka_queue_t,
    /// The client must outlive the queue's handle.
    consumer: BaseConsumer<C>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl<C: ConsumerContext + 'static> Send for PolledConsumer<C> {}

impl<C: ConsumerContext + 'static> Drop for PolledConsumer<C> {
    fn drop(&mut self) {
        // SAFETY: counted references of ours; the client is still there.
        unsafe {
            rd::rd_kafka_queue_destroy(self.records);
            rd::rd_kafka_queue_destroy(self.queue);
        }
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
        // SAFETY: a counted reference, given back on drop.
        let records = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        Ok(PolledConsumer { queue, records, consumer })
    }

    /// Reads these partitions from there on, and no others. Their records and ends come by [`take_records`], which takes
    /// many at once.
    ///
    /// # Errors
    /// The client refuses.
    pub fn assign_gathered(&self, places: &TopicPartitionList) -> KafkaResult<()> {
        // A partition that librdkafka stops loses its forwarding, and does not get another by itself: its records would come
        // by no queue at all. It is stopped by another thread, which answers the question for the assignment after that.
        self.consumer.assign(&TopicPartitionList::new())?;
        self.consumer.assignment()?;
        if places.count() == 0 {
            return Ok(());
        }
        self.gather(places);
        self.consumer.assign(places)
    }

    /// The same for topics that this client has not heard of yet, as nobody subscribes to them. It asks the brokers for them
    /// first: forwarding makes librdkafka know a topic without asking for it, and then it would only be looked for by a timer
    /// of a second.
    ///
    /// # Errors
    /// The brokers do not answer, or the client refuses.
    pub fn assign_unsubscribed(&self, places: &TopicPartitionList, timeout: Duration) -> KafkaResult<()> {
        let topics: BTreeSet<String> =
            places.elements().iter().map(|place| place.topic().to_owned()).collect();
        for topic in topics {
            self.consumer.fetch_metadata(Some(&topic), timeout)?;
        }
        self.assign_gathered(places)
    }

    /// Forwards what will come of partitions that are not read now.
    fn gather(&self, places: &TopicPartitionList) {
        // SAFETY: the list outlives the slice; each handle is given back, the forwarding stays.
        unsafe {
            let list = &*places.ptr();
            for place in std::slice::from_raw_parts(list.elems, list.cnt as usize) {
                let client = self.consumer.client().native_ptr();
                let queue = rd::rd_kafka_queue_get_partition(client, place.topic, place.partition);
                if !queue.is_null() {
                    rd::rd_kafka_queue_forward(queue, self.records);
                    rd::rd_kafka_queue_destroy(queue);
                }
            }
        }
    }
}

/// Takes records of the partitions of [`PolledConsumer::assign_gathered`]: what is there, at most `max` and [`RECORDS_AT_ONCE`], and waits
/// only where there is nothing. Returns how many there were, ends of partitions included. `on_record` sees a record
/// where it lies, `on_end` the end of a partition: topic, partition, next offset.
pub fn take_records<C: ConsumerContext>(
    consumer: &PolledConsumer<C>,
    max: usize,
    timeout: Duration,
    mut on_record: impl FnMut(&RecordView<'_>),
    mut on_end: impl FnMut(&str, i32, i64),
) -> usize {
    let mut messages = [std::ptr::null_mut(); RECORDS_AT_ONCE];
    let mut take = |max: usize, timeout: Duration| {
        let max = max.min(RECORDS_AT_ONCE);
        // SAFETY: the queue lives as long as `consumer`, and the array has room for `max`.
        let taken = unsafe {
            rd::rd_kafka_consume_batch_queue(consumer.records, millis(timeout), messages.as_mut_ptr(), max)
        };
        let taken = usize::try_from(taken).unwrap_or(0);
        for message in messages.iter().take(taken) {
            // SAFETY: each message is ours until it is given back, and nothing that is borrowed from it lives on.
            unsafe {
                look_at(*message, &mut on_record, &mut on_end);
                rd::rd_kafka_message_destroy(*message);
            }
        }
        taken
    };
    let taken = take(max, Duration::ZERO);
    // With a timeout a call waits for as many as were asked for: so for one.
    if taken == 0 && !timeout.is_zero() { take(max.min(1), timeout) } else { taken }
}

unsafe fn look_at(
    message: *const rd::rd_kafka_message_t,
    on_record: &mut impl FnMut(&RecordView<'_>),
    on_end: &mut impl FnMut(&str, i32, i64),
) {
    // SAFETY: the caller owns the message.
    unsafe {
        let fields = &*message;
        match fields.err {
            rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => on_record(&view(message)),
            rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                on_end(text(rd::rd_kafka_topic_name(fields.rkt)), fields.partition, fields.offset)
            }
            // librdkafka recovers by itself; what it cannot is an event of the client.
            error => {
                let code: RDKafkaErrorCode = error.into();
                let topic = if fields.rkt.is_null() { "" } else { text(rd::rd_kafka_topic_name(fields.rkt)) };
                tracing::warn!(?code, topic, partition = fields.partition, "consumer error");
            }
        }
    }
}

unsafe fn view<'a>(message: *const rd::rd_kafka_message_t) -> RecordView<'a> {
    // SAFETY: the caller keeps the message for as long as it looks at the view.
    unsafe {
        let fields = &*message;
        RecordView {
            topic: text(rd::rd_kafka_topic_name(fields.rkt)),
            partition: fields.partition,
            offset: fields.offset,
            timestamp: rd::rd_kafka_message_timestamp(message, std::ptr::null_mut()),
            key: bytes(fields.key, fields.key_len),
            value: bytes(fields.payload, fields.len),
            message,
            #[cfg(test)]
            made: &[],
        }
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
        Polled::Record(on_record(&view(message)))
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

#[cfg(test)]
impl<'a> RecordView<'a> {
    /// A record that no broker delivered.
    pub fn made(
        topic: &'a str,
        place: (i32, i64),
        timestamp: i64,
        (key, value): (Option<&'a [u8]>, Option<&'a [u8]>),
        made: &'a [(String, Vec<u8>)],
    ) -> RecordView<'a> {
        let (partition, offset) = place;
        RecordView { topic, partition, offset, timestamp, key, value, message: std::ptr::null(), made }
    }
}

impl RecordView<'_> {
    /// Calls `each` with every header, in order. A name that is not UTF-8 is passed over.
    pub fn for_each_header(&self, mut each: impl FnMut(&str, &[u8])) {
        #[cfg(test)]
        if self.message.is_null() {
            return self.made.iter().for_each(|(name, value)| each(name, value));
        }
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
