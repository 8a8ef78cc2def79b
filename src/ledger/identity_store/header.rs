//! The first page of a segment's file: what the file is, and the checksums of what is loaded from it.
//!
//! ```text
//! 0      magic and format version (8 bytes), length of the JSON (4), JSON, CRC-32 of all before (4), zeros
//! 4096   blocks (see `block`)
//! …      index: for each block the first half of its first key (8), where it starts (8)
//! …      filter (see `filter`), to the end of the file
//! ```
//! Numbers are little endian.
//!
//! **Invariant:** a header that decodes was written by this format, whole, and after everything that it describes.

use serde::{Deserialize, Serialize};

use super::manifest::SegmentId;

/// Ends in the format's version.
const MAGIC: &[u8; 8] = b"CSIDEN02";
/// Where the blocks begin.
pub(super) const HEADER_BYTES: u64 = 4096;

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) id: SegmentId,
    pub(super) shard: i32,
    pub(super) ledger_id: String,
    pub(super) count: u64,
    pub(super) min_day: i32,
    pub(super) max_day: i32,
    /// Where the index begins; so many blocks are before it.
    pub(super) index_start: u64,
    pub(super) blocks: u64,
    pub(super) filter_start: u64,
    pub(super) file_bytes: u64,
    pub(super) index_checksum: u32,
    pub(super) filter_checksum: u32,
}

/// The page.
pub(super) fn encode(header: &Header) -> Result<Vec<u8>, &'static str> {
    let json = serde_json::to_vec(header).map_err(|_| "the header cannot be encoded")?;
    let mut page = MAGIC.to_vec();
    page.extend_from_slice(&(json.len() as u32).to_le_bytes());
    page.extend_from_slice(&json);
    page.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
    if page.len() as u64 > HEADER_BYTES {
        return Err("the ledger's id is too long for the header");
    }
    page.resize(HEADER_BYTES as usize, 0);
    Ok(page)
}

/// Reads a page.
pub(super) fn decode(page: &[u8]) -> Result<Header, &'static str> {
    let rest = page.strip_prefix(MAGIC).ok_or("another format or version")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("a torn header")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (json, rest) = rest.split_at_checked(length).ok_or("a torn header")?;
    let (checksum, _) = rest.split_first_chunk::<4>().ok_or("a torn header")?;
    let summed = page.get(..MAGIC.len() + 4 + length).ok_or("a torn header")?;
    if crc32fast::hash(summed) != u32::from_le_bytes(*checksum) {
        return Err("the header's checksum does not match");
    }
    serde_json::from_slice(json).map_err(|_| "another header")
}
