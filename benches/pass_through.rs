//! What Kafka itself allows: a transactional pass-through with the clients, settings and batches of the ledger stage,
//! and nothing in between.
//!
//! `pass_through CONFIG RECORDS BYTES`: bare, one record out per record in, the first bytes of its value, again and again
//! up to a length. `pass_through CONFIG RECORDS OTHER_CONFIG`: what the ledger stage of another configuration wrote of the
//! same records: to each topic as many of them, of the same keys and values (a sample of them, again and again; headers are
//! left out).
//!
//! `benches/ledger_stage.py` runs it beside the ledger stage, over the same topics. It ends by itself once so many records
//! have gone through, and prints one JSON object: records and seconds, from the first commit to the last.
#![allow(clippy::print_stdout, reason = "figures for a program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure ends the measurement")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use creditstream::config::{Config, TopicsConfig};
use creditstream::kafka::{
    BatchTopic, Clients, ConnectionLog, GroupMetadata, OutgoingRecord, Polled, RecordView, Stretch,
    TopicReader, TransactionalProducer, poll_events, take_records,
};
use rdkafka::consumer::Consumer;
use rdkafka::producer::BaseProducer;
use rdkafka::{Offset, TopicPartitionList};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing comes for so long: it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many records of a topic stand for all of them.
const SAMPLE_MAX: i64 = 48_000;

/// Records on their way, and of a bare pass-through what goes out for them, one after the other in one buffer.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    partitions: Vec<i32>,
    /// Offset after the last record read, by topic and partition.
    next: BTreeMap<(String, i32), i64>,
    group: Option<GroupMetadata>,
}

/// What the ledger stage wrote to a topic.
struct Written {
    to: BatchTopic<ConnectionLog>,
    /// In turn of each partition one.
    sample: Vec<Sampled>,
    /// Records for each record read.
    share: f64,
    /// Of the sample, the next to go out.
    next: usize,
    /// Records read so far, and those that went out for them.
    read: usize,
    sent: usize,
}

struct Sampled {
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What goes out.
enum Output {
    /// So many bytes for each record.
    Bare(BatchTopic<ConnectionLog>, usize),
    /// What the ledger stage wrote.
    Like(Vec<Written>),
}

impl Output {
    fn produce(&mut self, batch: &Batch) {
        match self {
            Output::Bare(to, bytes) => to
                .produce(batch.partitions.iter().enumerate().map(|(place, partition)| OutgoingRecord {
                    partition: *partition,
                    key: &[],
                    value: &batch.bytes[place * *bytes..(place + 1) * *bytes],
                }))
                .unwrap(),
            Output::Like(topics) => topics.iter_mut().for_each(|topic| topic.produce(batch.partitions.len())),
        }
    }
}

impl Written {
    fn produce(&mut self, read: usize) {
        self.read += read;
        let due = (self.read as f64 * self.share) as usize - self.sent;
        let records = (0..due).map(|place| {
            let Sampled { partition, key, value } = &self.sample[(self.next + place) % self.sample.len()];
            OutgoingRecord { partition: *partition, key, value }
        });
        self.to.produce(records).unwrap();
        self.next = (self.next + due) % self.sample.len();
        self.sent += due;
    }
}

/// What was written to the topics of another configuration, which are at rest.
fn written(
    clients: &Clients,
    producer: &Arc<BaseProducer<ConnectionLog>>,
    records: usize,
    (other, own): (&TopicsConfig, &TopicsConfig),
) -> Vec<Written> {
    let reader = TopicReader::new(clients, "sample").unwrap();
    let names = |topics: &TopicsConfig| {
        let TopicsConfig { ledger, wallets, alerts, progress, intake, quarantine, .. } = topics.clone();
        [ledger, wallets, alerts, progress, intake, quarantine]
    };
    let of_topic = |(from, to): (String, String)| {
        let all = reader.all(&from).unwrap();
        // Markers of transactions are counted too: one for each partition and batch.
        let count: i64 = all.iter().map(|stretch| stretch.to - stretch.from).sum();
        let most = SAMPLE_MAX / all.len() as i64;
        let begin =
            |stretch: &Stretch| Stretch { to: stretch.to.min(stretch.from.saturating_add(most)), ..*stretch };
        let mut sample = Vec::new();
        let take = |record: &RecordView<'_>| {
            let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
            let (key, value) = (bytes(record.key), bytes(record.value));
            sample.push((record.offset, Sampled { partition: record.partition, key, value }));
        };
        reader.read(&from, &all.iter().map(begin).collect::<Vec<_>>(), take).unwrap();
        sample.sort_by_key(|(offset, record)| (*offset, record.partition));
        let sample: Vec<Sampled> = sample.into_iter().map(|(_, record)| record).collect();
        (!sample.is_empty()).then(|| Written {
            to: BatchTopic::open(producer, &to, TIMEOUT).unwrap(),
            sample,
            share: count as f64 / records as f64,
            next: 0,
            read: 0,
            sent: 0,
        })
    };
    names(other).into_iter().zip(names(own)).filter_map(of_topic).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, records, what] = arguments.as_slice() else {
        panic!("pass_through CONFIG RECORDS BYTES|OTHER_CONFIG")
    };
    let records: usize = records.parse().unwrap();
    let load = |path: &str| Config::load(Some(&PathBuf::from(path)), std::env::vars()).unwrap();
    let config = load(config);
    let clients = Clients::new(Arc::new(config.clone()));
    let producer = Arc::new(clients.transactional_producer(0).unwrap());
    producer.init(TIMEOUT).unwrap();
    // Of what goes out for a record, so much is made of its own value.
    let bytes = what.parse().unwrap_or(0);
    let mut output = match bytes {
        0 => Output::Like(written(&clients, &producer, records, (&load(what).topics, &config.topics))),
        _ => Output::Bare(BatchTopic::open(&producer, &config.topics.ledger, TIMEOUT).unwrap(), bytes),
    };

    // As in the ledger stage one thread reads while the other commits.
    let (to_commit, batches) = sync_channel::<Batch>(1);
    let (done, emptied) = sync_channel::<Batch>(2);
    let committer = std::thread::spawn(move || {
        let (mut first, mut committed) = (None, 0);
        for mut batch in batches {
            let count = batch.partitions.len();
            producer.begin().unwrap();
            output.produce(&batch);
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
                consumer.assign_gathered(&list).unwrap();
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
