//! A batch, computed: every record gets its one outcome, in memory only.
//!
//! Sources of one shard are merged by the event time of their heads, wallet events first on ties, each
//! partition's order kept. Everything lands in overlays and in the outbox; the worker decides what becomes of them.

use std::collections::{BTreeMap, VecDeque};

use rdkafka::{Offset, TopicPartitionList};

use super::batch::Batch;
use super::books::{Books, Outcome};
use super::decoding::{Incoming, decode_batch};
use super::outbox::{OutTopic, Outbox};
use super::process::{Context, Tally, hand_over, passes_origin_guard, process, quarantine};
use super::progress::{OriginBooks, PROGRESS_FORMAT, PartitionProgress, ShardProgress, partition_key, shard_key};
use super::routes::{Routes, TopicRole};
use super::shard::ShardSlot;
use crate::event::{Reason, Rejection, SourceKind};
use crate::time::Timestamp;
use crate::wallet::{Breach, encode_snapshot};

/// A partition that this worker reads: (index of the topic, partition).
pub type SourceId = (usize, i32);

/// How far a source partition was read, and what became of its records.
#[derive(Clone, Debug, Default)]
pub struct SourceHead {
    /// Offset after the last record read: those below it are skipped.
    pub next: i64,
    /// Outcomes as read here.
    pub books: Books,
    /// Of intake: the same by origin.
    pub by_origin: Vec<OriginBooks>,
}

/// A source partition with the batches under way.
#[derive(Debug)]
pub struct SourceSlot {
    /// Id of the topic when it was first read.
    pub topic_id: String,
    /// Number of its partitions when it was first read.
    pub partitions: i32,
    /// Whether its records stay with the shard of their partition.
    pub at_home: bool,
    /// Offset from which it was read when it was assigned.
    pub start: i64,
    /// What is committed.
    pub head: SourceHead,
    /// The batch that is being committed.
    pub pending: Option<SourceHead>,
    /// The batch that is being computed.
    pub current: Option<SourceHead>,
    /// It was read to its end since the last batch.
    pub reached_end: bool,
    /// Where its end was when it was reached last; 0: not yet.
    pub end: i64,
    /// Kafka timestamp of the last record read.
    pub last_timestamp: i64,
}

impl SourceSlot {
    fn current(&mut self) -> &mut SourceHead {
        let before = self.pending.as_ref().unwrap_or(&self.head);
        self.current.get_or_insert_with(|| before.clone())
    }
}

/// What a batch is computed upon and into.
pub struct Computation<'c> {
    /// Topics.
    pub routes: &'c Routes,
    /// Rules, prices, the wall clock.
    pub context: Context<'c>,
    /// Shards of this worker that run.
    pub shards: &'c mut BTreeMap<i32, ShardSlot>,
    /// Partitions of this worker.
    pub sources: &'c mut BTreeMap<SourceId, SourceSlot>,
    /// What the transaction will write.
    pub outbox: &'c mut Outbox,
    /// For the metrics.
    pub tally: &'c mut Tally,
}

/// A shard whose sums do not close.
pub struct ShardBreach {
    /// The shard.
    pub shard: i32,
    /// What was found.
    pub breach: Breach,
}

type Queue<'i, 'b> = VecDeque<&'i Incoming<'b>>;

