//! Records that were read and not taken in yet: read by one thread, they are taken in by as many as there are cores.
//!
//! **Invariant:** a shard's records are taken in by one thread, in their order. Shards share nothing, so that nothing depends on
//! which of them comes first.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::begun::Begun;
use super::{RestoreError, Restorer, Stretch};
use crate::kafka::RecordView;
use crate::ledger::world::World;

/// So many records are gathered: what is read should still be in the processor's cache, and every thread get enough of it. Where
/// fewer are to be read other threads are not worth it.
const RECORDS_MAX: usize = 16_384;
/// The longest records come by the megabyte.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// So many lots wait for a thread beside the one that it takes in.
const WAITING_MAX: usize = 1;
/// So many records of a shard are taken in together: enough that looking for what they need waits for memory at once, and few
/// enough that all of it is still in the cache when it is used.
const TOGETHER: usize = 64;

/// Records by shard.
#[derive(Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    of_shards: BTreeMap<i32, Vec<Place>>,
    count: usize,
}

struct Place {
    offset: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

/// A record of a shard.
pub(super) struct ReadRecord<'g> {
    pub(super) shard: i32,
    pub(super) offset: i64,
    pub(super) key: Option<&'g [u8]>,
    /// `None` is a tombstone.
    pub(super) value: Option<&'g [u8]>,
}

impl Gathered {
    /// Copies a record in.
    pub(super) fn push(&mut self, record: &RecordView<'_>) {
        let mut store = |part: Option<&[u8]>| {
            let part = part?;
            let start = self.bytes.len();
            self.bytes.extend_from_slice(part);
            Some(start..self.bytes.len())
        };
        let place = Place { offset: record.offset, key: store(record.key), value: store(record.value) };
        self.of_shards.entry(record.partition).or_default().push(place);
        self.count += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= RECORDS_MAX || self.bytes.len() >= BYTES_MAX
    }

    /// Takes those of a shard into it, some at a time.
    fn take_in<E>(
        &self,
        shard: i32,
        begun: &mut Begun,
        some: &impl Fn(&mut Begun, &[ReadRecord<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let part = |range: &Option<Range<usize>>| range.clone().and_then(|range| self.bytes.get(range));
        let record = |place: &Place| {
            let (key, value) = (part(&place.key), part(&place.value));
            ReadRecord { shard, offset: place.offset, key, value }
        };
        let places = self.of_shards.get(&shard).map(Vec::as_slice).unwrap_or_default();
        places.chunks(TOGETHER).try_for_each(|places| {
            let records: Vec<ReadRecord<'_>> = places.iter().map(record).collect();
            some(begun, &records)
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.of_shards.values_mut().for_each(Vec::clear);
        self.count = 0;
    }
}

/// Shards that one thread takes records into.
struct Group<'b>(Vec<(i32, &'b mut Begun)>);

impl Group<'_> {
    fn take_in<E>(
        &mut self,
        lot: &Gathered,
        some: &impl Fn(&mut Begun, &[ReadRecord<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0.iter_mut().try_for_each(|(shard, begun)| lot.take_in(*shard, begun, some))
    }

    /// The shards in so many groups with about as many records in each.
    fn all<'b>(states: &'b mut BTreeMap<i32, Begun>, stretches: &[Stretch], groups: usize) -> Vec<Group<'b>> {
        let records_of = |shard: i32| {
            let stretch = stretches.iter().find(|stretch| stretch.partition == shard);
            stretch.map_or(0, |stretch| stretch.to.saturating_sub(stretch.from))
        };
        let mut shards: Vec<_> =
            states.iter_mut().map(|(shard, begun)| (records_of(*shard), *shard, begun)).collect();
        shards.sort_by_key(|(records, _, _)| std::cmp::Reverse(*records));
        let mut all: Vec<_> = (0..groups).map(|_| (0, Group(Vec::new()))).collect();
        for (records, shard, begun) in shards {
            if let Some((sum, group)) = all.iter_mut().min_by_key(|(sum, _)| *sum) {
                *sum += records;
                group.0.push((shard, begun));
            }
        }
        all.into_iter().map(|(_, group)| group).collect()
    }
}

/// A thread that takes records into a group.
struct Taker<'s, E> {
    lots: SyncSender<Arc<Gathered>>,
    thread: ScopedJoinHandle<'s, Result<(), E>>,
}

