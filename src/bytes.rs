//! Bytes, as the processor likes them: sixteen at a time, and asked for before they are needed.

use wide::u8x16;

/// Whether some byte is of a kind; `is_of_kind` answers for sixteen. Without early exit: what is asked for is rare.
///
/// The last sixteen overlap those before them, and a shorter text is put together from two pieces that overlap: a copy padded to
/// sixteen would be read while it is still being written, which costs more than all the rest.
#[inline(always)]
pub fn any(bytes: &[u8], is_of_kind: impl Fn(u8x16) -> u8x16) -> bool {
    let Some(last) = bytes.last_chunk::<16>().copied().or_else(|| short(bytes)) else { return false };
    let (chunks, _) = bytes.as_chunks::<16>();
    let last = is_of_kind(u8x16::new(last));
    chunks.iter().fold(last, |found, chunk| found | is_of_kind(u8x16::new(*chunk))).any()
}

/// All bytes of fewer than sixteen, some of them more than once; `None` where there are none.
#[inline(always)]
fn short(bytes: &[u8]) -> Option<[u8; 16]> {
    let halves = if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        [u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32; 2]
    } else {
        let (first, middle, last) = (bytes.first()?, bytes.get(bytes.len() / 2)?, bytes.last()?);
        [u64::from(u32::from_le_bytes([*first, *middle, *last, *last])) * 0x1_0000_0001; 2]
    };
    let [low, high] = halves.map(u128::from);
    Some((low | high << 64).to_le_bytes())
}

/// What memory hands over at once.
const CACHE_LINE_BYTES: usize = 64;

/// Reaches for bytes that will be read soon, so that the processor waits for all of their places at once.
pub fn fetch<'b>(all: impl Iterator<Item = &'b [u8]>) {
    let mut sum = 0;
    for bytes in all {
        sum = bytes.iter().step_by(CACHE_LINE_BYTES).fold(sum, |sum: u8, byte| sum ^ byte);
    }
    std::hint::black_box(sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands_and_no_other() {
        let is_x = |bytes: u8x16| bytes.simd_eq(u8x16::splat(b'x'));
        for length in 0..50 {
            let mut bytes = vec![b' '; length];
            assert!(!any(&bytes, is_x), "{length} spaces");
            for place in 0..length {
                bytes.insert(place, b'x');
                bytes.pop();
                assert!(any(&bytes, is_x), "at {place} of {length}");
                bytes.remove(place);
                bytes.push(b' ');
            }
        }
    }
}
