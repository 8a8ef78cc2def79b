//! Records that were read and not taken in yet: read by one thread, they are taken in by as many as there are cores.
//!
//! **Invariant:** a shard's records are taken in by one thread at a time, in their order. Shards share nothing, so that
//! nothing depends on which of them comes first.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::begun::Begun;
use super::{RestoreError, Restorer, Stretch};
use crate::kafka::RecordView;
use crate::ledger::world::World;

/// So many records are gathered: what is read should still be in the processor's cache, and every core get enough of it.
const RECORDS_MAX: usize = 16_384;
/// The longest records come by the megabyte.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Fewer are not worth waking other threads.
const RECORDS_APART_MIN: usize = 2_048;

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

    /// Takes all of them into their shards, and forgets them. Records of other shards are passed over.
    ///
    /// # Errors
    /// The first of any shard; other shards may have gone on.
    pub(super) fn take_in<E: Send>(
        &mut self,
        states: &mut BTreeMap<i32, Begun>,
        one: impl Fn(&mut Begun, &ReadRecord<'_>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let is_much = self.count >= RECORDS_APART_MIN;
        let part = |range: &Option<Range<usize>>| range.clone().and_then(|range| self.bytes.get(range));
        let shard = |(shard, begun): (&i32, &mut Begun)| {
            let places = self.of_shards.get(shard).map(Vec::as_slice).unwrap_or_default();
            places.iter().try_for_each(|place| {
                let (key, value) = (part(&place.key), part(&place.value));
                one(begun, &ReadRecord { shard: *shard, offset: place.offset, key, value })
            })
        };
        let result = match is_much {
            true => states.into_par_iter().try_for_each(shard),
            false => states.iter_mut().try_for_each(shard),
        };
        self.bytes.clear();
        self.of_shards.values_mut().for_each(Vec::clear);
        self.count = 0;
        result
    }
}

impl<W: World> Restorer<'_, W> {
    /// Reads stretches of one topic to their ends, and has each record taken in by its shard, but those that are not wanted.
    /// The inner error is what `one` says first.
    pub(super) fn read_into<E: Send>(
        &self,
        states: &mut BTreeMap<i32, Begun>,
        topic: &str,
        stretches: &[Stretch],
        is_unwanted: impl Fn(&RecordView<'_>) -> bool,
        one: impl Fn(&mut Begun, &ReadRecord<'_>) -> Result<(), E> + Sync,
    ) -> Result<Result<(), E>, RestoreError> {
        let (one, states) = (&one, &Mutex::new(states));
        let take_in = move |gathered: &mut Gathered| {
            gathered.take_in(&mut states.lock().unwrap_or_else(PoisonError::into_inner), one)
        };
        rayon::in_place_scope(|scope| {
            let (mut gathered, mut spare, mut result) = (Gathered::default(), Gathered::default(), Ok(()));
            // One lot is taken in while the next is read.
            let mut under_way: Option<Receiver<(Gathered, Result<(), E>)>> = None;
            let read = self.read(topic, stretches, |record| {
                if is_unwanted(record) {
                    return;
                }
                gathered.push(record);
                if gathered.is_full() {
                    settle(under_way.take(), &mut spare, &mut result);
                    let mut lot = std::mem::replace(&mut gathered, std::mem::take(&mut spare));
                    let (sender, done) = sync_channel(1);
                    under_way = Some(done);
                    scope.spawn(move |_| {
                        let of_lot = take_in(&mut lot);
                        // Nobody may be left to ask.
                        let _ = sender.send((lot, of_lot));
                    });
                }
            });
            settle(under_way, &mut spare, &mut result);
            // Also where reading ended early: the next try goes on from there.
            let result = result.and_then(|()| take_in(&mut gathered));
            read.map(|()| result)
        })
    }
}

/// Waits for the lot that is taken in, if there is one. One that panicked says nothing: its scope panics too, at its end.
fn settle<E>(
    under_way: Option<Receiver<(Gathered, Result<(), E>)>>,
    spare: &mut Gathered,
    result: &mut Result<(), E>,
) {
    if let Some((emptied, of_lot)) = under_way.and_then(|lot| lot.recv().ok()) {
        *spare = emptied;
        if result.is_ok() {
            *result = of_lot;
        }
    }
}
