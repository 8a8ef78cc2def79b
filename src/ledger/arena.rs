//! The bytes of a batch's records, in chunks: an arena grows without copying (but for a chunk that takes a record larger than
//! its room), and what one batch needed serves whichever part of the next needs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a chunk. One that holds a larger record is larger.
const CHUNK_BYTES: usize = 256 * 1024;
/// A chunk with less room takes no further record: most records are smaller, and so no chunk has to grow for them.
const ROOM_BYTES: usize = 16 * 1024;

/// Chunks that are not in use, shared by all arenas of a worker.
#[derive(Clone, Default)]
pub struct Chunks(Arc<Mutex<Spare>>);

#[derive(Default)]
struct Spare {
    chunks: Vec<Vec<u8>>,
    /// The fewest that there were since the last trim.
    fewest: usize,
}

/// Bytes of many records.
pub struct Arena {
    spare: Chunks,
    chunks: Vec<Vec<u8>>,
}

/// Where some bytes stand in an arena.
#[derive(Clone, Copy)]
pub struct Span {
    chunk: usize,
    start: usize,
    end: usize,
}

impl Chunks {
    /// Lets go of those that nobody has needed since this was asked last.
    pub fn trim(&self) {
        let mut spare = self.lock();
        // Those at the bottom: the others were in use not long ago.
        let needless = spare.fewest;
        spare.chunks.drain(..needless);
        spare.fewest = spare.chunks.len();
    }

    fn take(&self) -> Vec<u8> {
        let mut spare = self.lock();
        let chunk = spare.chunks.pop();
        spare.fewest = spare.fewest.min(spare.chunks.len());
        drop(spare);
        chunk.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    fn lock(&self) -> MutexGuard<'_, Spare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arena {
    /// An empty one.
    pub fn new(spare: &Chunks) -> Arena {
        Arena { spare: spare.clone(), chunks: Vec::new() }
    }

    /// Appends bytes.
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        self.write(|out| out.extend_from_slice(bytes))
    }

    /// Appends what `write` appends.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        if self.chunks.last().is_none_or(|chunk| chunk.len() + ROOM_BYTES > CHUNK_BYTES) {
            self.chunks.push(self.spare.take());
        }
        let chunk = self.chunks.len() - 1;
        let Some(out) = self.chunks.last_mut() else { return Span { chunk, start: 0, end: 0 } };
        let start = out.len();
        write(out);
        Span { chunk, start, end: out.len() }
    }

    /// What stands there.
    pub fn get(&self, span: Span) -> &[u8] {
        self.chunks.get(span.chunk).and_then(|chunk| chunk.get(span.start..span.end)).unwrap_or_default()
    }

    /// Bytes in all.
    pub fn byte_count(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Empties it; its chunks may be used elsewhere. Those that had to grow are let go.
    pub fn clear(&mut self) {
        let mut spare = self.spare.lock();
        for mut chunk in self.chunks.drain(..).filter(|chunk| chunk.capacity() == CHUNK_BYTES) {
            chunk.clear();
            spare.chunks.push(chunk);
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_found_again_across_chunks() {
        let mut arena = Arena::new(&Chunks::default());
        let records: Vec<Vec<u8>> = (0..1_000_usize).map(|n| vec![n as u8; n * 37 % 5_000]).collect();
        let large = vec![7; 3 * CHUNK_BYTES];
        let spans: Vec<Span> = records.iter().map(|record| arena.store(record)).collect();
        let large_span = arena.write(|out| out.extend_from_slice(&large));
        let last = arena.store(b"last");
        for (record, span) in records.iter().zip(spans) {
            assert_eq!(arena.get(span), record);
        }
        assert_eq!((arena.get(large_span), arena.get(last)), (&*large, &b"last"[..]));
        assert!(arena.chunks.len() > 8);
        assert_eq!(arena.byte_count(), records.iter().map(Vec::len).sum::<usize>() + large.len() + 4);
    }

    #[test]
    fn chunks_serve_another_arena_and_go_once_nobody_needs_them() {
        let chunks = Chunks::default();
        let spare = || chunks.lock().chunks.len();
        let mut first = Arena::new(&chunks);
        for _ in 0..10 {
            first.write(|out| out.resize(CHUNK_BYTES, 1));
        }
        first.clear();
        assert_eq!((spare(), first.byte_count()), (10, 0));
        chunks.trim();
        assert_eq!(spare(), 10, "all were needed since the last time");

        let mut second = Arena::new(&chunks);
        for _ in 0..3 {
            assert!(second.write(|out| out.resize(CHUNK_BYTES, 2)).start == 0, "chunks come back empty");
        }
        assert_eq!(spare(), 7);
        drop(second);
        chunks.trim();
        assert_eq!(spare(), 3, "the other seven nobody needed");
        let mut third = Arena::new(&chunks);
        third.write(|out| out.resize(CHUNK_BYTES * 2, 3));
        third.clear();
        assert_eq!(spare(), 2, "one that grew is not kept");
    }
}
