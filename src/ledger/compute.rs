//! A batch, computed: every record gets its one outcome, in memory only.
//!
//! A batch falls into parts, one a shard ([`super::part`]), computed side by side by the worker's own thread and those
//! that help it. Everything lands in overlays and in outboxes; the worker decides what becomes of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use rdkafka::{Offset, TopicPartitionList};

use super::arena::Chunks;
use super::batch::{Batch, RawRecord};
use super::books::Books;
use super::outbox::Outbox;
use super::part::{Bounds, Part, Partition};
use super::process::{Context, Tally};
use super::progress::OriginBooks;
use super::routes::Routes;
use super::shard::ShardSlot;
use crate::wallet::Breach;

/// Most records that timers write in one batch of up to 20,000 records; a larger one takes longer anyway, and so many more.
const TIMER_RECORDS_MAX: usize = 6_000;
/// Most wallets that are saved with one batch.
const SNAPSHOTS_MAX: usize = 12_000;
/// The same beside many records: events come first, and what a snapshot would say is soon of yesterday.
const SNAPSHOTS_MAX_BESIDE_MANY: usize = 6_000;
/// The same while more is due than one batch posts.
const SNAPSHOTS_MAX_WHILE_DUE: usize = 3_000;
/// So many records.
const MANY: usize = 10_000;

/// Records of a batch from which on it pays to wake other threads. In tests few are enough to go the same way.
pub const SIDE_BY_SIDE_MIN: usize = if cfg!(test) { 8 } else { 1_000 };

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
    /// Outcomes of earlier topics of this name.
    pub earlier: Books,
    /// Offset from which it was read when it was assigned.
    pub start: i64,
    /// It is read again from before the guard, after a reset of the group. Once it has passed the guard offsets never go
    /// back: if they do, it is another topic or another log.
    pub may_skip: bool,
    /// The offset that came although it had been passed: nothing is read of it any more.
    pub went_back: Option<i64>,
    /// What is committed.
    pub head: SourceHead,
    /// The batch that is being committed.
    pub pending: Option<SourceHead>,
    /// The batch that is being computed.
    pub current: Option<SourceHead>,
    /// Its end was met since the last batch; records may have come after it: see [`SourceSlot::take_end`].
    pub reached_end: bool,
    /// Where its end was when it was reached last; 0: not yet.
    pub end: i64,
    /// Kafka timestamp of the last record read.
    pub last_timestamp: i64,
}

impl SourceSlot {
    /// Whether it was read to its end since this was asked last, and nothing came after it.
    pub fn take_end(&mut self) -> bool {
        let newest = self.current.as_ref().or(self.pending.as_ref()).unwrap_or(&self.head);
        std::mem::take(&mut self.reached_end) && newest.next <= self.end
    }

    /// Its end was met, at that offset.
    pub fn ends_at(&mut self, offset: i64) {
        self.reached_end = true;
        self.end = offset;
    }

    /// How far the batch under computation has come.
    pub fn current(&mut self) -> &mut SourceHead {
        let before = self.pending.as_ref().unwrap_or(&self.head);
        self.current.get_or_insert_with(|| before.clone())
    }
}

/// What a batch is computed upon.
pub struct Computation<'c> {
    /// Topics.
    pub routes: &'c Routes,
    /// Rules, prices, the wall clock.
    pub context: Context<'c>,
    /// Shards of this worker that run.
    pub shards: &'c mut BTreeMap<i32, ShardSlot>,
    /// Partitions of this worker.
    pub sources: &'c mut BTreeMap<SourceId, SourceSlot>,
    /// Empty ones, of a batch before.
    pub outboxes: Vec<Outbox>,
    /// Memory for further ones.
    pub chunks: &'c Chunks,
    /// Threads that help with a large batch.
    pub helpers: Option<&'c rayon::ThreadPool>,
    /// Whether wallets are saved with this batch. They need not be with every one: what a snapshot does not cover
    /// yet is folded from the ledger.
    pub with_snapshots: bool,
}

/// What a batch has brought about.
pub struct Computed {
    /// What the transaction will write.
    pub outboxes: Vec<Outbox>,
    /// Offsets to be committed.
    pub offsets: TopicPartitionList,
    /// For the metrics.
    pub tally: Tally,
}

/// A shard whose sums do not close.
pub struct ShardBreach {
    /// The shard.
    pub shard: i32,
    /// What was found.
    pub breach: Breach,
}

