//! A batch, computed: every record gets its one outcome, in memory only.
//!
//! Sources of one shard are merged by the event time of their heads, wallet events first on ties, each
//! partition's order kept. Everything lands in overlays and in the outbox; the worker decides what becomes of them.
//! A large batch is decoded and merged by a thread of its own, lot by lot, ahead of what is processed: that needs no state.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;

use rdkafka::{Offset, TopicPartitionList};

use super::batch::{Batch, RawRecord};
use super::books::{Books, Outcome};
use super::decoding::{Incoming, decode_record};
use super::outbox::{OutTopic, Outbox};
use super::process::{Context, Tally, hand_over, passes_origin_guard, post_timers, process, quarantine};
use super::progress::{
    OriginBooks, PROGRESS_FORMAT, PartitionProgress, ShardProgress, partition_key, shard_key,
};
use super::routes::{Routes, TopicRole};
use super::shard::ShardSlot;
use crate::event::{EventRules, IdentityKey, Reason, Rejection, SourceKind};
use crate::time::Timestamp;
use crate::wallet::{Breach, WalletSnapshot};

/// Most records that timers write in one batch of up to 20,000 records; a larger one takes longer anyway, and so many more.
const TIMER_RECORDS_MAX: usize = 6_000;
/// Most wallets that are saved with one batch.
const SNAPSHOTS_MAX: usize = 12_000;
/// The same while more is due than one batch posts: what is due must not wait, and neither may the events beside it.
const SNAPSHOTS_MAX_WHILE_DUE: usize = 3_000;

/// Records of a batch from which on a thread for decoding pays. In tests few are enough to go the same way.
const DECODED_AHEAD_MIN: usize = if cfg!(test) { 8 } else { 1_000 };
/// Records that are decoded before they are handed on: few enough to stay in the processor's cache.
const LOT_RECORDS: usize = if cfg!(test) { 3 } else { 512 };
/// Lots that may be decoded and not processed yet.
const LOTS_AHEAD_MAX: usize = 3;
/// Records whose state is fetched into the processor's cache at a time.
const FETCHED_AHEAD: usize = 64;

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
    /// A thread for decoding, the same for all batches: memory that one of them needed serves the next.
    pub decoding: &'c rayon::ThreadPool,
    /// Whether wallets are saved with this batch. They need not be with every one: what a snapshot does not cover
    /// yet is folded from the ledger.
    pub with_snapshots: bool,
}

/// A shard whose sums do not close.
pub struct ShardBreach {
    /// The shard.
    pub shard: i32,
    /// What was found.
    pub breach: Breach,
}

/// What is merged: the records of one shard's partitions in a batch, or of one partition that is at home nowhere.
struct Group<'b> {
    shard: i32,
    partitions: Vec<(SourceId, Vec<&'b RawRecord>)>,
}

/// Some records of a group, in the order in which they are processed.
struct Lot<'b> {
    shard: i32,
    records: Vec<(SourceId, Incoming<'b>)>,
}

/// The records of one partition in a batch that were not merged yet.
struct Stream<'b> {
    id: SourceId,
    head: Option<Incoming<'b>>,
    rest: std::vec::IntoIter<&'b RawRecord>,
}

/// The records of a group, merged by the event time of its partitions' heads.
struct Merged<'d, 'b, 'c> {
    decoder: &'d Decoder<'b, 'c>,
    streams: Vec<Stream<'b>>,
}

/// Decodes the records of a batch.
struct Decoder<'b, 'c> {
    batch: &'b Batch,
    routes: &'b Routes,
    rules: &'c EventRules,
}

impl<'c> Computation<'c> {
    /// Decides every record of a batch.
    ///
    /// # Errors
    /// A shard whose sums do not close: nothing of the batch may be sent.
    pub fn decide(&mut self, batch: &Batch) -> Result<(), ShardBreach> {
        let groups = self.groups(batch);
        let decoder = Decoder { batch, routes: self.routes, rules: self.context.rules };
        if batch.len() < DECODED_AHEAD_MIN {
            groups.into_iter().try_for_each(|group| decoder.lots(group, |lot| self.process(&lot)))
        } else {
            let decoding = self.decoding;
            decoding.in_place_scope(|scope| {
                let (sender, lots) = sync_channel(LOTS_AHEAD_MAX);
                // It ends early where nobody receives any more, after a breach.
                scope.spawn(move |_| {
                    drop(
                        groups.into_iter().try_for_each(|group| decoder.lots(group, |lot| sender.send(lot))),
                    );
                });
                lots.into_iter().try_for_each(|lot| self.process(&lot))
            })
        }
    }

    /// What a batch of so many records brings about beside them: what is due, and the states after it. Returns the offsets to
    /// be committed.
    ///
    /// # Errors
    /// As [`Computation::decide`].
    pub fn finish(&mut self, records: usize) -> Result<TopicPartitionList, ShardBreach> {
        self.mark_ends();
        self.post_timers(records)?;
        self.write_states().map_err(|breach| ShardBreach { shard: -1, breach })
    }

