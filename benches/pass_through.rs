//! What Kafka itself allows: a transactional pass-through with the clients, settings and batches of the ledger stage,
//! and nothing in between. One record out per record in: the first bytes of its value, again and again up to a length.
//!
//! `benches/ledger_stage.py` runs it beside the ledger stage, over the same topics: `pass_through CONFIG RECORDS BYTES`.
//! It ends by itself once so many records have gone through, and prints one JSON object: records and seconds, from the
//! first commit to the last.
#![allow(clippy::print_stdout, reason = "figures for a program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure ends the measurement")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use creditstream::config::Config;
use creditstream::kafka::{
    BatchTopic, Clients, GroupMetadata, OutgoingRecord, Polled, RecordView, TransactionalProducer,
    poll_events, take_records,
};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing comes for so long: it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Records on their way out, one after the other in one buffer.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    partitions: Vec<i32>,
    /// Offset after the last record read, by topic and partition.
    next: BTreeMap<(String, i32), i64>,
    group: Option<GroupMetadata>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, records, bytes] = arguments.as_slice() else { panic!("pass_through CONFIG RECORDS BYTES") };
    let (records, bytes): (usize, usize) = (records.parse().unwrap(), bytes.parse().unwrap());
    let config = Config::load(Some(&PathBuf::from(config)), std::env::vars()).unwrap();
    let clients = Clients::new(Arc::new(config.clone()));
    let producer = Arc::new(clients.transactional_producer(0).unwrap());
    producer.init(TIMEOUT).unwrap();
    let out = BatchTopic::open(&producer, &config.topics.ledger, TIMEOUT).unwrap();

    // As in the ledger stage one thread reads while the other commits.
    let (to_commit, batches) = sync_channel::<Batch>(1);
    let (done, emptied) = sync_channel::<Batch>(2);
    let committer = std::thread::spawn(move || {
        let (mut first, mut committed) = (None, 0);
        for mut batch in batches {
            let count = batch.partitions.len();
            producer.begin().unwrap();
            out.produce(batch.partitions.iter().enumerate().map(|(place, partition)| OutgoingRecord {
                partition: *partition,
                key: &[],
                value: &batch.bytes[place * bytes..(place + 1) * bytes],
            }))
            .unwrap();
            producer.flush_all(TIMEOUT).unwrap();
            let mut offsets = TopicPartitionList::new();
            for ((topic, partition), next) in &batch.next {
                offsets.add_partition_offset(topic, *partition, Offset::Offset(*next)).unwrap();
            }
            producer.send_offsets(&offsets, batch.group.as_ref().unwrap(), TIMEOUT).unwrap();
            producer.commit(TIMEOUT).unwrap();
            committed += if first.is_some() { count } else { 0 };
            first.get_or_insert_with(Instant::now);
            batch.bytes.clear();
            batch.partitions.clear();
            batch.next.clear();
            // At the end nobody takes it.
            let _ = done.send(batch);
        }
        (committed, first.unwrap().elapsed())
    });

    let consumer = clients.ledger_consumer(0).unwrap();
    let topics: Vec<String> = [config.topics.generation_topics(), config.topics.wallet_topics()].concat();
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let mut spare = vec![Batch::default(), Batch::default()];
    let (mut read, mut last) = (0, Instant::now());
    while read < records {
        let mut batch = spare.pop().unwrap_or_else(|| emptied.recv().unwrap());
        while batch.partitions.len() < config.ledger.batch_events_max && read < records {
            if let Polled::Assigned(partitions) = poll_events(&consumer, Duration::ZERO, |_| ()) {
                let mut list = TopicPartitionList::new();
                for (topic, partition) in &partitions {
                    list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
                }
                consumer.assign(&list).unwrap();
            }
            let before = batch.partitions.len();
            let push = |record: &RecordView<'_>| {
                let value = record.value.filter(|value| !value.is_empty()).unwrap_or(b" ");
                let end = batch.bytes.len() + bytes;
                while batch.bytes.len() < end {
                    let most = (end - batch.bytes.len()).min(value.len());
                    batch.bytes.extend_from_slice(&value[..most]);
                }
                batch.partitions.push(record.partition);
                let id = (record.topic, record.partition);
                match batch.next.iter_mut().find(|((topic, partition), _)| (topic.as_str(), *partition) == id)
                {
                    Some((_, next)) => *next = record.offset + 1,
                    None => drop(batch.next.insert((id.0.to_owned(), id.1), record.offset + 1)),
                }
            };
            take_records(&consumer, usize::MAX, Duration::from_millis(5), push, |_, _, _| ());
            let taken = batch.partitions.len() - before;
            read += taken;
            if taken > 0 {
                last = Instant::now();
            }
            assert!(last.elapsed() < PATIENCE, "{read} of {records} records came");
        }
        batch.group = GroupMetadata::read(&consumer);
        to_commit.send(batch).unwrap();
    }
    drop(to_commit);
    drop(emptied);
    let (committed, took) = committer.join().unwrap();
    println!(r#"{{"records":{committed},"seconds":{}}}"#, took.as_secs_f64());
}