impl Computation<'_> {
    /// Computes a batch. Returns the offsets to be committed.
    ///
    /// # Errors
    /// A shard whose sums do not close: nothing of the batch may be sent.
    pub fn run(&mut self, batch: &Batch) -> Result<TopicPartitionList, ShardBreach> {
        let routes = self.routes;
        let incoming = decode_batch(batch, routes, self.context.rules);
        let mut queues: BTreeMap<SourceId, Queue<'_, '_>> = BTreeMap::new();
        for record in &incoming {
            let id = (record.record.topic, record.record.partition);
            if self.sources.contains_key(&id) {
                queues.entry(id).or_default().push_back(record);
            }
        }
        let shard_numbers: Vec<i32> = self.shards.keys().copied().collect();
        for shard in shard_numbers {
            let is_of_shard = |(topic, partition): &SourceId| {
                *partition == shard && self.sources.get(&(*topic, *partition)).is_some_and(|source| source.at_home)
            };
            let ids: Vec<SourceId> = queues.keys().copied().filter(is_of_shard).collect();
            let mut streams: Vec<(SourceId, Queue<'_, '_>)> =
                ids.into_iter().filter_map(|id| queues.remove(&id).map(|queue| (id, queue))).collect();
            while let Some((id, record)) = pop_earliest(&mut streams, routes) {
                self.one(id, record).map_err(|breach| ShardBreach { shard, breach })?;
            }
        }
        // What is left is read here but at home nowhere: it is only handed over.
        for (id, queue) in queues {
            if self.sources.get(&id).is_some_and(|source| !source.at_home) {
                for record in queue {
                    self.one(id, record).map_err(|breach| ShardBreach { shard: -1, breach })?;
                }
            }
        }
        self.mark_ends();
        self.write_states().map_err(|breach| ShardBreach { shard: -1, breach })
    }

    /// One record: skipped, quarantined, handed over or processed.
    fn one(&mut self, id: SourceId, incoming: &Incoming<'_>) -> Result<(), Breach> {
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        source.last_timestamp = incoming.record.timestamp;
        source.reached_end = false;
        let is_new = incoming.record.offset >= source.current().next;
        if is_new {
            source.current().next = incoming.record.offset + 1;
        }
        let at_home = source.at_home;
        let outcome = if is_new { self.outcome(id, at_home, incoming)? } else { Outcome::Skipped };
        let is_intake = id.0 == self.routes.intake();
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        let head = source.current();
        head.books.count(outcome);
        if is_intake {
            books_of(&mut head.by_origin, incoming.origin.topic, incoming.origin.partition).count(outcome);
        }
        Ok(())
    }

    fn outcome(&mut self, id: SourceId, at_home: bool, incoming: &Incoming<'_>) -> Result<Outcome, Breach> {
        let (topic, partition) = id;
        if !at_home {
            return Ok(match (&incoming.event, incoming.home) {
                (Ok(event), Some(home)) => hand_over(incoming, event, home, self.outbox),
                (Err(rejection), _) => quarantine(incoming, rejection, &self.context, self.outbox, self.tally),
                (Ok(_), None) => Outcome::Skipped,
            });
        }
        let Some(slot) = self.shards.get_mut(&partition) else {
            return Err(Breach { seq: 0, what: format!("a record of shard {partition}, which does not run here") });
        };
        let mut view = slot.view();
        view.current.head.clock.record_read(topic);
        let is_intake = matches!(self.routes.topic(topic).map(|topic| topic.role), Some(TopicRole::Intake));
        if is_intake && !passes_origin_guard(&mut view.current.head.origins, &incoming.origin) {
            return Ok(Outcome::Skipped);
        }
        match (&incoming.event, incoming.home) {
            (Ok(event), Some(home)) if home != partition && !is_intake => Ok(hand_over(incoming, event, home, self.outbox)),
            (Ok(_), Some(home)) if home != partition => {
                let detail = format!("came through intake to shard {partition}, but its wallet lives in shard {home}");
                let rejection = Rejection::new(Reason::BadValue, detail);
                Ok(quarantine(incoming, &rejection, &self.context, self.outbox, self.tally))
            }
            _ => process(&mut view, incoming, &self.context, self.outbox, self.tally),
        }
    }

    /// Sources that were read to their end, after the records before it.
    fn mark_ends(&mut self) {
        let wall = self.context.wall;
        for ((topic, partition), source) in self.sources.iter_mut() {
            if std::mem::take(&mut source.reached_end)
                && source.at_home
                && let Some(slot) = self.shards.get_mut(partition)
            {
                slot.view().current.head.clock.at_end(*topic, wall);
            }
        }
    }

    /// Wallets, positions and source offsets of everything that the batch touched.
    fn write_states(&mut self) -> Result<TopicPartitionList, Breach> {
        for (shard, slot) in self.shards.iter() {
            let Some(overlay) = &slot.current else { continue };
            let clock = overlay.head.clock.now();
            for (wallet_id, wallet) in &overlay.wallets {
                self.outbox.push(OutTopic::Wallets, *shard, wallet_id, |out| encode_snapshot(wallet_id, wallet, clock, out));
            }
            let progress = ShardProgress {
                v: PROGRESS_FORMAT,
                batch: overlay.head.batch,
                clock: clock.0.max(Timestamp::from_millis(0)),
                group: self.context.group.to_owned(),
                config_hash: self.context.policy.hash_up_to(clock).to_owned(),
                origins: overlay.head.origins.clone(),
            };
            self.outbox.push_json(OutTopic::Progress, *shard, &shard_key(*shard), &progress)?;
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), source) in self.sources.iter() {
            let (Some(head), Some(topic)) = (&source.current, self.routes.topic(*topic)) else { continue };
            let progress = PartitionProgress {
                v: PROGRESS_FORMAT,
                topic_id: source.topic_id.clone(),
                partitions: source.partitions,
                at_home: source.at_home,
                offset: head.next - 1,
                outcomes: head.books,
                by_origin: head.by_origin.clone(),
            };
            let place = partition.rem_euclid(self.context.shards.max(1));
            self.outbox.push_json(OutTopic::Progress, place, &partition_key(&topic.name, *partition), &progress)?;
            offsets
                .add_partition_offset(&topic.name, *partition, Offset::Offset(head.next))
                .map_err(|error| Breach { seq: 0, what: format!("offset {} cannot be committed: {error}", head.next) })?;
        }
        Ok(offsets)
    }
}

/// Takes the record whose event happened first; wallet events first on ties. What cannot be decoded goes first.
fn pop_earliest<'i, 'b>(streams: &mut [(SourceId, Queue<'i, 'b>)], routes: &Routes) -> Option<(SourceId, &'i Incoming<'b>)> {
    let head_key = |((topic, _), queue): &(SourceId, Queue<'i, 'b>)| {
        let time = queue.front()?.event.as_ref().map_or(Timestamp::MIN, |event| event.time.0);
        let is_wallet_topic = routes.topic(*topic).is_some_and(|topic| topic.role == TopicRole::Source(SourceKind::Wallet));
        Some((time, !is_wallet_topic))
    };
    let (_, (id, queue)) =
        streams.iter_mut().filter_map(|stream| Some((head_key(stream)?, stream))).min_by_key(|(key, _)| *key).map(|(key, stream)| (key, (stream.0, &mut stream.1)))?;
    queue.pop_front().map(|record| (id, record))
}

fn books_of<'o>(all: &'o mut Vec<OriginBooks>, topic: &str, partition: i32) -> &'o mut Books {
    let known = all.iter().position(|books| books.partition == partition && books.topic == topic);
    let place = known.unwrap_or(all.len());
    if known.is_none() {
        all.push(OriginBooks { topic: topic.to_owned(), partition, outcomes: Books::default() });
    }
    // The place was found or made just now.
    #[allow(clippy::indexing_slicing)]
    &mut all[place].outcomes
}
