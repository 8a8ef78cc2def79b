//! What `status` shows, asked of Kafka, ClickHouse and the instance at `http.listen`. Each part may fail by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::config::Config;
use crate::http::get_local;
use crate::kafka::{Clients, KafkaLog, ReadError, Stretch, TopicReader};
use crate::sink::client::{bounded, client};
use crate::time::Timestamp;

const TIMEOUT: Duration = Duration::from_secs(10);
/// The last record of a transaction stands at most so many markers before the end.
const TAIL_OFFSETS: i64 = 50;

/// A stage: a consumer group, and how far it is behind.
#[derive(Debug, Default, Serialize)]
pub struct Stage {
    /// Consumer group.
    pub group: String,
    /// State of the group, as Kafka names it.
    pub state: String,
    /// Its members: client, host, partitions.
    pub members: Vec<Member>,
    /// Partitions that nobody reads.
    pub unassigned: Vec<String>,
    /// Records, transaction markers included, that are not processed yet.
    pub behind: i64,
    /// Partitions that are behind, the worst first.
    pub lagging: Vec<Lagging>,
}

/// A member of a group.
#[derive(Debug, Serialize)]
pub struct Member {
    /// Client id.
    pub client: String,
    /// Host, as the broker sees it.
    pub host: String,
    /// Number of partitions.
    pub partitions: usize,
}

/// A partition that is behind.
#[derive(Debug, Serialize)]
pub struct Lagging {
    /// Topic and partition.
    pub partition: String,
    /// Offsets.
    pub behind: i64,
    /// Kafka timestamp of the first record that is not processed.
    pub oldest: Option<Timestamp>,
}

/// A number that an instance exports.
#[derive(Debug, Serialize)]
pub struct Gauge {
    /// Its labels, as they stand there.
    pub labels: String,
    /// Value.
    pub value: f64,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Status {
    /// When it was asked.
    pub at: Timestamp,
    /// The ledger stage.
    pub ledger: Stage,
    /// Kafka timestamp of the last progress of each shard; absent: none yet.
    pub last_commits: BTreeMap<i32, Option<Timestamp>>,
    /// The sink.
    pub sink: Stage,
    /// Newest entry that ClickHouse has, of the last day; an error where it does not answer.
    pub clickhouse: Result<Option<Timestamp>, String>,
    /// Records in the quarantine topic.
    pub quarantined: u64,
    /// Kafka timestamp of the last of them.
    pub last_quarantined: Option<Timestamp>,
    /// Metrics of the instance at `http.listen`: those that say that something is wrong, and the drift.
    pub instance: Result<BTreeMap<String, Vec<Gauge>>, String>,
}

/// Asks everybody.
pub async fn gather(config: &Arc<Config>) -> Result<Status, ReadError> {
    let kafka = tokio::task::block_in_place(|| of_kafka(config))?;
    let (ledger, sink, last_commits, (quarantined, last_quarantined)) = kafka;
    Ok(Status {
        at: Timestamp::now(),
        ledger,
        last_commits,
        sink,
        clickhouse: newest_entry(config).await.map_err(|error| error.to_string()),
        quarantined,
        last_quarantined,
        instance: of_instance(config).await,
    })
}

type OfKafka = (Stage, Stage, BTreeMap<i32, Option<Timestamp>>, (u64, Option<Timestamp>));

fn of_kafka(config: &Arc<Config>) -> Result<OfKafka, ReadError> {
    let (topics, clients) = (&config.topics, Clients::new(Arc::clone(config)));
    let reader = TopicReader::new(&clients, "status")?;
    let mut read: Vec<String> = topics.generation_topics();
    read.extend(topics.wallet_topics());
    read.push(topics.intake.clone());
    let ledger = stage(&clients, &reader, &config.ledger.group, &read)?;
    let written = [topics.ledger.clone(), topics.wallets.clone(), topics.quarantine.clone()];
    let sink = stage(&clients, &reader, &config.sink.group, &written)?;

    let mut last_commits: BTreeMap<i32, Option<Timestamp>> =
        (0..reader.partitions(&topics.progress)?).map(|shard| (shard, None)).collect();
    each_tail(&reader, &topics.progress, |partition, at| {
        last_commits.insert(partition, Some(at));
    })?;
    let mut last_quarantined = None;
    each_tail(&reader, &topics.quarantine, |_, at| last_quarantined = last_quarantined.max(Some(at)))?;
    let quarantined =
        reader.all(&topics.quarantine)?.iter().map(|one| (one.to - one.from).unsigned_abs()).sum();
    Ok((ledger, sink, last_commits, (quarantined, last_quarantined)))
}

/// The timestamps of a topic's last records, each partition's in order.
fn each_tail(
    reader: &TopicReader,
    topic: &str,
    mut each: impl FnMut(i32, Timestamp),
) -> Result<(), ReadError> {
    let tail = |whole: Stretch| Stretch { from: whole.from.max(whole.to - TAIL_OFFSETS), ..whole };
    let stretches: Vec<Stretch> = reader.all(topic)?.into_iter().map(tail).collect();
    reader.read(topic, &stretches, |record| each(record.partition, Timestamp::from_millis(record.timestamp)))
}

fn stage(
    clients: &Clients,
    reader: &TopicReader,
    group: &str,
    topics: &[String],
) -> Result<Stage, ReadError> {
    let asked: BaseConsumer<KafkaLog> = clients.group_reader(group)?;
    let mut stage = Stage { group: group.to_owned(), state: "unknown".to_owned(), ..Stage::default() };
    let mut assigned = BTreeSet::new();
    let groups = asked.fetch_group_list(Some(group), TIMEOUT)?;
    if let Some(found) = groups.groups().iter().find(|found| found.name() == group) {
        found.state().clone_into(&mut stage.state);
        for member in found.members() {
            let partitions = assigned_to(member);
            stage.members.push(Member {
                client: member.client_id().to_owned(),
                host: member.client_host().trim_start_matches('/').to_owned(),
                partitions: partitions.len(),
            });
            assigned.extend(partitions);
        }
    }
    for topic in topics {
        let whole = reader.all(topic)?;
        let mut wanted = TopicPartitionList::new();
        for stretch in &whole {
            wanted.add_partition(topic, stretch.partition);
        }
        let committed = asked.committed_offsets(wanted, TIMEOUT)?;
        let mut first = Vec::new();
        for Stretch { partition, from, to } in whole {
            if !assigned.contains(&(topic.clone(), partition)) {
                stage.unassigned.push(format!("{topic}/{partition}"));
            }
            let element = committed.find_partition(topic, partition);
            let next = match element.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset.max(from),
                _ => from,
            };
            if next < to {
                stage.behind += to - next;
                first.push(Stretch { partition, from: next, to: next + 1 });
                let partition = format!("{topic}/{partition}");
                stage.lagging.push(Lagging { partition, behind: to - next, oldest: None });
            }
        }
        let lagging = &mut stage.lagging;
        reader.read(topic, &first, |record| {
            let name = format!("{topic}/{}", record.partition);
            if let Some(lagging) = lagging.iter_mut().find(|lagging| lagging.partition == name) {
                lagging.oldest = Some(Timestamp::from_millis(record.timestamp));
            }
        })?;
    }
    // Only markers of transactions: nothing waits there.
    let (waits, markers): (Vec<_>, Vec<_>) =
        stage.lagging.into_iter().partition(|lagging| lagging.oldest.is_some());
    stage.behind -= markers.iter().map(|lagging| lagging.behind).sum::<i64>();
    stage.lagging = waits;
    stage.lagging.sort_by_key(|lagging| (lagging.oldest, lagging.partition.clone()));
    Ok(stage)
}