    /// The records of a batch by what is merged, in the order of polling.
    fn groups<'b>(&self, batch: &'b Batch) -> Vec<Group<'b>> {
        let mut by_source: BTreeMap<SourceId, Vec<&RawRecord>> = BTreeMap::new();
        for record in batch.records() {
            let id = (record.topic, record.partition);
            if self.sources.contains_key(&id) {
                by_source.entry(id).or_default().push(record);
            }
        }
        let (at_home, elsewhere): (Vec<_>, Vec<_>) = by_source
            .into_iter()
            .partition(|(id, _)| self.sources.get(id).is_some_and(|source| source.at_home));
        let mut of_shards: BTreeMap<i32, Group<'b>> = BTreeMap::new();
        for (id, records) in at_home.into_iter().filter(|(id, _)| self.shards.contains_key(&id.1)) {
            let shard = id.1;
            let group = of_shards.entry(shard).or_insert_with(|| Group { shard, partitions: Vec::new() });
            group.partitions.push((id, records));
        }
        // What is at home nowhere is only handed over.
        let elsewhere = elsewhere.into_iter().map(|source| Group { shard: -1, partitions: vec![source] });
        of_shards.into_values().chain(elsewhere).collect()
    }

    fn process(&mut self, lot: &Lot<'_>) -> Result<(), ShardBreach> {
        for records in lot.records.chunks(FETCHED_AHEAD) {
            self.fetch(lot.shard, records);
            for (id, record) in records {
                self.one(*id, record).map_err(|breach| ShardBreach { shard: lot.shard, breach })?;
            }
        }
        Ok(())
    }

    /// Has the shard look at the state that records will need.
    fn fetch(&self, shard: i32, records: &[(SourceId, Incoming<'_>)]) {
        let Some(slot) = self.shards.get(&shard) else { return };
        let events = || records.iter().filter_map(|(_, record)| record.event.as_ref().ok());
        let keys: Vec<IdentityKey> = events().flat_map(|event| event.identity.keys()).collect();
        slot.state.fetch(&keys, events().map(|event| &*event.wallet_id));
    }

    /// One record: skipped, quarantined, handed over or processed.
    fn one(&mut self, id: SourceId, incoming: &Incoming<'_>) -> Result<(), Breach> {
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        source.last_timestamp = incoming.record.timestamp;
        let is_new = incoming.record.offset >= source.current().next;
        if is_new {
            source.current().next = incoming.record.offset + 1;
            source.may_skip = false;
        } else if !source.may_skip {
            source.went_back = Some(incoming.record.offset);
        }
        if source.went_back.is_some() {
            return Ok(());
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
                (Ok(event), Some(home)) => {
                    hand_over(incoming, event, home, &self.context, self.outbox, self.tally)
                }
                (Err(rejection), _) => {
                    quarantine(incoming, rejection, &self.context, self.outbox, self.tally)
                }
                (Ok(_), None) => Outcome::Skipped,
            });
        }
        let Some(slot) = self.shards.get_mut(&partition) else {
            return Err(Breach {
                seq: 0,
                what: format!("a record of shard {partition}, which does not run here"),
            });
        };
        let mut view = slot.view();
        view.current.head.clock.record_read(topic);
        let is_intake = matches!(self.routes.topic(topic).map(|topic| topic.role), Some(TopicRole::Intake));
        if is_intake && !passes_origin_guard(&mut view.current.head.origins, &incoming.origin) {
            return Ok(Outcome::Skipped);
        }
        match (&incoming.event, incoming.home) {
            (Ok(event), Some(home)) if home != partition && !is_intake => {
                Ok(hand_over(incoming, event, home, &self.context, self.outbox, self.tally))
            }
            (Ok(_), Some(home)) if home != partition => {
                let detail =
                    format!("came through intake to shard {partition}, but its wallet lives in shard {home}");
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
            if source.take_end()
                && source.at_home
                && let Some(slot) = self.shards.get_mut(partition)
            {
                slot.view().current.head.clock.at_end(*topic, wall);
            }
        }
    }

    /// What falls due by itself, in bounded steps: the rest waits for the next batch, so that events are never kept
    /// waiting by a first of the month.
    fn post_timers(&mut self, records: usize) -> Result<(), ShardBreach> {
        let of_all_shards = TIMER_RECORDS_MAX.max(records / 10 * 3);
        let records_max = u32::try_from(of_all_shards / self.shards.len().max(1)).unwrap_or(u32::MAX).max(1);
        for (shard, slot) in self.shards.iter_mut().filter(|(_, slot)| slot.has_due()) {
            post_timers(&mut slot.view(), records_max, &self.context, self.outbox, self.tally)
                .map_err(|breach| ShardBreach { shard: *shard, breach })?;
        }
        Ok(())
    }

    /// Wallets, positions and source offsets of everything that the batch touched.
    fn write_states(&mut self) -> Result<TopicPartitionList, Breach> {
        let intake = self.routes.intake();
        let shards = self.shards.len().max(1);
        let pricing = &self.context.policy.pricing;
        for (shard, slot) in self.shards.iter_mut() {
            if self.with_snapshots {
                let most = if slot.has_due() { SNAPSHOTS_MAX_WHILE_DUE } else { SNAPSHOTS_MAX };
                let unsaved = slot.unsaved(most / shards);
                if !unsaved.is_empty() {
                    slot.view().current.saved.extend(unsaved);
                }
            }
            let Some(overlay) = &slot.current else { continue };
            // A transaction that only saves wallets sends an offset too: that is what fences a zombie.
            if let Some(source) = self.sources.get_mut(&(intake, *shard)) {
                source.current();
            }
            let clock = overlay.head.clock.now();
            for handle in &overlay.saved {
                slot.with_wallet(*handle, |wallet_id, wallet| {
                    let snapshot = WalletSnapshot::of(wallet_id, wallet, clock, pricing);
                    self.outbox.push(OutTopic::Wallets, *shard, wallet_id, |out| snapshot.encode(out));
                });
            }
            let progress = ShardProgress {
                v: PROGRESS_FORMAT,
                batch: overlay.head.batch,
                clock: clock.0.max(Timestamp::from_millis(0)),
                group: self.context.group.to_owned(),
                config_hash: self.context.policy.hash_up_to(clock).to_owned(),
                origins: overlay.head.origins.clone(),
                cuts: overlay.head.cuts,
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
                earlier: source.earlier,
            };
            let place = partition.rem_euclid(self.context.shards.max(1));
            self.outbox.push_json(
                OutTopic::Progress,
                place,
                &partition_key(&topic.name, *partition),
                &progress,
            )?;
            offsets.add_partition_offset(&topic.name, *partition, Offset::Offset(head.next)).map_err(
                |error| Breach { seq: 0, what: format!("offset {} cannot be committed: {error}", head.next) },
            )?;
        }
        Ok(offsets)
    }
}

