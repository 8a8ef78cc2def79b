//! Vectors that grow without moving: in chunks.
//!
//! A vector in one piece is copied whenever it doubles, into memory that the kernel has to clear first: for the
//! identities of a busy shard that was a tenth of all that the ledger stage did.
//!
//! **Invariant:** chunks before the last in use are full, or had no room for what came.

/// Items in a chunk.
const CHUNK_ITEMS: usize = 8 * 1024;
/// Bytes in a chunk, but for one longer value.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes in the first.
const FIRST_CHUNK_BYTES: usize = 4 * 1024;

/// Items by their number.
#[derive(Clone, Debug)]
pub(super) struct Items<T> {
    chunks: Vec<Vec<T>>,
    count: usize,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Items { chunks: Vec::new(), count: 0 }
    }
}

impl<T> Items<T> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK_ITEMS)?.get(at % CHUNK_ITEMS)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at / CHUNK_ITEMS)?.get_mut(at % CHUNK_ITEMS)
    }

    pub(super) fn push(&mut self, item: T) {
        let chunk = self.count / CHUNK_ITEMS;
        if chunk == self.chunks.len() {
            // Few items take little memory: the first chunk grows as a vector does.
            let room = if chunk == 0 { 0 } else { CHUNK_ITEMS };
            self.chunks.push(Vec::with_capacity(room));
        }
        if let Some(chunk) = self.chunks.get_mut(chunk) {
            chunk.push(item);
            self.count += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// Forgets all, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.chunks.iter_mut().for_each(Vec::clear);
        self.count = 0;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
    }
}

/// Where a value begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    chunk: u32,
    start: u32,
}

/// Values of any length.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    chunks: Vec<Vec<u8>>,
    /// Chunks in use: those after them are empty.
    used: usize,
    byte_count: usize,
}

impl Values {
    /// Bytes of all values.
    pub(super) fn byte_count(&self) -> usize {
        self.byte_count
    }

    pub(super) fn get(&self, place: Place, length: u32) -> &[u8] {
        let (start, end) = (place.start as usize, place.start as usize + length as usize);
        self.chunks.get(place.chunk as usize).and_then(|chunk| chunk.get(start..end)).unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, place: Place, length: u32) -> Option<&mut [u8]> {
        let (start, end) = (place.start as usize, place.start as usize + length as usize);
        self.chunks.get_mut(place.chunk as usize)?.get_mut(start..end)
    }

    pub(super) fn push(&mut self, value: &[u8]) -> Place {
        while self.room() < value.len() {
            if self.used == self.chunks.len() {
                let bytes = self.byte_count.clamp(FIRST_CHUNK_BYTES, CHUNK_BYTES);
                self.chunks.push(Vec::with_capacity(bytes.max(value.len())));
            }
            self.used += 1;
        }
        // An empty value needs no chunk.
        let at = self.used.saturating_sub(1);
        let Some(chunk) = self.chunks.get_mut(at) else { return Place::default() };
        let place = Place { chunk: at as u32, start: chunk.len() as u32 };
        chunk.extend_from_slice(value);
        self.byte_count += value.len();
        place
    }

    /// Bytes that the last chunk in use still takes.
    fn room(&self) -> usize {
        let last = self.used.checked_sub(1).and_then(|last| self.chunks.get(last));
        last.map_or(0, |chunk| chunk.capacity() - chunk.len())
    }

    /// Forgets all, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.chunks.iter_mut().for_each(Vec::clear);
        (self.used, self.byte_count) = (0, 0);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_their_number_in_every_chunk() {
        let mut items = Items::default();
        let count = 2 * CHUNK_ITEMS + 3;
        for round in 0..2 {
            assert_eq!((items.len(), items.get(0)), (0, None), "round {round}");
            (0..count).for_each(|item| items.push(item + round));
            assert_eq!(items.len(), count);
            assert!((0..count).all(|at| items.get(at) == Some(&(at + round))));
            assert!(items.iter().copied().eq(round..count + round));
            *items.get_mut(CHUNK_ITEMS).unwrap_or(&mut 0) = 7;
            assert_eq!(items.get(CHUNK_ITEMS), Some(&7));
            assert_eq!(items.get(count), None);
            items.clear();
        }
    }

    #[test]
    fn values_of_any_length_stay_where_they_are() {
        let lengths = [0, 1, 100, FIRST_CHUNK_BYTES, 30_000, CHUNK_BYTES, 5, 3 * CHUNK_BYTES, 0, 17];
        let mut values = Values::default();
        let mut heap_bytes = 0;
        for round in 0..3_u8 {
            let value = |number: usize, length: usize| vec![round ^ number as u8; length];
            let push = |(number, length): (usize, &usize)| values.push(&value(number, *length));
            let places: Vec<Place> = lengths.iter().enumerate().map(push).collect();
            for (number, (place, length)) in places.iter().zip(lengths).enumerate() {
                assert_eq!(values.get(*place, length as u32), value(number, length), "value {number}");
            }
            assert_eq!(values.byte_count(), lengths.iter().sum::<usize>());
            if round > 0 {
                assert_eq!(values.heap_bytes(), heap_bytes, "the memory serves again");
            }
            heap_bytes = values.heap_bytes();
            values.clear();
        }
        assert!(heap_bytes < 2 * lengths.iter().sum::<usize>());
    }

    #[test]
    fn few_values_take_little_memory() {
        let mut values = Values::default();
        values.push(b"a value");
        assert!(values.heap_bytes() <= FIRST_CHUNK_BYTES);
        let mut items = Items::default();
        items.push(1_u64);
        assert!(items.heap_bytes() <= 64);
    }
}
