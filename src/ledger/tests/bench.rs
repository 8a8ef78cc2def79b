//! A ledger stage without Kafka: routes, shards and sources as a worker has them, and a wall clock that stands.
//!
//! [`Bench::table`] feeds records one by one, each a committed batch of its own, and compares what became of each:
//! an outcome, or the reason of a quarantined record.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::event::{EventRules, SourceKind};
use crate::kafka::partition_for;
use crate::ledger::arena::Chunks;
use crate::ledger::batch::{Batch, MadeRecord};
use crate::ledger::books::Outcome;
use crate::ledger::compute::{
    self, Computation, ShardBreach, SourceHead, SourceId, SourceSlot, side_by_side,
};
use crate::ledger::identity_store::Maintenance;
use crate::ledger::outbox::{OutTopic, Outbox};
use crate::ledger::process::{Context, Tally};
use crate::ledger::routes::{Routes, Topic, TopicRole};
use crate::ledger::shard::{ShardSlot, ShardState};
use crate::ledger::store::LocalStore;
use crate::ledger::{TimeRules, headers};
use crate::rate::Pricing;
use crate::time::{ShardClock, Timestamp};
use crate::wallet::{LedgerRecord, Policy, Wallet};

/// Index of `generation.events`.
pub const GENERATION: usize = 0;
/// Index of `wallet.events`.
pub const WALLET: usize = 1;
/// Index of `credits.intake`.
pub const INTAKE: usize = 2;
/// The wall clock.
pub const NOW: &str = "2026-11-03T10:15:30.000Z";

/// A record to be fed.
#[derive(Clone)]
pub struct Made {
    pub topic: usize,
    pub partition: i32,
    /// Below 0: the next of its partition.
    pub offset: i64,
    pub timestamp: Timestamp,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref().map_or("(tombstone)".into(), String::from_utf8_lossy);
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(
            f,
            "topic {} partition {} offset {} {names:?} {value}",
            self.topic, self.partition, self.offset
        )
    }
}

