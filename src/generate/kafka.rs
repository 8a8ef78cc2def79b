//! Records into Kafka: acknowledged by all replicas, each on the partition that Java's partitioner would choose.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::encode::Record;
use super::generator::Generator;
use super::output::{GenerateError, Pace, Progress, Sent, Topics, drive};
use crate::config::KafkaConfig;
use crate::event::SourceKind;
use crate::kafka::partition_for;

const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
const TOPIC_TIMEOUT: Duration = Duration::from_secs(3);
const TOPIC_RETRY: Duration = Duration::from_millis(200);
/// After this long without an acknowledgement, what is in flight counts as lost.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Records between two looks at what Kafka answered.
const POLL_EVERY: u64 = 1_000;

/// Where to.
#[derive(Clone, Debug)]
pub struct KafkaTarget {
    /// How to reach it.
    pub kafka: KafkaConfig,
    /// The source topics. They must exist.
    pub topics: Topics,
}

/// Counts what was not acknowledged.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
    first: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Sends all records, and waits until each is acknowledged.
///
/// # Errors
/// Kafka or a topic is not there, or records were not acknowledged.
pub fn to_kafka(
    generator: &mut Generator,
    target: &KafkaTarget,
    pace: Pace,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Sent, GenerateError> {
    let mut sender = Sender::connect(target)?;
    let begun = Instant::now();
    let mut sent = drive(generator, pace, progress, |record| sender.send(record))?;
    sender.finish()?;
    sent.elapsed = begun.elapsed();
    Ok(sent)
}

struct Sender<'a> {
    target: &'a KafkaTarget,
    producer: BaseProducer<Deliveries>,
    generation_partitions: i32,
    wallet_partitions: i32,
    sent: u64,
}

impl<'a> Sender<'a> {
    fn connect(target: &'a KafkaTarget) -> Result<Sender<'a>, GenerateError> {
        let unreachable = |error: KafkaError| target.unreachable(format!("cannot make a producer: {error}"));
        let producer: BaseProducer<Deliveries> =
            target.client_config().create_with_context(Deliveries::default()).map_err(unreachable)?;
        let partitions = |topic: &str| partitions_of(target, &producer, topic);
        let generation_partitions = partitions(&target.topics.generation)?;
        let wallet_partitions = partitions(&target.topics.wallet)?;
        Ok(Sender { target, producer, generation_partitions, wallet_partitions, sent: 0 })
    }

    fn send(&mut self, record: &Record) -> Result<(), GenerateError> {
        self.sent += 1;
        if self.sent.is_multiple_of(POLL_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        let mut message = BaseRecord::<str, [u8]>::to(self.target.topics.name(record.source_kind()));
        message.key = record.key();
        message.payload = record.value();
        message.headers = headers(record);
        message.partition = Some(self.partition(record));
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    message = back;
                }
                Err((error, _)) => return Err(self.target.unreachable(format!("cannot send: {error}"))),
            }
        }
    }

    /// Where Java's partitioner puts it; records without a key go round.
    fn partition(&self, record: &Record) -> i32 {
        let partitions = match record.source_kind() {
            SourceKind::Generation => self.generation_partitions,
            SourceKind::Wallet => self.wallet_partitions,
        };
        match record.key() {
            Some(key) => partition_for(key.as_bytes(), partitions),
            None => i32::try_from(self.sent % u64::from(partitions.unsigned_abs().max(1))).unwrap_or(0),
        }
    }

    /// Waits for what is in flight, as long as anything is acknowledged.
    fn finish(&self) -> Result<(), GenerateError> {
        let mut in_flight = self.producer.in_flight_count();
        let mut deadline = Instant::now() + FLUSH_TIMEOUT;
        while in_flight > 0 && Instant::now() < deadline {
            self.producer.poll(Duration::from_millis(1));
            let left = self.producer.in_flight_count();
            if left < in_flight {
                in_flight = left;
                deadline = Instant::now() + FLUSH_TIMEOUT;
            }
        }
        self.producer.poll(Duration::ZERO);
        let deliveries = self.producer.context();
        let lost = u64::try_from(in_flight).unwrap_or(0);
        let count = deliveries.failed.load(Ordering::Relaxed) + lost;
        if count == 0 {
            return Ok(());
        }
        let first = deliveries.first.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(GenerateError::Undelivered { count, first: first.unwrap_or_else(|| "no answer".to_owned()) })
    }
}

impl KafkaTarget {
    fn client_config(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (name, value) in self.kafka.properties.as_map() {
            client.set(name, value);
        }
        client.set("bootstrap.servers", &self.kafka.brokers);
        client.set("client.id", format!("{}-generate", self.kafka.client_id));
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        client.set("compression.type", "lz4");
        client.set("linger.ms", "20");
        client.set("batch.size", "1000000");
        client.set("batch.num.messages", "10000");
        client.set("queue.buffering.max.messages", "200000");
        client.set("queue.buffering.max.kbytes", "262144");
        client.set("delivery.report.only.error", "true");
        client
    }

    fn unreachable(&self, detail: String) -> GenerateError {
        GenerateError::Unreachable { brokers: self.kafka.brokers.clone(), detail }
    }
}

/// A topic made just now may not be known to every broker yet: it is asked for again for a while.
fn partitions_of(
    target: &KafkaTarget,
    producer: &BaseProducer<Deliveries>,
    topic: &str,
) -> Result<i32, GenerateError> {
    let deadline = Instant::now() + TOPIC_TIMEOUT;
    loop {
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), METADATA_TIMEOUT)
            .map_err(|error| target.unreachable(format!("cannot ask for topic {topic}: {error}")))?;
        let known = metadata.topics().iter().find(|known| known.name() == topic);
        let partitions = known.map_or(0, |known| known.partitions().len());
        match i32::try_from(partitions) {
            Ok(partitions) if partitions > 0 => return Ok(partitions),
            _ if Instant::now() < deadline => std::thread::sleep(TOPIC_RETRY),
            _ => {
                return Err(target
                    .unreachable(format!("topic {topic} does not exist: run `creditstream init` first")));
            }
        }
    }
}

fn headers(record: &Record) -> Option<OwnedHeaders> {
    if record.headers().is_empty() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers().len());
    for (key, value) in record.headers() {
        headers = headers.insert(Header { key, value: Some(value.as_str()) });
    }
    Some(headers)
}

#[cfg(test)]
mod tests;
