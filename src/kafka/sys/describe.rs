//! Topics with their ids.

use std::ffi::{CString, c_char};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as rd;

use super::{OwnedEvent, millis, text};

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

struct OwnedQueue(*mut rd::rd_kafka_queue_t);

impl Drop for OwnedQueue {
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
        let queue = OwnedQueue(rd::rd_kafka_queue_new(client.native_ptr()));
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