impl Made {
    /// A structured event on its way to partition 0 of that topic.
    pub fn new(topic: usize, value: impl Into<Vec<u8>>) -> Made {
        let now = Timestamp::parse(NOW).unwrap();
        Made {
            topic,
            partition: 0,
            offset: -1,
            timestamp: now,
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }

    pub fn at_partition(self, partition: i32) -> Made {
        Made { partition, ..self }
    }

    pub fn at_offset(self, offset: i64) -> Made {
        Made { offset, ..self }
    }

    pub fn written_at(self, timestamp: &str) -> Made {
        Made { timestamp: Timestamp::parse(timestamp).unwrap(), ..self }
    }

    pub fn keyed(self, key: &str) -> Made {
        Made { key: Some(key.as_bytes().to_vec()), ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Made {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// With one piece of its value changed.
    pub fn with(self, from: &str, to: &str) -> Made {
        let value = String::from_utf8(self.value.clone().unwrap()).unwrap();
        assert!(value.contains(from), "{from} does not stand in {value}");
        Made { value: Some(value.replace(from, to).into_bytes()), ..self }
    }

    pub fn at(self, time: &str) -> Made {
        self.with(NOW, time)
    }

    pub fn of_wallet(self, wallet_id: &str) -> Made {
        self.with("\"w1\"", &format!("\"{wallet_id}\""))
    }
}

/// An event of wallet w1 at [`NOW`].
pub fn event(topic: usize, kind: &str, id: &str, data: &str) -> Made {
    Made::new(
        topic,
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"{kind}","subject":"w1","time":"{NOW}","data":{data}}}"#
        ),
    )
}

/// `generation.completed` of so many images; `job` may be `job/asset`.
pub fn usage(id: &str, job: &str, images: u32) -> Made {
    let (job, asset) = job.split_once('/').unwrap_or((job, ""));
    let asset = if asset.is_empty() { String::new() } else { format!(r#","asset_id":"{asset}""#) };
    event(
        GENERATION,
        "generation.completed",
        id,
        &format!(r#"{{"job_id":"{job}","asset":"image","images":{images}{asset}}}"#),
    )
}

/// `ad.created`
pub fn free(id: &str) -> Made {
    event(GENERATION, "ad.created", id, "{}")
}

/// `topup.purchased`
pub fn topup(id: &str, topup_id: &str, usd: u32) -> Made {
    event(WALLET, "topup.purchased", id, &format!(r#"{{"topup_id":"{topup_id}","amount_usd":{usd}}}"#))
}

/// `contract.started` on the first of the month.
pub fn contract(id: &str, contract_id: &str, plan: &str) -> Made {
    let data =
        format!(r#"{{"contract_id":"{contract_id}","plan":"{plan}","starts_at":"2026-11-01T00:00:00Z"}}"#);
    event(WALLET, "contract.started", id, &data)
}

/// `wallet.adjusted`
pub fn adjustment(id: &str, adjustment_id: &str, credits: i64) -> Made {
    let data =
        format!(r#"{{"adjustment_id":"{adjustment_id}","credits":{credits},"reason":"r","actor":"a"}}"#);
    event(WALLET, "wallet.adjusted", id, &data)
}

/// A wallet id that lives in `shard` of `shards`.
pub fn wallet_of(shard: i32, shards: i32) -> String {
    (0..).map(|n| format!("w{n}")).find(|id| is_home(id, shard, shards)).unwrap()
}

pub fn is_home(wallet_id: &str, shard: i32, shards: i32) -> bool {
    partition_for(wallet_id.as_bytes(), shards) == shard
}

/// A shard without anything, whose identities stay in memory.
pub fn empty_shard(shard: i32) -> ShardState {
    static MAINTENANCE: std::sync::LazyLock<Maintenance> =
        std::sync::LazyLock::new(|| Maintenance::start().unwrap());
    let store = LocalStore {
        folder: None,
        maintenance: &MAINTENANCE,
        recent_max: 1_000_000,
        horizon_days: 35,
        ledger_id: "ledger-id",
    };
    store.empty_shard(shard)
}

/// A worker's state.
pub struct Bench {
    pub routes: Routes,
    pub rules: EventRules,
    pub policy: Policy,
    pub time: TimeRules,
    pub wall: Timestamp,
    pub shards: BTreeMap<i32, ShardSlot>,
    pub sources: BTreeMap<SourceId, SourceSlot>,
    /// Whether batches save wallets.
    pub with_snapshots: bool,
    /// `None`: batches are computed by the test's own thread.
    pub helpers: Option<rayon::ThreadPool>,
    outboxes: Vec<Outbox>,
    chunks: Chunks,
    next_offsets: HashMap<SourceId, i64>,
}

/// A computed batch.
pub struct Computed {
    pub outboxes: Vec<Outbox>,
    pub tally: Tally,
    pub offsets: Vec<(String, i32, i64)>,
}

/// A record of the quarantine or of intake.
#[derive(Debug)]
pub struct Sent {
    pub is_quarantine: bool,
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
}

impl Sent {
    pub fn header(&self, name: &str) -> &str {
        let found: Vec<&str> = self
            .headers
            .iter()
            .filter(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(found.len() <= 1, "{name} stands {} times: {self:?}", found.len());
        found.first().copied().unwrap_or("")
    }
}

impl Bench {
    /// One shard, all of whose sources have been read to their ends.
    pub fn new() -> Bench {
        Bench::with_shards(1)
    }

    pub fn with_shards(shards: i32) -> Bench {
        let config = Config::default();
        let topic = |name: &str, role| Topic {
            name: name.to_owned(),
            topic_id: format!("{name}-id"),
            partitions: shards,
            role,
        };
        let routes = Routes {
            topics: vec![
                topic("generation.events", TopicRole::Source(SourceKind::Generation)),
                topic("wallet.events", TopicRole::Source(SourceKind::Wallet)),
                topic("credits.intake", TopicRole::Intake),
            ],
            shards,
            out: config.topics.clone(),
            ledger_id: "ledger-id".to_owned(),
        };
        let mut bench = Bench {
            routes,
            rules: EventRules::new(&config.events),
            policy: Policy::new(&config, Arc::new(Pricing::built_in().unwrap())),
            time: TimeRules::new(&config.clock),
            wall: Timestamp::parse(NOW).unwrap(),
            shards: BTreeMap::new(),
            sources: BTreeMap::new(),
            with_snapshots: true,
            helpers: crate::ledger::compute::helpers(0, 3).unwrap(),
            outboxes: Vec::new(),
            chunks: Chunks::default(),
            next_offsets: HashMap::new(),
        };
        for shard in 0..shards {
            let mut state = empty_shard(shard);
            state.head.clock.assign([GENERATION, WALLET, INTAKE]);
            for topic in [GENERATION, WALLET, INTAKE] {
                state.head.clock.at_end(topic, bench.wall);
                bench.sources.insert((topic, shard), bench.source(topic, true));
            }
            bench.shards.insert(shard, ShardSlot::new(state));
        }
        bench
    }

    /// A limit for the plans of the built-in pricing file.
    pub fn with_limit(overdraft_limit: i64) -> Bench {
        let built_in = include_str!("../../../config/pricing.toml");
        let limited = built_in.replace(
            "credits_per_month = 200",
            &format!("credits_per_month = 200\noverdraft_limit = {overdraft_limit}"),
        );
        let pricing = Pricing::parse(&limited).unwrap();
        let mut bench = Bench::new();
        bench.policy = Policy::new(&Config::default(), Arc::new(pricing));
        bench
    }

    pub fn source(&self, topic: usize, at_home: bool) -> SourceSlot {
        SourceSlot {
            topic_id: self.routes.topics[topic].topic_id.clone(),
            partitions: self.routes.shards,
            at_home,
            earlier: Default::default(),
            start: 0,
            may_skip: true,
            went_back: None,
            head: SourceHead::default(),
            pending: None,
            current: None,
            reached_end: false,
            end: 0,
            last_timestamp: 0,
        }
    }

    /// A batch of these records, which get the next offsets of their partitions where they have none.
    pub fn batch(&mut self, records: &[Made]) -> Batch {
        let mut batch = Batch::new(&self.chunks);
        for record in records {
            let next = self.next_offsets.entry((record.topic, record.partition)).or_default();
            let offset = if record.offset < 0 { *next } else { record.offset };
            *next = (*next).max(offset + 1);
            batch.push_made(&MadeRecord {
                topic: record.topic,
                partition: record.partition,
                offset,
                timestamp: record.timestamp.millis(),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: record
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_slice()))
                    .collect(),
            });
        }
        batch
    }

    /// Polling met the end of partition 0 of that topic.
    pub fn ends_at(&mut self, topic: usize, offset: i64) {
        let source = self.sources.get_mut(&(topic, 0)).unwrap();
        (source.reached_end, source.end) = (true, offset);
    }

    /// A batch after an assignment: a group that was reset is read again from any offset.
    pub fn try_compute(&mut self, batch: &Batch) -> Result<Computed, ShardBreach> {
        self.sources.values_mut().for_each(|source| source.may_skip = true);
        let computation = Computation {
            routes: &self.routes,
            context: Context {
                rules: &self.rules,
                policy: &self.policy,
                time: self.time,
                wall: self.wall,
                shards: self.routes.shards,
                group: "group",
                cuts_large: false,
            },
            shards: &mut self.shards,
            sources: &mut self.sources,
            outboxes: std::mem::take(&mut self.outboxes),
            chunks: &self.chunks,
            helpers: self.helpers.as_ref(),
            with_snapshots: self.with_snapshots,
        };
        let compute::Computed { outboxes, offsets, tally } = computation.compute(batch)?;
        let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            let offset = element.offset().to_raw().unwrap();
            (element.topic().to_owned(), element.partition(), offset)
        };
        let offsets = offsets.elements().into_iter().map(offset).collect();
        Ok(Computed { outboxes, tally, offsets })
    }

    /// What a computed batch wrote serves the next one.
    pub fn recycle(&mut self, computed: Computed) {
        self.outboxes = computed.outboxes;
        self.outboxes.iter_mut().for_each(Outbox::clear);
    }

    pub fn compute(&mut self, batch: &Batch) -> Computed {
        self.try_compute(batch).unwrap_or_else(|breach| panic!("shard {}: {}", breach.shard, breach.breach))
    }

    /// The computed batch is on its way.
    pub fn send(&mut self) {
        self.shards.values_mut().for_each(ShardSlot::send);
        for source in self.sources.values_mut() {
            source.pending = source.current.take();
        }
    }

    /// The batch on its way is committed.
    pub fn commit(&mut self) {
        let time = self.time;
        side_by_side(self.helpers.as_ref(), self.shards.values_mut().collect(), |slot| {
            slot.land();
            slot.apply(&time);
        });
        for source in self.sources.values_mut() {
            if let Some(head) = source.pending.take() {
                source.head = head;
            }
        }
    }

    /// Whatever is under way was aborted.
    pub fn abort(&mut self) {
        self.shards.values_mut().for_each(ShardSlot::drop_overlays);
        for source in self.sources.values_mut() {
            (source.pending, source.current) = (None, None);
        }
    }

    /// One committed batch.
    pub fn run(&mut self, records: &[Made]) -> Computed {
        let batch = self.batch(records);
        let computed = self.compute(&batch);
        self.send();
        self.commit();
        computed
    }

    /// One record as a committed batch of its own; its outcome, or the reason why it was quarantined.
    pub fn one(&mut self, record: &Made) -> String {
        let before = self.counts();
        let computed = self.run(std::slice::from_ref(record));
        let after = self.counts();
        let changed: Vec<Outcome> = Outcome::ALL
            .into_iter()
            .zip(before.iter().zip(after))
            .filter(|(_, (before, after))| after > *before)
            .map(|(outcome, _)| outcome)
            .collect();
        let [outcome] = changed[..] else { panic!("{changed:?}: exactly one outcome for every record") };
        match computed.tally.reasons[..] {
            [] => outcome.as_str().to_owned(),
            [reason] => {
                assert_eq!(outcome, Outcome::Quarantined);
                let quarantined = &computed.sent()[0];
                assert_eq!(quarantined.header(headers::REASON), reason.as_str());
                assert!(!quarantined.header(headers::DETAIL).is_empty());
                assert_eq!(computed.entries(), Vec::<String>::new(), "nothing is posted");
                reason.as_str().to_owned()
            }
            _ => panic!("{:?}", computed.tally.reasons),
        }
    }

    /// Records one by one, and what must become of each.
    pub fn table(&mut self, rows: &[(Made, &str)]) {
        for (row, (record, expected)) in rows.iter().enumerate() {
            assert_eq!(self.one(record), *expected, "row {row}: {record:?}");
        }
    }

    /// Records by outcome, over all sources.
    pub fn counts(&self) -> Vec<u64> {
        let of = |outcome| self.sources.values().map(|source| source.head.books.get(outcome)).sum();
        Outcome::ALL.into_iter().map(of).collect()
    }

    pub fn count(&self, topic: usize, partition: i32, outcome: Outcome) -> u64 {
        self.sources[&(topic, partition)].head.books.get(outcome)
    }

    /// A committed wallet.
    pub fn wallet(&self, wallet_id: &str) -> Option<Wallet> {
        self.shards.values().find_map(|slot| slot.state.wallets.get_by_id(wallet_id))
    }

    pub fn balance(&self, wallet_id: &str) -> i64 {
        self.wallet(wallet_id).map_or(0, |wallet| wallet.balance())
    }

    pub fn clock(&self) -> ShardClock {
        self.shards[&0].state.head.clock.now()
    }

    /// Puts the clock of shard 0.
    pub fn set_clock(&mut self, at: &str) {
        let clock = &mut self.shards.get_mut(&0).unwrap().state.head.clock;
        *clock = crate::ledger::clock::ClockState::new(ShardClock(Timestamp::parse(at).unwrap()));
        clock.assign([GENERATION, WALLET, INTAKE]);
        [GENERATION, WALLET, INTAKE].into_iter().for_each(|topic| clock.at_end(topic, self.wall));
    }
}

impl Computed {
    /// Records of a topic: (partition, key, value).
    pub fn records(&self, topic: OutTopic) -> Vec<(i32, String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let records = self.outboxes.iter().flat_map(|outbox| outbox.records(topic));
        records.map(|record| (record.partition, text(record.key), text(record.value))).collect()
    }

    /// Ledger entries in the order of writing: `wallet seq type event offset`.
    pub fn entries(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for (_, key, value) in self.records(OutTopic::Ledger) {
            let record: LedgerRecord<'_> = serde_json::from_str(&value).unwrap();
            assert_eq!(record.wallet_id, key);
            let entries = record.entries.iter();
            shown.extend(entries.map(|entry| {
                format!("{key} {} {} {}", entry.seq, entry.entry_type.as_str(), entry.event_id)
            }));
        }
        shown
    }

    /// Event ids in the order in which they were posted.
    pub fn posted(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.entries().iter().map(|entry| entry.rsplit(' ').next().unwrap().to_owned()).collect();
        ids.dedup();
        ids
    }

    pub fn sent(&self) -> Vec<Sent> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let sent = |record: crate::ledger::outbox::HeaderRecord<'_>| Sent {
            is_quarantine: record.is_quarantine,
            partition: record.partition,
            key: record.key.map(text),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
        };
        self.outboxes.iter().flat_map(Outbox::records_with_headers).map(sent).collect()
    }

    /// Everything that the transaction would write, to the byte.
    pub fn bytes(&self) -> String {
        let topics = [OutTopic::Ledger, OutTopic::Alerts, OutTopic::Wallets, OutTopic::Progress];
        format!("{:#?}\n{:#?}\n{:#?}", topics.map(|topic| self.records(topic)), self.sent(), self.offsets)
    }
}

/// A handed-over record as intake delivers it.
pub fn through_intake(sent: &Sent, offset: i64) -> Made {
    assert!(!sent.is_quarantine);
    Made {
        topic: INTAKE,
        partition: sent.partition,
        offset,
        timestamp: Timestamp::parse(NOW).unwrap(),
        key: sent.key.as_ref().map(|key| key.as_bytes().to_vec()),
        value: sent.value.clone(),
        headers: sent.headers.iter().map(|(name, value)| (name.clone(), value.as_bytes().to_vec())).collect(),
    }
}
