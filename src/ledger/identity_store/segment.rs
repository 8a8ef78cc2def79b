//! A segment: a file that never changes, and its index and filter in memory.
//!
//! **Invariants:** what is loaded is checked first, by checksums; what the filter lets through is looked up in the
//! file; a block whose checksum fails is an error, never "not there". No mmap: a disk that fails is an error
//! that is returned, not a signal.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{self, BLOCK_BYTES_MAX};
use super::filter::{Filter, prefix_of};
use super::header::{self, HEADER_BYTES, Header};
use super::manifest::SegmentId;
use super::{StoreSettings, WhyNot};
use crate::event::IdentityKey;

/// What one read takes where a file is read from one end to the other.
const READ_BYTES: usize = 256 * 1024;
const FILE_SUFFIX: &str = ".identities";

/// Where the file of a segment lies; with `.new` behind it while it is written.
pub(super) fn path_of(folder: &Path, shard: i32, id: SegmentId) -> PathBuf {
    folder.join(format!("shard-{shard}.{:016x}{FILE_SUFFIX}", id.0))
}

/// Whether a file is one of a shard's segments, whole or not.
pub(super) fn is_of_shard(name: &str, shard: i32) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    name.starts_with(&format!("shard-{shard}.")) && name.ends_with(FILE_SUFFIX)
}

/// A block by the first half of its first key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) first: u64,
    pub(super) start: u64,
}

/// A sealed segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) index: Vec<BlockPlace>,
    pub(super) filter: Filter,
}

impl Segment {
    /// Opens the segment that a checkpoint names.
    pub(super) fn open(folder: &Path, settings: &StoreSettings, id: SegmentId) -> Result<Segment, WhyNot> {
        let path = path_of(folder, settings.shard, id);
        let disk = |source| WhyNot::Disk { path: path.clone(), source };
        let in_doubt = |why| WhyNot::InDoubt { path: path.clone(), why };
        let file = Arc::new(File::open(&path).map_err(disk)?);
        let file_bytes = file.metadata().map_err(disk)?.len();
        if file_bytes < HEADER_BYTES {
            return Err(in_doubt("shorter than a header"));
        }
        let mut page = vec![0; HEADER_BYTES as usize];
        file.read_exact_at(&mut page, 0).map_err(disk)?;
        let header = header::decode(&page).map_err(in_doubt)?;
        if header.id != id {
            return Err(in_doubt("another segment under this name"));
        }
        if header.shard != settings.shard || header.ledger_id != settings.ledger_id {
            return Err(in_doubt("of another ledger or shard"));
        }
        if header.file_bytes != file_bytes {
            return Err(in_doubt("of another length than it was written with"));
        }
        let index = read_index(&file, &header).map_err(disk)?;
        let index = index.ok_or_else(|| in_doubt("the index is damaged"))?;
        let filter = read_filter(&file, &header).map_err(disk)?;
        let filter = filter.ok_or_else(|| in_doubt("the filter's checksum does not match"))?;
        Ok(Segment { file, path, header, index, filter })
    }

    /// False where the key is not in this segment.
    #[inline]
    pub(super) fn may_hold(&self, key: IdentityKey) -> bool {
        self.filter.may_hold(key)
    }

    /// Looks a key up in the file: its day and value.
    ///
    /// # Errors
    /// The disk, or a damaged block.
    pub(super) fn find(&self, key: IdentityKey) -> io::Result<Option<(i32, Vec<u8>)>> {
        let prefix = prefix_of(key);
        // The last block that begins below the prefix, and those that begin with it: mostly one block in all.
        let from = self.index.partition_point(|place| place.first < prefix).saturating_sub(1);
        let places = self.index.iter().enumerate().skip(from).take_while(|(_, place)| place.first <= prefix);
        let mut bytes = Vec::new();
        for (at, place) in places {
            bytes.resize(self.block_bytes(at, place)?, 0);
            self.file.read_exact_at(&mut bytes, place.start)?;
            let mut rest = block::checked(&bytes)?;
            while !rest.is_empty() {
                let record = block::take(&mut rest).ok_or_else(block::damaged)?;
                if record.key == key {
                    return Ok(Some((record.day, record.value.to_vec())));
                }
                if record.key > key {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.index.capacity() * size_of::<BlockPlace>() + self.filter.heap_bytes()
    }

    /// How long the block at a place of the index is.
    pub(super) fn block_bytes(&self, at: usize, place: &BlockPlace) -> io::Result<usize> {
        let end = self.index.get(at + 1).map_or(self.header.index_start, |next| next.start);
        let bytes = end.checked_sub(place.start).filter(|bytes| *bytes <= BLOCK_BYTES_MAX);
        bytes.map(|bytes| bytes as usize).ok_or_else(block::damaged)
    }
}

fn read_index(file: &File, header: &Header) -> io::Result<Option<Vec<BlockPlace>>> {
    let index_bytes = header.filter_start.saturating_sub(header.index_start);
    let is_sound = header.index_start >= HEADER_BYTES
        && header.filter_start <= header.file_bytes
        && header.blocks.checked_mul(size_of::<BlockPlace>() as u64) == Some(index_bytes);
    if !is_sound {
        return Ok(None);
    }
    let mut bytes = vec![0; index_bytes as usize];
    file.read_exact_at(&mut bytes, header.index_start)?;
    if crc32fast::hash(&bytes) != header.index_checksum {
        return Ok(None);
    }
    let place = |[first, start]: &[[u8; 8]; 2]| BlockPlace {
        first: u64::from_le_bytes(*first),
        start: u64::from_le_bytes(*start),
    };
    let (numbers, _) = bytes.as_chunks::<8>();
    Ok(Some(numbers.as_chunks::<2>().0.iter().map(place).collect()))
}

fn read_filter(file: &Arc<File>, header: &Header) -> io::Result<Option<Filter>> {
    let filter_bytes = header.file_bytes - header.filter_start;
    let inner = ReadAt::buffered(file, header.filter_start);
    let mut input = Checksummed { inner, hasher: crc32fast::Hasher::new() };
    // A damaged filter may read as one that is too long: either way it is not this one.
    match Filter::read(&mut input, filter_bytes) {
        Ok(filter) => Ok((input.hasher.finalize() == header.filter_checksum).then_some(filter)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file from a position on, without its cursor, which others share.
pub(super) struct ReadAt {
    file: Arc<File>,
    at: u64,
}

impl ReadAt {
    /// From `at` on, in large pieces.
    pub(super) fn buffered(file: &Arc<File>, at: u64) -> BufReader<ReadAt> {
        BufReader::with_capacity(READ_BYTES, ReadAt { file: Arc::clone(file), at })
    }
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

/// Sums what is read through it.
struct Checksummed<R> {
    inner: R,
    hasher: crc32fast::Hasher,
}

impl<R: Read> Read for Checksummed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..bytes).unwrap_or_default());
        Ok(bytes)
    }
}
