//! A source that is not what it was is taken up again, by a person's decision: `creditstream accept`.
//!
//! **Invariant:** it runs as the only member of the ledger group, and writes in one transaction with the group's metadata:
//! should an instance have joined meanwhile, the broker refuses all of it. The books of what went before are kept.

mod ledger;
mod positions;
mod reread;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use ledger::{Accepted, accept_ledger};

use super::progress::{PartitionProgress, partition_key};
use super::routes::{Routes, Topic, TopicRole};
use super::stage::LedgerError;
use crate::config::Config;
use crate::kafka::{
    Clients, GroupMetadata, KafkaConsumer, KafkaLog, Polled, ReadError, TopicReader, TransactionError,
    TransactionalProducer, poll_events,
};

const TIMEOUT: Duration = Duration::from_secs(15);
/// How long joining the group may take: others that were killed count as members for a session.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// A topic that was deleted and made anew is read from its beginning; one whose log was cut, from the cut on.
    Topic,
    /// Another number of partitions of the same topic.
    Partitions,
}

/// Why it was not accepted. Nothing was changed.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// Others are members of the group, or what is under way must come to its end first.
    #[error("{0}")]
    Busy(String),
    /// It is not what was asked for.
    #[error("{0}")]
    Refused(String),
    /// The topics do not fit at all.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The brokers do not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The brokers do not answer.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The transaction did not come about.
    #[error("{0}; nothing was changed")]
    Transaction(#[from] TransactionError),
}

/// Accepts a source as it is now; what was done, in sentences. Nothing to do is no error.
///
/// # Errors
/// See [`AcceptError`].
pub fn accept(config: &Arc<Config>, what: Accept, name: &str) -> Result<Vec<String>, AcceptError> {
    let clients = Clients::new(Arc::clone(config));
    let asked = clients.group_reader(&config.ledger.group)?;
    refuse_members(&asked, &config.ledger.group)?;
    let routes = Routes::discover(asked.client(), &config.topics, || false)?;
    let topic = routes.topics.iter().find(|topic| topic.name == name && topic.role != TopicRole::Intake);
    let Some(topic) = topic else {
        return Err(AcceptError::Refused(format!(
            "{name} is no source in topics.generation or topics.wallet"
        )));
    };
    let reader = TopicReader::new(&clients, "accept")?;
    let known: BTreeMap<String, PartitionProgress> =
        progress_of(&reader, &routes, |key| !key.starts_with("shard/"))?;
    // Also of partitions that it has no more: their progress would say for ever that the topic has changed.
    let of_topic = known.iter().filter_map(|(key, progress)| {
        let (of, partition) = key.rsplit_once('/')?;
        Some((partition.parse().ok().filter(|_| of == name)?, progress.clone()))
    });
    let of_topic: Vec<(i32, PartitionProgress)> = of_topic.collect();
    let before: BTreeMap<i32, PartitionProgress> = of_topic.iter().cloned().collect();
    let changed = match what {
        Accept::Topic => {
            let mut changed = made_anew(topic, &routes, &of_topic);
            changed.extend(cut(topic, &reader, &of_topic)?);
            changed
        }
        Accept::Partitions => other_partitions(topic, &routes, of_topic)?,
    };
    let is_rerouted = |(partition, after): &(i32, PartitionProgress)| {
        before
            .get(partition)
            .is_some_and(|before| (before.at_home, before.partitions) != (after.at_home, after.partitions))
    };
    if changed.iter().any(is_rerouted) {
        refuse_undrained(&reader, &routes, &known)?;
    }
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let mut written = Written::default();
    for (partition, progress) in &changed {
        written.add_progress(&routes, name, *partition, progress, *partition < topic.partitions)?;
    }
    write(&clients, config, &routes, &written)?;
    let sentence = |(partition, progress): &(i32, PartitionProgress)| match what {
        Accept::Topic => format!(
            "{name}/{partition}, topic id {}: read from offset {} on",
            progress.topic_id,
            progress.offset + 1
        ),
        Accept::Partitions => format!("{name}/{partition} is one of {} partitions", progress.partitions),
    };
    Ok(changed.iter().map(sentence).collect())
}

