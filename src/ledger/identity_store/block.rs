//! Blocks: records one after the other, ascending by key, and a checksum of them.
//!
//! A record is key (16 bytes, big endian, so that bytes sort as keys do), day (4), length of the value (a varint
//! of 1 to 3 bytes) and value.
//!
//! **Invariant:** no byte of a block is believed before its checksum has been compared.

use std::io;

use super::MAX_VALUE_BYTES;
use crate::event::IdentityKey;

/// A block takes another record only up to this; a record that is longer is a block by itself.
pub(super) const BLOCK_BYTES: usize = 4 * 1024 - CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 4;
/// The longest block: one record with the longest value.
pub(super) const BLOCK_BYTES_MAX: u64 = (16 + 4 + 3 + MAX_VALUE_BYTES + CHECKSUM_BYTES) as u64;

/// One identity in a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'b> {
    pub(super) key: IdentityKey,
    pub(super) day: i32,
    pub(super) value: &'b [u8],
}

/// Appends a record.
pub(super) fn put(block: &mut Vec<u8>, record: &Record<'_>) {
    block.extend_from_slice(&record.key.0.to_be_bytes());
    block.extend_from_slice(&record.day.to_le_bytes());
    let mut length = record.value.len();
    while length >= 0x80 {
        block.push(length as u8 | 0x80);
        length >>= 7;
    }
    block.push(length as u8);
    block.extend_from_slice(record.value);
}

/// At most so many bytes are appended for a record.
pub(super) fn record_bytes(record: &Record<'_>) -> usize {
    16 + 4 + 3 + record.value.len()
}

/// Takes the next record off. None where the bytes are no record.
pub(super) fn take<'b>(rest: &mut &'b [u8]) -> Option<Record<'b>> {
    let (key, after) = rest.split_first_chunk::<16>()?;
    let (day, mut after) = after.split_first_chunk::<4>()?;
    let mut length = 0_usize;
    for shift in [0, 7, 14] {
        let (byte, next) = after.split_first()?;
        after = next;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (value, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(Record { key: IdentityKey(u128::from_be_bytes(*key)), day: i32::from_le_bytes(*day), value })
}

/// Closes a block: appends the checksum of what is in it.
pub(super) fn close(block: &mut Vec<u8>) {
    let checksum = crc32fast::hash(block);
    block.extend_from_slice(&checksum.to_le_bytes());
}

/// The records of a block as read from disk.
///
/// # Errors
/// `InvalidData` where the checksum does not match.
pub(super) fn checked(block: &[u8]) -> io::Result<&[u8]> {
    let (records, checksum) = block.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    if crc32fast::hash(records) == u32::from_le_bytes(*checksum) { Ok(records) } else { Err(damaged()) }
}

/// What is said of a block that cannot be read as one.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a block of remembered identities is damaged")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn records_of_all_lengths_read_back() {
        let lengths = [0, 1, 8, 127, 128, 129, 16_383, 16_384, MAX_VALUE_BYTES];
        let values: Vec<Vec<u8>> = lengths.iter().map(|length| vec![9; *length]).collect();
        let record =
            |at: usize| Record { key: IdentityKey(at as u128), day: at as i32 - 3, value: &values[at] };
        let mut block = Vec::new();
        (0..lengths.len()).for_each(|at| put(&mut block, &record(at)));
        close(&mut block);
        let mut rest = checked(&block).unwrap();
        for at in 0..lengths.len() {
            assert_eq!(take(&mut rest).unwrap(), record(at));
        }
        assert!(rest.is_empty() && take(&mut rest).is_none());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut block = Vec::new();
        put(&mut block, &Record { key: IdentityKey(7), day: 1, value: b"value" });
        close(&mut block);
        for bit in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(checked(&flipped).is_err(), "bit {bit}");
        }
    }
}
