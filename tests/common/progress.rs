//! The books of `credits.progress`, watched as they are written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use creditstream::config::Config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::kafka;

/// Records by outcome.
pub type Outcomes = BTreeMap<String, u64>;

/// Follows the topic from its beginning.
pub struct Progress {
    reader: BaseConsumer,
    latest: BTreeMap<String, Value>,
    intake: String,
}

impl Progress {
    /// Of a deployment.
    pub fn follow(config: &Config) -> Progress {
        let reader = kafka::reader(config, "read_committed");
        let topic = &config.topics.progress;
        let mut all = TopicPartitionList::new();
        for partition in 0..kafka::partitions(&reader, topic) {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        reader.assign(&all).unwrap();
        Progress { reader, latest: BTreeMap::new(), intake: config.topics.intake.clone() }
    }

    /// Takes in what came since.
    pub fn read(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let Some(Ok(message)) = self.reader.poll(Duration::from_millis(10)) else { continue };
            let key = std::str::from_utf8(message.key().unwrap()).unwrap().to_owned();
            self.latest.insert(key, serde_json::from_slice(message.payload().unwrap()).unwrap());
        }
    }

    /// The latest record of a key.
    pub fn latest(&self, key: &str) -> Option<&Value> {
        self.latest.get(key)
    }

    /// Outcomes of the partitions of a topic.
    pub fn outcomes_of(&self, topic: &str) -> Outcomes {
        let mut sum = Outcomes::new();
        for (key, value) in &self.latest {
            if key.rsplit_once('/').is_some_and(|(name, _)| name == topic) {
                add(&mut sum, &value["outcomes"]);
            }
        }
        sum
    }

    /// Outcomes of every partition that is read, sources and intake: a record that was handed over is there twice.
    pub fn outcomes(&self) -> Outcomes {
        let mut sum = Outcomes::new();
        for (_, value) in self.latest.iter().filter(|(key, _)| !key.starts_with("shard/")) {
            add(&mut sum, &value["outcomes"]);
        }
        sum
    }

    /// Final outcomes of records that came through intake, as kept by origin.
    pub fn by_origin(&self) -> Outcomes {
        let mut sum = Outcomes::new();
        let of_intake =
            |(key, _): &(&String, &Value)| key.rsplit_once('/').is_some_and(|(name, _)| name == self.intake);
        for (_, value) in self.latest.iter().filter(of_intake) {
            for origin in value["by_origin"].as_array().into_iter().flatten() {
                add(&mut sum, &origin["outcomes"]);
            }
        }
        sum
    }

    /// Records that have a final outcome.
    pub fn decided(&self) -> u64 {
        let is_final =
            |(outcome, _): &(&String, &u64)| !matches!(outcome.as_str(), "handed_over" | "skipped");
        self.outcomes().iter().filter(is_final).map(|(_, count)| count).sum()
    }

    /// Waits until as many records have a final outcome.
    #[track_caller]
    pub fn wait_until_decided(&mut self, records: u64, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            self.read(Duration::from_millis(50));
            if self.decided() >= records {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {records} records are decided after {patience:?}: {:?}",
                self.decided(),
                self.outcomes()
            );
        }
    }
}

fn add(sum: &mut Outcomes, outcomes: &Value) {
    for (outcome, count) in outcomes.as_object().into_iter().flatten() {
        *sum.entry(outcome.clone()).or_default() += count.as_u64().unwrap();
    }
}