impl Computation<'_> {
    /// Decides every record of a batch, and what they bring about: what is due, and the states after it.
    ///
    /// # Errors
    /// A shard whose sums do not close: nothing of the batch may be sent.
    pub fn compute(mut self, batch: &Batch) -> Result<Computed, ShardBreach> {
        let helpers = self.helpers.filter(|_| batch.len() >= SIDE_BY_SIDE_MIN);
        let computed = side_by_side(helpers, self.parts(batch), |part: Part<'_>| {
            let shard = part.shard.as_ref().map_or(-1, |(shard, _)| *shard);
            part.compute().map_err(|breach| ShardBreach { shard, breach })
        });
        let mut outboxes = Vec::with_capacity(computed.len());
        let mut tally = Tally::default();
        for part in computed {
            let (outbox, of_part) = part?;
            outboxes.push(outbox);
            tally.add(of_part);
        }
        let offsets = self.offsets().map_err(|breach| ShardBreach { shard: -1, breach })?;
        Ok(Computed { outboxes, offsets, tally })
    }

    /// A part for each shard, and for each partition that is at home nowhere and has records.
    fn parts<'p>(&'p mut self, batch: &'p Batch) -> Vec<Part<'p>> {
        let mut by_source: BTreeMap<SourceId, Vec<&RawRecord>> = BTreeMap::new();
        // They come in runs: what was fetched of a partition stands together.
        for run in batch.records().chunk_by(|one, next| one.source() == next.source()) {
            let Some(first) = run.first() else { continue };
            by_source.entry(first.source()).or_default().extend(run);
        }
        let shards = self.shards.len().max(1);
        let of_each = |most: usize| if self.with_snapshots { most / shards } else { 0 };
        let timer_records = TIMER_RECORDS_MAX.max(batch.len() / 10 * 3) / shards;
        let bounds = Bounds {
            timer_records: u32::try_from(timer_records).unwrap_or(u32::MAX).max(1),
            snapshots: of_each(if batch.len() < MANY { SNAPSHOTS_MAX } else { SNAPSHOTS_MAX_BESIDE_MANY }),
            snapshots_while_due: of_each(SNAPSHOTS_MAX_WHILE_DUE),
        };
        let (routes, context, chunks) = (self.routes, &self.context, self.chunks);
        let mut outboxes = self.outboxes.drain(..);
        let mut part = |shard| Part {
            routes,
            context,
            batch,
            shard,
            partitions: Vec::new(),
            bounds,
            outbox: outboxes.next().unwrap_or_else(|| Outbox::new(chunks)),
            tally: Tally::default(),
        };
        let mut of_shards: BTreeMap<i32, Part<'p>> =
            self.shards.iter_mut().map(|(shard, slot)| (*shard, part(Some((*shard, slot))))).collect();
        let mut elsewhere = Vec::new();
        for (id, source) in self.sources.iter_mut() {
            let records = by_source.remove(id).unwrap_or_default();
            let (at_home, has_records) = (source.at_home, !records.is_empty());
            let partition = Partition { id: *id, source, records };
            if at_home {
                of_shards.entry(id.1).and_modify(|part| part.partitions.push(partition));
            } else if has_records {
                elsewhere.push(Part { partitions: vec![partition], ..part(None) });
            }
        }
        of_shards.into_values().chain(elsewhere).collect()
    }

    fn offsets(&self) -> Result<TopicPartitionList, Breach> {
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), source) in self.sources.iter() {
            let (Some(head), Some(topic)) = (&source.current, self.routes.topic(*topic)) else { continue };
            offsets.add_partition_offset(&topic.name, *partition, Offset::Offset(head.next)).map_err(
                |error| Breach { seq: 0, what: format!("offset {} cannot be committed: {error}", head.next) },
            )?;
        }
        Ok(offsets)
    }
}

/// Threads beside a worker's own, which is one of `threads`.
///
/// # Errors
/// The system has no thread to give.
pub fn helpers(
    worker: usize,
    threads: usize,
) -> Result<Option<rayon::ThreadPool>, rayon::ThreadPoolBuildError> {
    let builder = || rayon::ThreadPoolBuilder::new().thread_name(move |_| format!("helper-{worker}"));
    (threads > 1).then(|| builder().num_threads(threads - 1).build()).transpose()
}

/// Does the same work for each of some items, on this thread and on those that help it; the results are in the order of
/// the items. This thread begins with the first item and the others with the last: from batch to batch most shards
/// stay with their thread, and with its caches.
pub fn side_by_side<T: Send, R: Send>(
    helpers: Option<&rayon::ThreadPool>,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let Some(helpers) = helpers else { return items.into_iter().map(work).collect() };
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    let waiting: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let work_on = |is_helper: bool| {
        let next = || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if is_helper { waiting.pop_back() } else { waiting.pop_front() }
        };
        while let Some((place, item)) = next() {
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    helpers.in_place_scope(|scope| {
        for _ in 0..helpers.current_num_threads() {
            scope.spawn(|_| work_on(true));
        }
        work_on(false);
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}