impl<'s, E: Send + 's> Taker<'s, E> {
    fn start<'e>(
        scope: &'s Scope<'s, 'e>,
        mut group: Group<'s>,
        some: &'s (impl Fn(&mut Begun, &[ReadRecord<'_>]) -> Result<(), E> + Sync),
    ) -> Result<Taker<'s, E>, RestoreError> {
        let (lots, to_take): (_, Receiver<Arc<Gathered>>) = sync_channel(WAITING_MAX);
        // The first error is told, and what comes after it is passed over.
        let take = move || to_take.iter().try_for_each(|lot| group.take_in(&lot, some));
        let thread = Builder::new().spawn_scoped(scope, take);
        let thread =
            thread.map_err(|error| RestoreError::TryAgain(format!("no thread to restore with: {error}")))?;
        Ok(Taker { lots, thread })
    }

    /// Waits until all that it was given is taken in.
    fn finish(self) -> Result<(), E> {
        drop(self.lots);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<W: World> Restorer<'_, W> {
    /// Reads stretches of one topic to their ends, and has the records taken in by their shards, but those that are not wanted.
    /// The inner error is one that `some` says; of the shards that share its thread nothing more is taken in then.
    pub(super) fn read_into<E: Send>(
        &self,
        states: &mut BTreeMap<i32, Begun>,
        topic: &str,
        stretches: &[Stretch],
        is_unwanted: impl Fn(&RecordView<'_>) -> bool,
        some: impl Fn(&mut Begun, &[ReadRecord<'_>]) -> Result<(), E> + Sync,
    ) -> Result<Result<(), E>, RestoreError> {
        let records_max: i64 = stretches.iter().map(|stretch| stretch.to.saturating_sub(stretch.from)).sum();
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(states.len()).max(1);
        let some = &some;
        std::thread::scope(|scope| {
            let mut takers = Vec::new();
            let mut here = None;
            if usize::try_from(records_max).is_ok_and(|records| records < RECORDS_MAX) {
                here = Group::all(states, stretches, 1).pop();
            } else {
                for group in Group::all(states, stretches, cores) {
                    takers.push(Taker::start(scope, group, some)?);
                }
            }
            let mut here_taken = Ok(());
            let mut take_here = |lot: &Gathered| {
                if let (Some(group), Ok(())) = (&mut here, &here_taken) {
                    here_taken = group.take_in(lot, some);
                }
            };
            let mut gathered = Gathered::default();
            // Lots on their way, the oldest first: its memory is used again.
            let mut lots: VecDeque<Arc<Gathered>> = VecDeque::new();
            let read = self.read(topic, stretches, |record| {
                if is_unwanted(record) {
                    return;
                }
                gathered.push(record);
                if !gathered.is_full() {
                    return;
                }
                take_here(&gathered);
                hand_over(std::mem::take(&mut gathered), &takers, &mut lots);
                // Whoever has taken the last one but those that may wait is done with all before it.
                if lots.len() > WAITING_MAX + 1
                    && let Some(done) = lots.pop_front().and_then(Arc::into_inner)
                {
                    gathered = done;
                    gathered.clear();
                }
            });
            // Also where reading ended early: the next try goes on from there.
            take_here(&gathered);
            hand_over(gathered, &takers, &mut lots);
            let taken = takers.into_iter().map(Taker::finish).collect::<Vec<_>>();
            read.map(|()| taken.into_iter().fold(here_taken, Result::and))
        })
    }
}

fn hand_over<E>(lot: Gathered, takers: &[Taker<'_, E>], lots: &mut VecDeque<Arc<Gathered>>) {
    let lot = Arc::new(lot);
    for taker in takers {
        // One that said an error, or panicked, takes nothing any more: it is heard in the end.
        let _ = taker.lots.send(Arc::clone(&lot));
    }
    lots.push_back(lot);
}
