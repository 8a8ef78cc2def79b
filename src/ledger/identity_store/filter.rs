//! The filter of a segment: answers from memory that an identity is not in it, at 28 bits an identity.
//!
//! A Bloom filter in blocks of a cache line (Putze, Sanders, Singler 2007, "Cache-, Hash- and Space-Efficient Bloom Filters"):
//! the first half of a key says which block, the second which bit of each of its eight words. Keys are hashes, so nothing is
//! hashed again; and they come sorted, so blocks are filled one after the other. A look-up waits for memory once, however
//! large the segment. (Binary fuse filters of 16 bits, which we had before, take 18 bits an identity and say yes wrongly five
//! times less often, but a look-up waits three times, and building them took a third of the time that sealing takes.)
//!
//! **Invariant:** never says no to a key that is in the segment.

use std::io::{self, Read, Write};

use crate::event::IdentityKey;

/// Room for each key: one look-up in 25,000 for something new gets a wrong yes.
const BITS_PER_KEY: u64 = 28;
const WORDS: usize = 8;
const BLOCK_BITS: u64 = 64 * WORDS as u64;
const BLOCK_BYTES: usize = 8 * WORDS;
/// A number of blocks that can be halved a few times.
const BLOCKS_STEP: u64 = 16;
/// Keys for which [`Met`] has room at most: 7 MB.
const MET_MAX: u64 = 2 * 1024 * 1024;
/// Blocks read or written at once.
const PIECE: usize = 1_024;

/// What keys are sorted and found by: their first half.
pub(super) fn prefix_of(key: IdentityKey) -> u64 {
    (key.0 >> 64) as u64
}

/// The filter of a segment.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<Block>,
}

/// A cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Block([u64; WORDS]);

impl Block {
    /// Six bits of the key's second half for each word say which of its bits.
    #[inline]
    fn bits(key: IdentityKey) -> impl Iterator<Item = u32> {
        (0..WORDS).map(move |word| (key.0 as u64 >> (6 * word)) as u32 & 63)
    }

    fn insert(&mut self, key: IdentityKey) {
        self.0.iter_mut().zip(Block::bits(key)).for_each(|(word, bit)| *word |= 1 << bit);
    }

    #[inline]
    fn may_hold(&self, key: IdentityKey) -> bool {
        self.0.iter().zip(Block::bits(key)).fold(1, |all, (word, bit)| all & (word >> bit)) == 1
    }
}

/// The blocks' ranges of prefixes are equal, and ascend.
#[inline]
fn block_of(key: IdentityKey, blocks: usize) -> usize {
    ((u128::from(prefix_of(key)) * blocks as u128) >> 64) as usize
}

#[inline]
fn may_hold(blocks: &[Block], key: IdentityKey) -> bool {
    blocks.get(block_of(key, blocks.len())).is_none_or(|block| block.may_hold(key))
}

impl Filter {
    /// False where the key is not in the segment.
    #[inline]
    pub(super) fn may_hold(&self, key: IdentityKey) -> bool {
        may_hold(&self.blocks, key)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * BLOCK_BYTES
    }

    /// Writes it: its words, little endian.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(PIECE * BLOCK_BYTES);
        for piece in self.blocks.chunks(PIECE) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|block| block.0).flat_map(u64::to_le_bytes));
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Reads so many bytes of what [`Filter::write`] wrote. The caller compares a checksum afterwards.
    pub(super) fn read(input: &mut impl Read, filter_bytes: u64) -> io::Result<Filter> {
        let mut blocks = Vec::with_capacity(usize::try_from(filter_bytes / BLOCK_BYTES as u64).unwrap_or(0));
        let mut rest_bytes = filter_bytes;
        let mut bytes = vec![0; PIECE * BLOCK_BYTES];
        while rest_bytes > 0 {
            let piece_bytes = rest_bytes.min(bytes.len() as u64) as usize;
            let piece = bytes.get_mut(..piece_bytes).unwrap_or_default();
            input.read_exact(piece)?;
            let (words, _) = piece.as_chunks::<8>();
            let (whole, torn) = words.as_chunks::<WORDS>();
            if !torn.is_empty() || !piece_bytes.is_multiple_of(BLOCK_BYTES) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the filter of a segment is damaged"));
            }
            blocks.extend(whole.iter().map(|words| Block(words.map(u64::from_le_bytes))));
            rest_bytes -= piece_bytes as u64;
        }
        Ok(Filter { blocks })
    }
}

/// Says of nearly every key that comes for the first time that it does, in bounded memory.
#[derive(Debug)]
pub struct Met {
    filter: FilterBuilder,
    /// With more keys than this too many would seem known.
    count_max: u64,
}

impl Met {
    /// For about so many keys; more are met too, and seem known sooner or later.
    pub fn with_room_for(expected: u64) -> Met {
        let expected = expected.min(MET_MAX);
        Met { filter: FilterBuilder::new(expected), count_max: expected * 4 }
    }

    /// Meets a key. False: it was never met before.
    pub fn meet(&mut self, key: IdentityKey) -> bool {
        let is_full = self.filter.count >= self.count_max;
        is_full || self.filter.may_hold(key) || {
            self.filter.push(key);
            false
        }
    }

