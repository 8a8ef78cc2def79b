//! The filter of a segment: answers from memory that an identity is not in it, at 18 bits an identity.
//!
//! Binary fuse filters of 16 bits, one for each stretch of about [`PART_IDENTITIES`] keys. Keys are hashes, so
//! equal stretches of their range hold equally many. Parts bound the memory that building takes (34 bytes a key),
//! which would otherwise grow with the segment.
//!
//! **Invariant:** never says no to a key that is in the segment. Every part is asked for all its keys before it is
//! used; one that could not be built, or denies a key, is left out, and then every key of its range may be in.

use std::io::{self, Read, Write};

use xorf::{BinaryFuse16, Descriptor};

use crate::event::IdentityKey;

/// So many keys share one filter: large enough for few bits a key, small enough to be built in a cache.
const PART_IDENTITIES: u64 = 512 * 1024;
const DESCRIPTOR_BYTES: usize = 20;
/// Fingerprints are converted in pieces of this many.
const PIECE: usize = 32 * 1024;

/// What the filters hash: half of a key, the one that it is sorted by.
pub(super) fn prefix_of(key: IdentityKey) -> u64 {
    (key.0 >> 64) as u64
}

/// The filter of a segment.
#[derive(Debug)]
pub(super) struct Filter {
    /// By range of prefixes. None: there is no filter, any key of the range may be in.
    parts: Vec<Option<BinaryFuse16>>,
}

impl Filter {
    /// False where no key of that prefix is in the segment.
    #[inline]
    pub(super) fn may_hold(&self, prefix: u64) -> bool {
        match self.parts.get(part_of(prefix, self.parts.len())) {
            Some(Some(part)) => is_in(part, prefix),
            Some(None) | None => true,
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let fingerprints: usize = self.parts.iter().flatten().map(|part| part.fingerprints.len() * 2).sum();
        self.parts.capacity() * size_of::<Option<BinaryFuse16>>() + fingerprints
    }

    /// Writes it: the number of parts, then of each its descriptor and fingerprints.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&(self.parts.len() as u32).to_le_bytes())?;
        for part in &self.parts {
            write_part(part.as_ref(), out)?;
        }
        Ok(())
    }

    /// Reads what [`Filter::write`] wrote; at most `bytes_max` of it. The caller compares a checksum afterwards.
    pub(super) fn read(input: &mut impl Read, bytes_max: u64) -> io::Result<Filter> {
        let mut count = [0; 4];
        input.read_exact(&mut count)?;
        let count = u32::from_le_bytes(count);
        if u64::from(count) * DESCRIPTOR_BYTES as u64 > bytes_max {
            return Err(not_a_filter());
        }
        let mut rest_bytes = bytes_max;
        let parts = (0..count).map(|_| read_part(input, &mut rest_bytes)).collect::<io::Result<_>>()?;
        Ok(Filter { parts })
    }
}

/// Keys of a range share a part; the ranges are equal.
fn part_of(prefix: u64, parts: usize) -> usize {
    ((u128::from(prefix) * parts as u128) >> 64) as usize
}

/// What xorf's `contains` says, in half the instructions: the fewer there are, the more segments wait for memory at
/// the same time. That the two agree is seen when a filter is built, and in a test.
#[inline]
fn is_in(part: &BinaryFuse16, prefix: u64) -> bool {
    let shape = &part.descriptor;
    let hash = mix(prefix.wrapping_add(shape.seed));
    let first = ((u128::from(hash) * u128::from(shape.segment_count_length)) >> 64) as u32;
    let second = first.wrapping_add(shape.segment_length);
    let third = second.wrapping_add(shape.segment_length);
    let second = second ^ ((hash >> 18) as u32 & shape.segment_length_mask);
    let third = third ^ (hash as u32 & shape.segment_length_mask);
    let at = |place: u32| part.fingerprints.get(place as usize).copied().unwrap_or_default();
    at(first) ^ at(second) ^ at(third) == (hash ^ (hash >> 32)) as u16
}

/// MurmurHash3's finish.
#[inline]
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn write_part(part: Option<&BinaryFuse16>, out: &mut impl Write) -> io::Result<()> {
    let Some(part) = part else { return out.write_all(&[0; DESCRIPTOR_BYTES]) };
    out.write_all(&part.descriptor.seed.to_le_bytes())?;
    out.write_all(&part.descriptor.segment_length.to_le_bytes())?;
    out.write_all(&part.descriptor.segment_count_length.to_le_bytes())?;
    out.write_all(&(part.fingerprints.len() as u32).to_le_bytes())?;
    let mut bytes = Vec::with_capacity(PIECE * 2);
    for piece in part.fingerprints.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|fingerprint| fingerprint.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn read_part(input: &mut impl Read, rest_bytes: &mut u64) -> io::Result<Option<BinaryFuse16>> {
    let seed = u64::from_le_bytes(read_array(input)?);
    let segment_length = u32::from_le_bytes(read_array(input)?);
    let segment_count_length = u32::from_le_bytes(read_array(input)?);
    let count = u32::from_le_bytes(read_array(input)?);
    let needed_bytes = DESCRIPTOR_BYTES as u64 + u64::from(count) * 2;
    *rest_bytes = rest_bytes.checked_sub(needed_bytes).ok_or_else(not_a_filter)?;
    if count == 0 {
        return Ok(None);
    }
    // A key's three places: one anywhere in `segment_count_length`, one in each of the two segments after it.
    let places = u64::from(segment_count_length) + 2 * u64::from(segment_length);
    if !segment_length.is_power_of_two() || places > u64::from(count) {
        return Err(not_a_filter());
    }
    let mut fingerprints = Vec::with_capacity(count as usize);
    let mut bytes = vec![0; PIECE * 2];
    while fingerprints.len() < count as usize {
        let piece_bytes = (count as usize - fingerprints.len()).min(PIECE) * 2;
        let piece = bytes.get_mut(..piece_bytes).ok_or_else(not_a_filter)?;
        input.read_exact(piece)?;
        fingerprints.extend(piece.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)));
    }
    let segment_length_mask = segment_length - 1;
    let descriptor = Descriptor { seed, segment_length, segment_length_mask, segment_count_length };
    Ok(Some(BinaryFuse16 { descriptor, fingerprints: fingerprints.into_boxed_slice() }))
}

fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn not_a_filter() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the filter of a segment is damaged")
}

/// Builds a filter from keys that come in ascending order.
pub(super) struct FilterBuilder {
    parts_count: usize,
    parts: Vec<Option<BinaryFuse16>>,
    /// Of the part that is being gathered, distinct: two keys may share one, the filters do not allow it.
    prefixes: Vec<u64>,
}

impl FilterBuilder {
    /// For about so many keys; fewer only cost a few bits more.
    pub(super) fn new(expected: u64) -> FilterBuilder {
        let parts_count = expected.div_ceil(PART_IDENTITIES).max(1) as usize;
        FilterBuilder { parts_count, parts: Vec::with_capacity(parts_count), prefixes: Vec::new() }
    }

    /// The next key, not below the last.
    pub(super) fn push(&mut self, key: IdentityKey) {
        let prefix = prefix_of(key);
        while self.parts.len() < part_of(prefix, self.parts_count) {
            self.close_part();
        }
        if self.prefixes.last() != Some(&prefix) {
            self.prefixes.push(prefix);
        }
    }

    /// The filter.
    pub(super) fn finish(mut self) -> Filter {
        while self.parts.len() < self.parts_count {
            self.close_part();
        }
        Filter { parts: self.parts }
    }

    fn close_part(&mut self) {
        let part = BinaryFuse16::try_from(self.prefixes.as_slice()).ok();
        let knows_all = |part: &BinaryFuse16| self.prefixes.iter().all(|prefix| is_in(part, *prefix));
        self.parts.push(part.filter(knows_all));
        self.prefixes.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(count: u64) -> Vec<IdentityKey> {
        let mut keys: Vec<_> = (0..count)
            .map(|n| IdentityKey(u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)))
            .collect();
        keys.sort_unstable();
        keys
    }

    fn filter_of(keys: &[IdentityKey], expected: u64) -> Filter {
        let mut builder = FilterBuilder::new(expected);
        keys.iter().for_each(|key| builder.push(*key));
        builder.finish()
    }

    #[test]
    fn every_key_of_every_part_may_be_in_and_few_others() {
        for count in [0, 1, 2, 3, 10, 1_000, 1_200_000] {
            let keys = keys(count);
            let filter = filter_of(&keys, count);
            assert!(keys.iter().all(|key| filter.may_hold(prefix_of(*key))), "of {count}");
            let others =
                (0..1_000_000_u64).filter(|n| filter.may_hold(xorf::splitmix64(&mut n.clone()))).count();
            assert!(others < 100, "{others} of a million false hits with {count} keys");
        }
    }

    #[test]
    fn keys_that_share_their_first_half_are_one_to_the_filter() {
        let keys: Vec<_> = (0..1_000).map(|low| IdentityKey(5 << 64 | low)).collect();
        assert!(filter_of(&keys, 1_000).may_hold(5));
    }

    #[test]
    fn a_filter_reads_back_and_a_torn_or_absurd_one_does_not() {
        let keys = keys(1_200_000);
        let mut bytes = Vec::new();
        filter_of(&keys, 1_200_000).write(&mut bytes).unwrap();
        let read = Filter::read(&mut bytes.as_slice(), bytes.len() as u64).unwrap();
        assert!(keys.iter().all(|key| read.may_hold(prefix_of(*key))));
        let torn = bytes.get(..bytes.len() - 1).unwrap();
        assert!(Filter::read(&mut &torn[..], bytes.len() as u64).is_err());
        assert!(Filter::read(&mut bytes.as_slice(), bytes.len() as u64 / 2).is_err());
        let absurd = [255; 64];
        assert!(Filter::read(&mut absurd.as_slice(), 64).is_err());
    }

    #[test]
    fn our_look_up_agrees_with_the_crate_that_builds_the_filter() {
        let keys = keys(20_000);
        let filter = filter_of(&keys, 20_000);
        let part = filter.parts.first().unwrap().as_ref().unwrap();
        let others = (0..2_000_000_u64).map(|n| xorf::splitmix64(&mut n.clone()));
        for prefix in keys.iter().map(|key| prefix_of(*key)).chain(others) {
            assert_eq!(is_in(part, prefix), xorf::Filter::contains(part, &prefix));
        }
    }

    #[test]
    fn without_a_filter_any_key_may_be_in() {
        let mut bytes = Vec::new();
        Filter { parts: vec![None] }.write(&mut bytes).unwrap();
        assert!(Filter::read(&mut bytes.as_slice(), 24).unwrap().may_hold(77));
    }
}
