//! Kafka from outside: plain clients with none of the product's code.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use creditstream::config::Config;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long an open transaction may hold up a reader: its own timeout and some more.
const STABLE_PATIENCE: Duration = Duration::from_secs(30);

/// A record as it stands in a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn of(message: &BorrowedMessage<'_>) -> Record {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Record {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }

    /// The value of a header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(String::from_utf8(value.clone()?).unwrap())
    }

    /// The key, as text.
    pub fn key_text(&self) -> &str {
        std::str::from_utf8(self.key.as_deref().unwrap_or_default()).unwrap()
    }

    /// The value, as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).unwrap()
    }
}

fn base(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in config.kafka.properties.as_map() {
        client.set(name, value);
    }
    client.set("bootstrap.servers", &config.kafka.brokers);
    client
}

/// Fails the test with what to do where Kafka is away.
#[track_caller]
pub fn must_answer(config: &Config) {
    let client: BaseConsumer = base(config).create().unwrap();
    if let Err(error) = client.fetch_metadata(Some("__none"), Duration::from_secs(5)) {
        panic!("Kafka at {} does not answer ({error}): start it with `make stack-up`", config.kafka.brokers);
    }
}

/// A reader of committed records that is a member of no group.
pub fn reader(config: &Config, isolation: &str) -> BaseConsumer {
    let mut client = base(config);
    client.set("group.id", "e2e-reader").set("enable.auto.commit", "false").set("isolation.level", isolation);
    client
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.message.max.bytes", "8388608");
    client.create().unwrap()
}

/// Number of partitions of a topic that exists.
#[track_caller]
pub fn partitions(consumer: &BaseConsumer, topic: &str) -> i32 {
    super::wait_for(&format!("metadata of topic {topic}"), TIMEOUT, || {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).ok()?;
        let known = metadata.topics().first()?;
        let count = i32::try_from(known.partitions().len()).unwrap();
        (known.error().is_none() && count > 0).then_some(count)
    })
}

/// The true end of each partition, once everything below it is settled.
pub fn settled_ends(config: &Config, topic: &str) -> Vec<i64> {
    let (committed, any) = (reader(config, "read_committed"), reader(config, "read_uncommitted"));
    let deadline = Instant::now() + STABLE_PATIENCE;
    let end_of = |partition| {
        let end = any.fetch_watermarks(topic, partition, TIMEOUT).unwrap().1;
        while committed.fetch_watermarks(topic, partition, TIMEOUT).unwrap().1 < end {
            assert!(Instant::now() < deadline, "a transaction stays open in {topic}/{partition}");
            std::thread::sleep(Duration::from_millis(50));
        }
        end
    };
    (0..partitions(&any, topic)).map(end_of).collect()
}

/// All committed records of a topic up to its end as of now, each partition's in order.
pub fn read_all(config: &Config, topic: &str) -> Vec<Record> {
    let ends = settled_ends(config, topic);
    let consumer = reader(config, "read_committed");
    let mut open: BTreeMap<i32, i64> = (0..).zip(ends).filter(|(_, end)| *end > 0).collect();
    let mut wanted = TopicPartitionList::new();
    for partition in open.keys() {
        wanted.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&wanted).unwrap();
    let deadline = Instant::now() + STABLE_PATIENCE;
    let mut records = Vec::new();
    while !open.is_empty() {
        assert!(Instant::now() < deadline, "{topic} was not read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => records.push(Record::of(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {}
        }
    }
    records
}

/// A record on its way in.
#[derive(Default)]
pub struct Sent<'a> {
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// A producer that leaves it to the broker what is too large.
pub fn producer(config: &Config) -> BaseProducer {
    base(config).set("acks", "all").set("message.max.bytes", "20000000").create().unwrap()
}

/// A producer whose transactions stay open until they are ended.
pub fn transactional_producer(config: &Config, transactional_id: &str) -> BaseProducer {
    let mut client = base(config);
    client.set("acks", "all").set("transactional.id", transactional_id);
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer
}