impl<'b> Decoder<'b, '_> {
    /// Decodes a group and hands it on, lot by lot.
    fn lots<E>(&self, group: Group<'b>, mut hand_on: impl FnMut(Lot<'b>) -> Result<(), E>) -> Result<(), E> {
        let begin = |(id, records): (SourceId, Vec<&'b RawRecord>)| {
            let mut rest = records.into_iter();
            Stream { id, head: self.next(&mut rest), rest }
        };
        let streams = group.partitions.into_iter().map(begin).collect();
        let mut merged = Merged { decoder: self, streams };
        loop {
            let records: Vec<_> = merged.by_ref().take(LOT_RECORDS).collect();
            if records.is_empty() {
                return Ok(());
            }
            hand_on(Lot { shard: group.shard, records })?;
        }
    }

    fn next(&self, records: &mut std::vec::IntoIter<&'b RawRecord>) -> Option<Incoming<'b>> {
        records.find_map(|record| decode_record(self.batch, record, self.routes, self.rules))
    }
}

impl<'b> Iterator for Merged<'_, 'b, '_> {
    type Item = (SourceId, Incoming<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let waiting = self.streams.iter_mut().filter(|stream| stream.head.is_some());
        let earliest = waiting.min_by_key(|stream| stream.key())?;
        let next = self.decoder.next(&mut earliest.rest);
        std::mem::replace(&mut earliest.head, next).map(|record| (earliest.id, record))
    }

    /// So that a lot gets its memory at once.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = |stream: &Stream<'_>| usize::from(stream.head.is_some()) + stream.rest.len();
        let left = self.streams.iter().map(left).sum();
        (left, Some(left))
    }
}

impl Stream<'_> {
    /// The event that happened first goes first, wallet events first on ties, whether they came by their own topic or
    /// by intake. What cannot be decoded goes at once.
    fn key(&self) -> (Timestamp, bool) {
        let event = self.head.as_ref().and_then(|head| head.event.as_ref().ok());
        let is_wallet_event = event.is_some_and(|event| event.kind.source_kind() == SourceKind::Wallet);
        (event.map_or(Timestamp::MIN, |event| event.time.0), !is_wallet_event)
    }
}

fn books_of<'o>(all: &'o mut Vec<OriginBooks>, topic: &str, partition: i32) -> &'o mut Books {
    let known = all.iter().position(|books| books.partition == partition && books.topic == topic);
    let place = known.unwrap_or(all.len());
    if known.is_none() {
        let (outcomes, earlier) = Default::default();
        all.push(OriginBooks { topic: topic.to_owned(), partition, outcomes, earlier });
    }
    // The place was found or made just now.
    #[allow(clippy::indexing_slicing)]
    &mut all[place].outcomes
}
