//! A part of a batch: what a shard's partitions brought, or a partition that is at home nowhere. Parts know nothing of each
//! other, and so are computed side by side.
//!
//! The partitions of a shard are merged by the event time of their heads, wallet events first on ties, each partition's
//! order kept. After its records a part posts what is due and writes the states; all of it in memory only.

use super::batch::{Batch, RawRecord};
use super::books::{Books, Outcome};
use super::compute::{SourceId, SourceSlot};
use super::decoding::{Incoming, decode_record};
use super::elsewhere::{hand_over, quarantine};
use super::outbox::{OutTopic, Outbox};
use super::process::{Context, Tally, passes_origin_guard, post_timers, process};
use super::progress::{
    OriginBooks, PROGRESS_FORMAT, PartitionProgress, ShardProgress, partition_key, shard_key,
};
use super::routes::{Routes, TopicRole};
use super::shard::ShardSlot;
use crate::event::{IdentityKey, Reason, Rejection, SourceKind};
use crate::time::Timestamp;
use crate::wallet::{Breach, WalletSnapshot};

/// Records that are decoded, and whose state is fetched into the processor's cache, at a time.
const FETCHED_AHEAD: usize = 64;

/// What a part is computed upon and into.
pub struct Part<'p> {
    /// Topics.
    pub routes: &'p Routes,
    /// Rules, prices, the wall clock.
    pub context: &'p Context<'p>,
    /// Where the records stand.
    pub batch: &'p Batch,
    /// The shard; `None` where the records are at home nowhere and are only handed over.
    pub shard: Option<(i32, &'p mut ShardSlot)>,
    /// Its partitions.
    pub partitions: Vec<Partition<'p>>,
    /// Bounds of what is written beside the records.
    pub bounds: Bounds,
    /// What the transaction will write.
    pub outbox: Outbox,
    /// For the metrics.
    pub tally: Tally,
}

/// A partition and its records in the batch, in order.
pub struct Partition<'p> {
    pub id: SourceId,
    pub source: &'p mut SourceSlot,
    pub records: Vec<&'p RawRecord>,
}

/// How much a part may write beside its records.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Records of timers, and those of one wallet more.
    pub timer_records: u32,
    /// Wallets that are saved; 0: none this time.
    pub snapshots: usize,
    /// The same while more is due than one batch posts: what is due must not wait, and neither may the events beside it.
    pub snapshots_while_due: usize,
}

/// The records of one partition in a batch that were not merged yet. They stay where they are decoded to until they are
/// done with: they are large.
struct Stream<'p> {
    decoded: Vec<Incoming<'p>>,
    /// Which of them is the head.
    next: usize,
    rest: std::vec::IntoIter<&'p RawRecord>,
}

/// Decodes the records of a batch.
#[derive(Clone, Copy)]
struct Decoder<'p> {
    batch: &'p Batch,
    routes: &'p Routes,
    context: &'p Context<'p>,
}

impl<'p> Part<'p> {
    /// Decides every record of the part, and what they bring about: what is due, and the states after it.
    ///
    /// # Errors
    /// A shard whose sums do not close: nothing of the batch may be sent.
    pub fn compute(mut self) -> Result<(Outbox, Tally), Breach> {
        let decoder = Decoder { batch: self.batch, routes: self.routes, context: self.context };
        let records = self.partitions.iter_mut().map(|partition| std::mem::take(&mut partition.records));
        let mut streams: Vec<Stream<'p>> = records.map(Stream::new).collect();
        streams.iter_mut().for_each(|stream| self.refill(stream, decoder));
        while let Some((place, stream)) = earliest(&mut streams) {
            if let Some(incoming) = stream.head() {
                self.one(place, incoming)?;
            }
            stream.next += 1;
            if stream.head().is_none() {
                self.refill(stream, decoder);
            }
        }
        self.mark_ends();
        self.post_timers()?;
        self.write_states()?;
        Ok((self.outbox, self.tally))
    }

    /// Decodes some more, and has the shard look at the state that they will need.
    fn refill(&self, stream: &mut Stream<'p>, decoder: Decoder<'p>) {
        stream.next = 0;
        stream.decoded.clear();
        let coming = stream.rest.as_slice();
        self.batch.fetch(coming.get(..FETCHED_AHEAD).unwrap_or(coming));
        stream.decoded.extend(std::iter::from_fn(|| decoder.next(&mut stream.rest)).take(FETCHED_AHEAD));
        let Some((_, slot)) = &self.shard else { return };
        let events = || stream.decoded.iter().filter_map(|record| record.event.as_ref().ok());
        let mut keys: Vec<IdentityKey> = Vec::with_capacity(stream.decoded.len() * 3);
        events().for_each(|event| event.identity.keys().for_each(|key| keys.push(key)));
        let found = slot.fetch(&keys, events().map(|event| &*event.wallet_id));
        let mut found = found.into_iter();
        for record in &mut stream.decoded {
            let count = record.event.as_ref().map_or(0, |event| event.identity.keys().count());
            let places = record.may_be_known.iter_mut();
            places.zip(found.by_ref().take(count)).for_each(|(place, may_be)| *place = may_be);
        }
    }

    /// One record of the partition at `place`: skipped, quarantined, handed over or processed.
    fn one(&mut self, place: usize, incoming: &Incoming<'_>) -> Result<(), Breach> {
        let Some(Partition { id, source, .. }) = self.partitions.get_mut(place) else { return Ok(()) };
        let topic = id.0;
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
        let outcome = if is_new { self.outcome(topic, incoming)? } else { Outcome::Skipped };
        let Some(Partition { source, .. }) = self.partitions.get_mut(place) else { return Ok(()) };
        let head = source.current();
        head.books.count(outcome);
        if topic == self.routes.intake() {
            books_of(&mut head.by_origin, incoming.origin.topic, incoming.origin.partition).count(outcome);
        }
        Ok(())
    }

