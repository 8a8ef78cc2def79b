//! Makes one segment of several: of each key the newest record, without what is forgotten.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use super::block::{self, Record};
use super::segment::{ReadAt, Segment};
use super::writer::{SegmentWriter, Target};
use crate::event::IdentityKey;

/// After so many records others get their turn.
const RECORDS_PER_TURN: usize = 16 * 1024;

/// Merges segments, the newest first. `give_turn` is called every few milliseconds; its error ends the merge.
///
/// # Errors
/// The disk, a damaged block, or what `give_turn` says. The segments stay as they are.
pub(super) fn merge(
    segments: &[Arc<Segment>],
    first_day: i32,
    target: &Target,
    mut give_turn: impl FnMut() -> io::Result<()>,
) -> io::Result<Option<Segment>> {
    let expected = segments.iter().map(|segment| segment.header.count).sum();
    let mut writer = SegmentWriter::create(target, expected)?;
    let mut scans: Vec<Scan> = segments.iter().map(Scan::new).collect();
    // The lowest key on top, and of equal keys that of the newest segment.
    let mut next = BinaryHeap::with_capacity(scans.len());
    for (age, scan) in scans.iter_mut().enumerate() {
        next.extend(scan.advance()?.map(|key| Reverse((key, age))));
    }
    let mut last = None;
    for turn in 1_usize.. {
        let Some(mut top) = next.peek_mut() else { break };
        let Reverse((key, age)) = *top;
        let Some(scan) = scans.get_mut(age) else { break };
        if last != Some(key) {
            last = Some(key);
            let record = scan.record(key);
            if record.day >= first_day {
                writer.push(&record)?;
            }
        }
        match scan.advance()? {
            Some(following) => *top = Reverse((following, age)),
            None => drop(PeekMut::pop(top)),
        }
        if turn.is_multiple_of(RECORDS_PER_TURN) {
            give_turn()?;
        }
    }
    writer.finish()
}

/// Reads a segment from its first record to its last.
struct Scan {
    segment: Arc<Segment>,
    input: BufReader<ReadAt>,
    next_block: usize,
    block: Vec<u8>,
    /// Of the records in `block`, what is still to come.
    rest: Range<usize>,
    day: i32,
    value: Range<usize>,
}

impl Scan {
    fn new(segment: &Arc<Segment>) -> Scan {
        let start = segment.index.first().map_or(0, |place| place.start);
        Scan {
            segment: Arc::clone(segment),
            input: ReadAt::buffered(&segment.file, start),
            next_block: 0,
            block: Vec::new(),
            rest: 0..0,
            day: 0,
            value: 0..0,
        }
    }

    /// Goes to the next record: its key, or none at the end.
    fn advance(&mut self) -> io::Result<Option<IdentityKey>> {
        if self.rest.is_empty() && !self.read_block()? {
            return Ok(None);
        }
        let mut rest = self.block.get(self.rest.clone()).unwrap_or_default();
        let record = block::take(&mut rest).ok_or_else(block::damaged)?;
        let value_end = self.rest.end - rest.len();
        self.day = record.day;
        self.value = value_end - record.value.len()..value_end;
        self.rest.start = value_end;
        Ok(Some(record.key))
    }

    /// The record at which `advance` arrived, whose key it told.
    fn record(&self, key: IdentityKey) -> Record<'_> {
        let value = self.block.get(self.value.clone()).unwrap_or_default();
        Record { key, day: self.day, value }
    }

    fn read_block(&mut self) -> io::Result<bool> {
        let Some(place) = self.segment.index.get(self.next_block) else { return Ok(false) };
        let bytes = self.segment.block_bytes(self.next_block, place)?;
        self.block.resize(bytes, 0);
        self.input.read_exact(&mut self.block)?;
        self.rest = 0..block::checked(&self.block)?.len();
        self.next_block += 1;
        Ok(true)
    }
}