/// Asked before joining: that would make the group of a running deployment balance anew.
fn refuse_members(asked: &BaseConsumer<KafkaLog>, group: &str) -> Result<(), AcceptError> {
    let groups = asked.fetch_group_list(Some(group), TIMEOUT)?;
    let members =
        groups.groups().iter().find(|found| found.name() == group).map_or(0, |found| found.members().len());
    if members > 0 {
        return Err(AcceptError::Busy(format!(
            "group {group} has {members} members: stop all instances; one that was killed counts until its session is over"
        )));
    }
    Ok(())
}

/// What progress says last of the keys that are wanted.
fn progress_of<P: DeserializeOwned>(
    reader: &TopicReader,
    routes: &Routes,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, P>, AcceptError> {
    let topic = &routes.out.progress;
    let (mut known, mut fault) = (BTreeMap::new(), None);
    reader.read(topic, &reader.all(topic)?, |record| {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let (Some(key), Some(value)) = (key.filter(|key| is_wanted(key)), record.value) else {
            return;
        };
        match serde_json::from_slice(value) {
            Ok(progress) => drop(known.insert(key.to_owned(), progress)),
            Err(error) => fault = Some(format!("the progress of {key} cannot be read: {error}")),
        }
    })?;
    fault.map_or(Ok(known), |fault| Err(AcceptError::Refused(fault)))
}

/// The partitions' progress, beginning anew where the topic has another id.
fn made_anew(
    topic: &Topic,
    routes: &Routes,
    of_topic: &[(i32, PartitionProgress)],
) -> Vec<(i32, PartitionProgress)> {
    let anew = |(partition, before): &(i32, PartitionProgress)| {
        let mut earlier = before.earlier;
        earlier.add(&before.outcomes);
        let progress = PartitionProgress {
            topic_id: topic.topic_id.clone(),
            partitions: topic.partitions,
            at_home: topic.partitions == routes.shards,
            offset: -1,
            outcomes: Default::default(),
            earlier,
            ..before.clone()
        };
        (*partition, progress)
    };
    of_topic.iter().filter(|(_, before)| before.topic_id != topic.topic_id).map(anew).collect()
}

/// Partitions of the same topic whose log ends before what was read of it: from that end on they are read again.
fn cut(
    topic: &Topic,
    reader: &TopicReader,
    of_topic: &[(i32, PartitionProgress)],
) -> Result<Vec<(i32, PartitionProgress)>, AcceptError> {
    let mut cut = Vec::new();
    let is_same = |(at, before): &&(i32, PartitionProgress)| {
        before.topic_id == topic.topic_id && *at < topic.partitions
    };
    for (partition, before) in of_topic.iter().filter(is_same) {
        let end = reader.whole(&topic.name, *partition)?.to;
        if end <= before.offset {
            cut.push((*partition, PartitionProgress { offset: end - 1, ..before.clone() }));
        }
    }
    Ok(cut)
}

/// The partitions' progress with the topic's number of partitions; where they have come stays.
fn other_partitions(
    topic: &Topic,
    routes: &Routes,
    of_topic: Vec<(i32, PartitionProgress)>,
) -> Result<Vec<(i32, PartitionProgress)>, AcceptError> {
    if of_topic.iter().any(|(_, before)| before.topic_id != topic.topic_id) {
        return Err(AcceptError::Refused(format!(
            "topic {0} was deleted and made anew: `creditstream accept topic {0}`",
            topic.name
        )));
    }
    let (partitions, at_home) = (topic.partitions, topic.partitions == routes.shards);
    let changed = of_topic.into_iter().filter(|(_, before)| before.partitions != partitions);
    Ok(changed.map(|(at, before)| (at, PartitionProgress { partitions, at_home, ..before })).collect())
}

/// Records in intake came by the old route: those on the new one must not overtake them.
fn refuse_undrained(
    reader: &TopicReader,
    routes: &Routes,
    known: &BTreeMap<String, PartitionProgress>,
) -> Result<(), AcceptError> {
    let intake = &routes.out.intake;
    let mut waiting = 0;
    let mut stretches = reader.all(intake)?;
    for stretch in &mut stretches {
        let read = known.get(&partition_key(intake, stretch.partition));
        stretch.from = stretch.from.max(read.map_or(0, |progress| progress.offset + 1));
    }
    reader.read(intake, &stretches, |_| waiting += 1)?;
    if waiting > 0 {
        return Err(AcceptError::Busy(format!(
            "{waiting} records wait in {intake}: start an instance, wait until its lag there is 0, stop it, and try again"
        )));
    }
    Ok(())
}

/// Joins the group; the member must be given everything, or others are in it.
fn join(clients: &Clients, worker: usize, routes: &Routes) -> Result<KafkaConsumer, AcceptError> {
    // One beyond the workers, so that it takes nobody's name.
    let member = clients.ledger_consumer(worker)?;
    let names: Vec<&str> = routes.topics.iter().map(|topic| topic.name.as_str()).collect();
    member.subscribe(&names)?;
    let all: usize = routes.topics.iter().map(|topic| usize::try_from(topic.partitions).unwrap_or(0)).sum();
    let begun = Instant::now();
    while begun.elapsed() < JOIN_TIMEOUT {
        if let Polled::Assigned(partitions) = poll_events(&member, Duration::from_millis(200), |_| ()) {
            member.assign(&TopicPartitionList::new())?;
            if partitions.len() == all {
                return Ok(member);
            }
            return Err(AcceptError::Busy(
                "an instance joined the ledger group: stop all instances".to_owned(),
            ));
        }
    }
    Err(AcceptError::Busy(format!(
        "the ledger group was not to be joined within {JOIN_TIMEOUT:?}: try again"
    )))
}

/// What is written in one transaction.
#[derive(Default)]
struct Written {
    records: Vec<ToWrite>,
    offsets: TopicPartitionList,
}

struct ToWrite {
    topic: String,
    partition: i32,
    key: String,
    /// `None`: a tombstone.
    value: Option<Vec<u8>>,
}

impl Written {
    /// A partition's progress and, where it still is one, the group's offset.
    fn add_progress(
        &mut self,
        routes: &Routes,
        topic: &str,
        partition: i32,
        progress: &PartitionProgress,
        is_read: bool,
    ) -> Result<(), AcceptError> {
        if is_read {
            self.offsets.add_partition_offset(topic, partition, Offset::Offset(progress.offset + 1))?;
        }
        let place = partition.rem_euclid(routes.shards.max(1));
        self.add(&routes.out.progress, place, partition_key(topic, partition), progress)
    }

    fn add(
        &mut self,
        topic: &str,
        partition: i32,
        key: String,
        value: &impl Serialize,
    ) -> Result<(), AcceptError> {
        let value = serde_json::to_vec(value).map_err(|error| {
            AcceptError::Refused(format!("{topic}: the record of {key} cannot be written: {error}"))
        })?;
        self.records.push(ToWrite { topic: topic.to_owned(), partition, key, value: Some(value) });
        Ok(())
    }
}

/// Joins the group, and writes with its metadata.
fn write(clients: &Clients, config: &Config, routes: &Routes, written: &Written) -> Result<(), AcceptError> {
    let member = join(clients, config.ledger.workers, routes)?;
    let group = GroupMetadata::read(&member)
        .filter(|group| group.generation() >= 0)
        .ok_or_else(|| AcceptError::Busy("the ledger group moved on: try again".to_owned()))?;
    let producer = clients.transactional_producer(config.ledger.workers)?;
    producer.init(TIMEOUT)?;
    producer.begin()?;
    for ToWrite { topic, partition, key, value } in &written.records {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).partition(*partition).key(key);
        record.payload = value.as_deref();
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush_all(TIMEOUT)?;
    producer.send_offsets(&written.offsets, &group, TIMEOUT)?;
    Ok(producer.commit(TIMEOUT)?)
}
