//! Against a real Kafka, the one of `config/default.toml`: `cargo test generate::kafka -- --ignored`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::*;
use crate::config::Config;
use crate::generate::GenerateOptions;
use crate::time::Timestamp;

const GENERATION_PARTITIONS: i32 = 12;
const WALLET_PARTITIONS: i32 = 5;

/// Topics of this test only, deleted when it ends.
struct TestTopics {
    admin: AdminClient<DefaultClientContext>,
    target: KafkaTarget,
}

impl TestTopics {
    fn create() -> TestTopics {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let topics =
            Topics { generation: format!("test-{name}-generation"), wallet: format!("test-{name}-wallet") };
        let target = KafkaTarget { kafka: Config::load(None, std::env::vars()).unwrap().kafka, topics };
        let admin: AdminClient<DefaultClientContext> = target.client_config().create().unwrap();
        let wanted = [
            NewTopic::new(&target.topics.generation, GENERATION_PARTITIONS, TopicReplication::Fixed(1)),
            NewTopic::new(&target.topics.wallet, WALLET_PARTITIONS, TopicReplication::Fixed(1)),
        ];
        let answers = wait(admin.create_topics(&wanted, &AdminOptions::new())).unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        TestTopics { admin, target }
    }
}

impl Drop for TestTopics {
    fn drop(&mut self) {
        let names = [self.target.topics.generation.as_str(), self.target.topics.wallet.as_str()];
        let _ = wait(self.admin.delete_topics(&names, &AdminOptions::new()));
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn quiet(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Key, value and headers.
type Content = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn content_of(record: &Record) -> Content {
    let headers = record
        .headers()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into_bytes()))
        .collect();
    (record.key().map(|key| key.as_bytes().to_vec()), record.value().map(<[u8]>::to_vec), headers)
}

/// All records of a topic, by partition, in order.
fn read_all(target: &KafkaTarget, topic: &str, partitions: i32) -> HashMap<i32, Vec<Content>> {
    let mut client = target.client_config();
    client.set("group.id", "unused").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let now = Timestamp::now().millis();
    let mut read: HashMap<i32, Vec<Content>> = HashMap::new();
    let mut at_end = 0;
    while at_end < partitions {
        let message = match consumer.poll(Duration::from_secs(20)).unwrap() {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(_)) => {
                at_end += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert!((message.timestamp().to_millis().unwrap() - now).abs() < 300_000);
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect();
        let content = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec), headers);
        read.entry(message.partition()).or_default().push(content);
    }
    read
}

#[test]
fn every_record_arrives_in_order_on_the_partition_of_its_key() {
    let options = GenerateOptions { events: 20_000, bad_percent: 5.0, ..GenerateOptions::ending_now() };
    let topics = TestTopics::create();
    let target = &topics.target;
    let mut generator = Generator::new(&options).unwrap();
    let sent = to_kafka(&mut generator, target, Pace::Full, &mut quiet).unwrap();
    assert_eq!(sent.records, generator.books().records);

    let mut again = Generator::new(&options).unwrap();
    let mut record = Record::default();
    let mut expected: HashMap<(&str, i32), Vec<Content>> = HashMap::new();
    let mut without_key = 0;
    while again.next_record(&mut record).is_some() {
        let kind = record.source_kind();
        let partitions = if kind == SourceKind::Wallet { WALLET_PARTITIONS } else { GENERATION_PARTITIONS };
        match record.key() {
            Some(key) => {
                let partition = partition_for(key.as_bytes(), partitions);
                expected.entry((target.topics.name(kind), partition)).or_default().push(content_of(&record));
            }
            None => without_key += 1,
        }
    }
    for (kind, partitions) in
        [(SourceKind::Generation, GENERATION_PARTITIONS), (SourceKind::Wallet, WALLET_PARTITIONS)]
    {
        for (partition, mut found) in read_all(target, target.topics.name(kind), partitions) {
            let before = found.len();
            found.retain(|(key, ..)| key.is_some());
            without_key -= before - found.len();
            assert!(
                expected.remove(&(target.topics.name(kind), partition)).unwrap_or_default() == found,
                "{kind:?} {partition}"
            );
        }
    }
    assert_eq!((without_key, expected.len()), (0, 0));
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let topics =
        Topics { generation: "test-that-is-not-there".to_owned(), wallet: "test-neither".to_owned() };
    let target = KafkaTarget { kafka: Config::load(None, std::env::vars()).unwrap().kafka, topics };
    let mut generator = Generator::new(&GenerateOptions::ending_now()).unwrap();
    let error = to_kafka(&mut generator, &target, Pace::Full, &mut quiet).unwrap_err();
    assert!(error.to_string().contains("test-that-is-not-there"), "{error}");
}

/// Run it with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement that needs Kafka"]
fn records_a_second_into_kafka() {
    let topics = TestTopics::create();
    for seed in 1..=3 {
        let options = GenerateOptions { events: 1_000_000, seed, ..GenerateOptions::ending_now() };
        let mut generator = Generator::new(&options).unwrap();
        let sent = to_kafka(&mut generator, &topics.target, Pace::Full, &mut quiet).unwrap();
        println!(
            "{:.0} records/s into Kafka, {} bytes a value",
            sent.records_per_second(),
            sent.value_bytes / sent.records
        );
    }
}
