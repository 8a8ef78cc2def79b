//! The calls into librdkafka that the safe API lacks, and the only `unsafe` code of the product.
//!
//! - Queue events: an end of partition with its topic, and a rebalance as a value that the polling loop handles
//!   itself, instead of a callback; many records in one call.
//! - Producing a whole batch in one call, a flush that waits for acknowledgements instead of polling to its
//!   deadline (rust-rdkafka's takes 100 ms each time), and transactions whose errors keep their class.
//! - The generation of a group member, without which nobody can tell a zombie.
//! - Topic ids: a topic deleted and made anew has the same name.
//!
//! Every pointer that librdkafka hands out is either borrowed for the length of one function, or owned by a
//! struct whose `Drop` gives it back.
#![allow(unsafe_code)]

mod consume;
mod describe;
mod produce;

use std::ffi::{CStr, c_char, c_void};
use std::time::Duration;

use rdkafka_sys as rd;

pub use consume::{Polled, PolledConsumer, RecordView, poll_events, take_records};
pub use describe::{TopicDescription, describe_topics};
pub use produce::{
    BatchTopic, GroupMetadata, OutgoingRecord, TransactionError, TransactionalProducer, serve_events,
};

struct OwnedEvent(*mut rd::rd_kafka_event_t);

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_poll, owned here.
        unsafe { rd::rd_kafka_event_destroy(self.0) }
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

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// Version of librdkafka.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