    fn outcome(&mut self, topic: usize, incoming: &Incoming<'_>) -> Result<Outcome, Breach> {
        let (context, outbox, tally) = (self.context, &mut self.outbox, &mut self.tally);
        let Some((shard, slot)) = &mut self.shard else {
            return Ok(match (&incoming.event, incoming.home) {
                (Ok(event), Some(home)) => hand_over(incoming, event, home, context, outbox, tally),
                (Err(rejection), _) => quarantine(incoming, rejection, context, outbox, tally),
                (Ok(_), None) => Outcome::Skipped,
            });
        };
        let mut view = slot.view();
        view.current.head.clock.record_read(topic);
        let is_intake = matches!(self.routes.topic(topic).map(|topic| topic.role), Some(TopicRole::Intake));
        if is_intake && !passes_origin_guard(&mut view.current.head.origins, &incoming.origin) {
            return Ok(Outcome::Skipped);
        }
        match (&incoming.event, incoming.home) {
            (Ok(event), Some(home)) if home != *shard && !is_intake => {
                Ok(hand_over(incoming, event, home, context, outbox, tally))
            }
            (Ok(_), Some(home)) if home != *shard => {
                let detail =
                    format!("came through intake to shard {shard}, but its wallet lives in shard {home}");
                let rejection = Rejection::new(Reason::BadValue, detail);
                Ok(quarantine(incoming, &rejection, context, outbox, tally))
            }
            _ => process(&mut view, incoming, context, outbox, tally),
        }
    }

    /// Partitions that were read to their end, after the records before it.
    fn mark_ends(&mut self) {
        let Some((_, slot)) = &mut self.shard else { return };
        for Partition { id, source, .. } in &mut self.partitions {
            if source.take_end() {
                slot.view().current.head.clock.at_end(id.0, self.context.wall);
            }
        }
    }

    /// What falls due by itself, in bounded steps: the rest waits for the next batch, so that events are never kept
    /// waiting by a first of the month.
    fn post_timers(&mut self) -> Result<(), Breach> {
        match &mut self.shard {
            Some((_, slot)) if slot.has_due() => {
                let records_max = self.bounds.timer_records;
                post_timers(&mut slot.view(), records_max, self.context, &mut self.outbox, &mut self.tally)
            }
            _ => Ok(()),
        }
    }

    /// Wallets and positions of everything that the part touched.
    fn write_states(&mut self) -> Result<(), Breach> {
        self.write_shard()?;
        for Partition { id: (topic, partition), source, .. } in &self.partitions {
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
            let key = partition_key(&topic.name, *partition);
            self.outbox.push_json(OutTopic::Progress, place, &key, &progress)?;
        }
        Ok(())
    }

    fn write_shard(&mut self) -> Result<(), Breach> {
        let Some((shard, slot)) = &mut self.shard else { return Ok(()) };
        let snapshots = if slot.has_due() { self.bounds.snapshots_while_due } else { self.bounds.snapshots };
        let unsaved = if snapshots > 0 { slot.next_unsaved(snapshots) } else { Vec::new() };
        if !unsaved.is_empty() {
            slot.view().current.saved.extend(unsaved);
        }
        let Some(overlay) = &slot.current else { return Ok(()) };
        // A transaction that only saves wallets sends an offset too: that is what fences a zombie.
        let intake = self.routes.intake();
        for Partition { source, .. } in self.partitions.iter_mut().filter(|one| one.id.0 == intake) {
            source.current();
        }
        let policy = self.context.policy;
        let clock = overlay.head.clock.now();
        for handle in &overlay.saved {
            slot.with_wallet(*handle, |wallet_id, wallet| {
                let snapshot = WalletSnapshot::of(wallet_id, wallet, clock, &policy.pricing);
                self.outbox.push(OutTopic::Wallets, *shard, wallet_id, |out| snapshot.encode(out));
            });
        }
        let progress = ShardProgress {
            v: PROGRESS_FORMAT,
            batch: overlay.head.batch,
            clock: clock.0.max(Timestamp::from_millis(0)),
            group: self.context.group.to_owned(),
            config_hash: policy.hash_up_to(clock).to_owned(),
            origins: overlay.head.origins.clone(),
            cuts: overlay.head.cuts,
        };
        self.outbox.push_json(OutTopic::Progress, *shard, &shard_key(*shard), &progress)
    }
}

impl<'p> Decoder<'p> {
    fn next(&self, records: &mut std::vec::IntoIter<&'p RawRecord>) -> Option<Incoming<'p>> {
        records.find_map(|record| decode_record(self.batch, record, self.routes, self.context.rules))
    }
}

/// The stream whose head goes first, with its place; `None`: all have come to their ends.
fn earliest<'s, 'p>(streams: &'s mut [Stream<'p>]) -> Option<(usize, &'s mut Stream<'p>)> {
    let waiting = streams.iter_mut().enumerate().filter(|(_, stream)| stream.head().is_some());
    waiting.min_by_key(|(_, stream)| stream.key())
}

impl<'p> Stream<'p> {
    fn new(records: Vec<&'p RawRecord>) -> Stream<'p> {
        Stream {
            decoded: Vec::with_capacity(records.len().min(FETCHED_AHEAD)),
            next: 0,
            rest: records.into_iter(),
        }
    }

    fn head(&self) -> Option<&Incoming<'p>> {
        self.decoded.get(self.next)
    }

    /// The event that happened first goes first, wallet events first on ties, whether they came by their own topic or
    /// by intake. What cannot be decoded goes at once.
    fn key(&self) -> (Timestamp, bool) {
        let event = self.head().and_then(|head| head.event.as_ref().ok());
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