/// What a member was given: Kafka's consumer protocol, a version, then topics with their partitions.
fn assigned_to(member: &GroupMemberInfo) -> Vec<(String, i32)> {
    let mut rest = member.assignment().unwrap_or_default();
    let mut read = || -> Option<Vec<(String, i32)>> {
        let mut found = Vec::new();
        take::<2>(&mut rest)?;
        for _ in 0..i32::from_be_bytes(take::<4>(&mut rest)?) {
            let length = usize::try_from(i16::from_be_bytes(take::<2>(&mut rest)?)).ok()?;
            let (topic, after) = rest.split_at_checked(length)?;
            rest = after;
            let topic = String::from_utf8_lossy(topic).into_owned();
            for _ in 0..i32::from_be_bytes(take::<4>(&mut rest)?) {
                found.push((topic.clone(), i32::from_be_bytes(take::<4>(&mut rest)?)));
            }
        }
        Some(found)
    };
    read().unwrap_or_default()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

async fn newest_entry(config: &Config) -> Result<Option<Timestamp>, crate::sink::error::ClickHouseError> {
    let client = client(&config.clickhouse).with_database(&config.clickhouse.database);
    // A day is a few parts; all of the table would be read else.
    let sql = "SELECT toUnixTimestamp64Milli(max(posted_at)) FROM ledger_entries WHERE posted_at > now() - INTERVAL 1 DAY";
    let millis: i64 = bounded(config.clickhouse.request_timeout(), client.query(sql).fetch_one()).await?;
    Ok((millis > 0).then(|| Timestamp::from_millis(millis)))
}

/// What the instance of this configuration says of itself.
async fn of_instance(config: &Config) -> Result<BTreeMap<String, Vec<Gauge>>, String> {
    let address = config.http.listen_address().ok_or("http.listen is empty: no instance can be asked")?;
    let text = get_local(address, "/metrics", TIMEOUT).await?;
    let mut found: BTreeMap<String, Vec<Gauge>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) =
            series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let shown = ["drift_records", "drift_credits", "drift_checked_timestamp_seconds", "shard_stopped"];
        let Some(name) = name.strip_prefix("creditstream_").filter(|name| shown.contains(name)) else {
            continue;
        };
        let gauge = Gauge { labels: labels.to_owned(), value: value.parse().unwrap_or(f64::NAN) };
        found.entry(name.to_owned()).or_default().push(gauge);
    }
    Ok(found)
}
