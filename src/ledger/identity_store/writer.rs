//! Writes a segment: aside, synced, renamed, and the folder synced.
//!
//! **Invariants:** under its final name a file is whole and on disk, so whoever may name it may rely on it. A
//! segment that is not finished leaves nothing behind, unless the process dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{self, BLOCK_BYTES, Record};
use super::filter::{FilterBuilder, prefix_of};
use super::header::{self, HEADER_BYTES, Header};
use super::manifest::SegmentId;
use super::segment::{BlockPlace, Segment, path_of};
use crate::event::IdentityKey;
use crate::fault::fault_point;

const WRITE_BYTES: usize = 256 * 1024;

/// Where segments are written, and whose they are.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) folder: PathBuf,
    pub(super) shard: i32,
    pub(super) ledger_id: String,
}

/// A segment that is being written; records are pushed in ascending order of their keys.
pub(super) struct SegmentWriter {
    target: Target,
    id: SegmentId,
    aside: Aside,
    file: BufWriter<File>,
    /// Where the next block goes.
    at: u64,
    block: Vec<u8>,
    block_first: u64,
    index: Vec<BlockPlace>,
    filter: FilterBuilder,
    last: Option<IdentityKey>,
    count: u64,
    min_day: i32,
    max_day: i32,
}

impl SegmentWriter {
    /// Begins a segment of about so many identities.
    pub(super) fn create(target: &Target, expected: u64) -> io::Result<SegmentWriter> {
        let id = SegmentId(rand::random());
        let path = path_of(&target.folder, target.shard, id);
        let aside = Aside(path.with_added_extension("new"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&aside.0)?;
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        file.write_all(&[0; HEADER_BYTES as usize])?;
        Ok(SegmentWriter {
            target: target.clone(),
            id,
            aside,
            file,
            at: HEADER_BYTES,
            block: Vec::with_capacity(BLOCK_BYTES),
            block_first: 0,
            index: Vec::new(),
            filter: FilterBuilder::new(expected),
            last: None,
            count: 0,
            min_day: i32::MAX,
            max_day: i32::MIN,
        })
    }

    /// The next record.
    ///
    /// # Errors
    /// The disk, or a key that is not above the last one: such a segment would hide identities.
    pub(super) fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        if self.last.is_some_and(|last| last >= record.key) {
            return Err(io::Error::other("identities came out of order: the segment is not written"));
        }
        self.last = Some(record.key);
        if !self.block.is_empty() && self.block.len() + block::record_bytes(record) > BLOCK_BYTES {
            self.end_block()?;
        }
        if self.block.is_empty() {
            self.block_first = prefix_of(record.key);
        }
        block::put(&mut self.block, record);
        self.filter.push(record.key);
        self.count += 1;
        self.min_day = self.min_day.min(record.day);
        self.max_day = self.max_day.max(record.day);
        Ok(())
    }

    /// Makes the segment durable. None if nothing was pushed.
    pub(super) fn finish(mut self) -> io::Result<Option<Segment>> {
        if self.count == 0 {
            return Ok(None);
        }
        self.end_block()?;
        let index_start = self.at;
        let index_checksum = self.write_index()?;
        let filter_start = self.file.stream_position()?;
        let filter = self.filter.finish();
        let mut summing = Summing { inner: &mut self.file, hasher: crc32fast::Hasher::new() };
        filter.write(&mut summing)?;
        let filter_checksum = summing.hasher.finalize();
        let header = Header {
            id: self.id,
            shard: self.target.shard,
            ledger_id: self.target.ledger_id,
            count: self.count,
            min_day: self.min_day,
            max_day: self.max_day,
            index_start,
            blocks: self.index.len() as u64,
            filter_start,
            file_bytes: self.file.stream_position()?,
            index_checksum,
            filter_checksum,
        };
        let page = header::encode(&header).map_err(io::Error::other)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&page)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fault_point!("segment.before_sync");
        file.sync_all()?;
        fault_point!("segment.written");
        let path = path_of(&self.target.folder, self.target.shard, self.id);
        fs::rename(&self.aside.0, &path)?;
        fault_point!("segment.renamed");
        sync_folder(&self.target.folder)?;
        self.index.shrink_to_fit();
        Ok(Some(Segment { file: Arc::new(file), path, header, index: self.index, filter }))
    }

    fn end_block(&mut self) -> io::Result<()> {
        block::close(&mut self.block);
        self.file.write_all(&self.block)?;
        self.index.push(BlockPlace { first: self.block_first, start: self.at });
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn write_index(&mut self) -> io::Result<u32> {
        let mut summing = Summing { inner: &mut self.file, hasher: crc32fast::Hasher::new() };
        for place in &self.index {
            summing.write_all(&place.first.to_le_bytes())?;
            summing.write_all(&place.start.to_le_bytes())?;
        }
        Ok(summing.hasher.finalize())
    }
}

/// Makes names in a folder durable: of files that came, were renamed or went.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file that is not whole yet. It goes when it is given up; after the rename there is none of this name.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Sums what is written through it.
struct Summing<'w, W> {
    inner: &'w mut W,
    hasher: crc32fast::Hasher,
}

impl<W: Write> Write for Summing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