/// Sends a record, and waits for the answer.
pub fn send(config: &Config, topic: &str, record: &Sent<'_>) -> Result<(), String> {
    send_all(config, topic, std::slice::from_ref(record))
}

/// Sends records in order, and waits for the answers.
pub fn send_all(config: &Config, topic: &str, records: &[Sent<'_>]) -> Result<(), String> {
    #[derive(Default)]
    struct Failed(std::sync::Mutex<Option<String>>);
    impl rdkafka::ClientContext for Failed {}
    impl rdkafka::producer::ProducerContext for Failed {
        type DeliveryOpaque = ();
        fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, (): ()) {
            if let Err((error, _)) = result {
                *self.0.lock().unwrap() = Some(error.to_string());
            }
        }
    }
    let mut client = base(config);
    client.set("acks", "all").set("message.max.bytes", "20000000").set("message.timeout.ms", "15000");
    let producer: BaseProducer<Failed> = client.create_with_context(Failed::default()).unwrap();
    for record in records {
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        message.partition = record.partition;
        message.key = record.key;
        message.payload = record.value;
        if !record.headers.is_empty() {
            let add = |all: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| {
                all.insert(Header { key, value: *value })
            };
            message.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), add));
        }
        producer.send(message).map_err(|(error, _)| error.to_string())?;
    }
    producer.flush(Duration::from_secs(20)).map_err(|error| error.to_string())?;
    let failed = producer.context().0.lock().unwrap().take();
    failed.map_or(Ok(()), Err)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn admin(config: &Config) -> AdminClient<DefaultClientContext> {
    base(config).create().unwrap()
}

/// Makes a topic, and waits until it is known.
pub fn create_topic(config: &Config, topic: &str, partition_count: i32, settings: &[(&str, &str)]) {
    let new = NewTopic::new(topic, partition_count, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    for result in block_on(admin(config).create_topics([&new], &options)).unwrap() {
        result.unwrap();
    }
    let client = reader(config, "read_uncommitted");
    super::wait_for("the new topic", TIMEOUT, || {
        (partitions(&client, topic) == partition_count).then_some(())
    });
}

/// Sets settings of a topic.
pub fn set_topic(config: &Config, topic: &str, settings: &[(&str, &str)]) {
    let resource = ResourceSpecifier::Topic(topic);
    let change =
        settings.iter().fold(AlterConfig::new(resource), |change, (name, value)| change.set(name, value));
    let results = block_on(admin(config).alter_configs([&change], &AdminOptions::new())).unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

/// Gives a topic more partitions.
pub fn grow_topic(config: &Config, topic: &str, partition_count: usize) {
    let grown = NewPartitions::new(topic, partition_count);
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = block_on(admin(config).create_partitions(&[grown], &options)).unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

/// Deletes the records of a partition below an offset.
pub fn delete_records(config: &Config, topic: &str, partition: i32, before: i64) {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
    let deleted = block_on(admin(config).delete_records(&wanted, &AdminOptions::new())).unwrap();
    deleted.elements().iter().for_each(|element| element.error().unwrap());
}

/// Deletes topics; what is not there is not missed.
pub fn delete_topics(config: &Config, topics: &[&str]) {
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let _ = block_on(admin(config).delete_topics(topics, &options));
}

/// Deletes a consumer group that has no members, offsets and all.
pub fn delete_group(config: &Config, group: &str) {
    let admin = admin(config);
    super::wait_for("the group to be empty and deleted", TIMEOUT, || {
        let results = block_on(admin.delete_groups(&[group], &AdminOptions::new())).ok()?;
        results.into_iter().all(|result| result.is_ok()).then_some(())
    });
}

/// Sets a group that has no members back to the beginning of a topic.
pub fn reset_group(config: &Config, group: &str, topic: &str) {
    let consumer: BaseConsumer =
        base(config).set("group.id", group).set("enable.auto.commit", "false").create().unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in 0..partitions(&consumer, topic) {
        offsets.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
    }
    super::wait_for("the group to be empty and reset", TIMEOUT, || {
        consumer.commit(&offsets, CommitMode::Sync).ok()
    });
}