    /// Reaches for what meeting these keys will need.
    pub fn fetch(&self, keys: &[IdentityKey]) {
        std::hint::black_box(keys.iter().filter(|key| self.filter.may_hold(**key)).count());
    }
}

/// Builds a filter.
#[derive(Debug)]
pub(super) struct FilterBuilder {
    blocks: Vec<Block>,
    count: u64,
}

impl FilterBuilder {
    /// For at most so many keys.
    pub(super) fn new(expected: u64) -> FilterBuilder {
        let blocks = (expected * BITS_PER_KEY).div_ceil(BLOCK_BITS).next_multiple_of(BLOCKS_STEP);
        FilterBuilder { blocks: vec![Block::default(); blocks as usize], count: 0 }
    }

    /// One key more.
    pub(super) fn push(&mut self, key: IdentityKey) {
        let at = block_of(key, self.blocks.len());
        if let Some(block) = self.blocks.get_mut(at) {
            block.insert(key);
        }
        self.count += 1;
    }

    #[inline]
    fn may_hold(&self, key: IdentityKey) -> bool {
        may_hold(&self.blocks, key)
    }

    /// The filter. Where far fewer keys came than expected, two blocks at a time become one.
    pub(super) fn finish(mut self) -> Filter {
        let needed = (self.count * BITS_PER_KEY).div_ceil(BLOCK_BITS) as usize;
        while self.blocks.len().is_multiple_of(2) && self.blocks.len() / 2 >= needed.max(1) {
            let (pairs, _) = self.blocks.as_chunks::<2>();
            let both = |[one, other]: &[Block; 2]| {
                Block(std::array::from_fn(|word| {
                    one.0.get(word).copied().unwrap_or(0) | other.0.get(word).copied().unwrap_or(0)
                }))
            };
            self.blocks = pairs.iter().map(both).collect();
        }
        Filter { blocks: self.blocks }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(number: u64) -> IdentityKey {
        let bytes = blake3::hash(&number.to_le_bytes());
        IdentityKey(u128::from_le_bytes(*bytes.as_bytes().first_chunk().unwrap()))
    }

    fn filter_of(count: u64, expected: u64) -> Filter {
        let mut builder = FilterBuilder::new(expected);
        (0..count).for_each(|number| builder.push(key(number)));
        builder.finish()
    }

    fn wrong_of_a_million(filter: &Filter) -> usize {
        (0..1_000_000).filter(|number| filter.may_hold(key(u64::MAX - number))).count()
    }

    #[test]
    fn every_key_may_be_in_and_few_others() {
        for count in [0, 1, 2, 3, 10, 1_000, 300_000] {
            let filter = filter_of(count, count);
            assert!((0..count).all(|number| filter.may_hold(key(number))), "of {count}");
            if count > 0 {
                let wrong = wrong_of_a_million(&filter);
                assert!(wrong < 80, "{wrong} of a million wrong hits with {count} keys");
            }
        }
    }

    #[test]
    fn a_filter_for_more_keys_than_came_is_made_smaller() {
        let whole = filter_of(30_000, 30_000);
        for expected in [40_000, 100_000, 1_000_000] {
            let filter = filter_of(30_000, expected);
            assert!((0..30_000).all(|number| filter.may_hold(key(number))), "for {expected}");
            assert!(filter.heap_bytes() <= 2 * whole.heap_bytes(), "for {expected}");
            let wrong = wrong_of_a_million(&filter);
            assert!(wrong < 80, "{wrong} of a million wrong hits, for {expected}");
        }
    }

    #[test]
    fn a_filter_reads_back_and_a_torn_one_does_not() {
        let mut bytes = Vec::new();
        filter_of(100_000, 100_000).write(&mut bytes).unwrap();
        let read = Filter::read(&mut bytes.as_slice(), bytes.len() as u64).unwrap();
        assert!((0..100_000).all(|number| read.may_hold(key(number))));
        assert!(wrong_of_a_million(&read) < 80);
        let torn = bytes.get(..bytes.len() - 1).unwrap();
        assert!(Filter::read(&mut &torn[..], bytes.len() as u64).is_err());
        assert!(Filter::read(&mut bytes.as_slice(), bytes.len() as u64 - 8).is_err());
    }

    #[test]
    fn a_key_that_was_met_is_known_and_few_others_are_until_there_are_too_many() {
        let mut met = Met::with_room_for(50_000);
        assert!((0..50_000).filter(|number| met.meet(key(*number))).count() < 5);
        assert!((0..50_000).all(|number| met.meet(key(number))));
        // Far more than there is room for.
        assert!((50_000..1_000_000).filter(|number| met.meet(key(*number))).count() > 500_000);
        assert!((0..1_000_000).all(|number| met.meet(key(number))));
        assert!(met.meet(key(1_000_001)), "nothing is said any more");
        assert!(Met::with_room_for(u64::MAX).filter.blocks.len() * BLOCK_BYTES <= 8_000_000);
    }

    #[test]
    fn without_a_filter_any_key_may_be_in() {
        assert!(Filter::read(&mut &[][..], 0).unwrap().may_hold(key(77)));
    }
}
