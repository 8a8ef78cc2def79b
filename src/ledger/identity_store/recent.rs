//! Identities in memory: the overlay of a batch, or the newest ones of a shard.
//!
//! Entries lie one after the other, values of any length too, and a table of 4-byte positions finds them: an identity
//! costs its 32 bytes, its value, and 5 to 10 for the table.
//!
//! **Invariant:** a key has one entry; inserting it again replaces day and value. What replaced values leave
//! behind never takes more room than the values themselves.

use std::borrow::Cow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use super::chunked::{Items, Place, Values};
use super::{MAX_VALUE_BYTES, Memo};
use crate::event::IdentityKey;

/// Below this, room left by replaced values is not worth a copy.
const GARBAGE_BYTES_MIN: usize = 64 * 1024;

/// Identities in memory.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    entries: Items<Entry>,
    values: Values,
    /// Positions in `entries`, by key.
    table: HashTable<u32>,
    /// Bytes of `values` that no entry names any longer.
    garbage_bytes: usize,
    /// What is being written.
    scratch: Vec<u8>,
}

/// The key in two halves: as one number it would be aligned to 16 bytes, and the entry take 48.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key_high: u64,
    key_low: u64,
    place: Place,
    length: u32,
    day: i32,
}

impl Entry {
    fn new(key: IdentityKey, day: i32, place: Place, length: usize) -> Entry {
        Entry { key_high: (key.0 >> 64) as u64, key_low: key.0 as u64, place, length: length as u32, day }
    }

    fn key(&self) -> IdentityKey {
        IdentityKey(u128::from(self.key_high) << 64 | u128::from(self.key_low))
    }
}

/// Keys are hashes already: any of their bits are as good as others.
fn hash_of(key: IdentityKey) -> u64 {
    (key.0 >> 64) as u64 ^ key.0 as u64
}

fn is_at(entries: &Items<Entry>, at: u32, key: IdentityKey) -> bool {
    entries.get(at as usize).is_some_and(|entry| entry.key() == key)
}

impl Recent {
    /// None yet.
    pub fn new() -> Recent {
        Recent::default()
    }

    /// What is remembered under a key.
    pub fn get(&self, key: IdentityKey) -> Option<Memo<'_>> {
        self.find(key).and_then(|at| self.entries.get(at)).map(|entry| self.memo(entry))
    }

    /// Remembers, in place of what was under the key before.
    ///
    /// # Panics
    /// If the value is longer than [`MAX_VALUE_BYTES`]: whoever makes values must bound them.
    pub fn insert(&mut self, key: IdentityKey, day: i32, value: &[u8]) {
        assert!(
            value.len() <= MAX_VALUE_BYTES,
            "a value of {} bytes, at most {MAX_VALUE_BYTES}",
            value.len()
        );
        let entries = &self.entries;
        let is_it = |at: &u32| is_at(entries, *at, key);
        match self.table.entry(hash_of(key), is_it, |at| hash_at(entries, *at)) {
            TableEntry::Occupied(found) => {
                let at = *found.get() as usize;
                self.replace(at, day, value);
            }
            TableEntry::Vacant(place) => {
                let at = u32::try_from(entries.len());
                place.insert(at.expect("identities in memory are bounded far below 2^32"));
                self.entries.push(Entry::new(key, day, self.values.push(value), value.len()));
            }
        }
    }

    /// The same with a value that is being written: one after the other in the same memory.
    ///
    /// # Panics
    /// As [`Recent::insert`].
    pub fn insert_with(&mut self, key: IdentityKey, day: i32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        write(&mut value);
        self.insert(key, day, &value);
        self.scratch = value;
    }

    /// Takes over all of `other`.
    pub fn absorb(&mut self, other: &Recent) {
        self.reserve(other.len());
        for (key, memo) in other.iter() {
            self.insert(key, memo.day, &memo.value);
        }
    }

    /// Marks those of the keys that are here.
    pub fn mark(&self, keys: &[IdentityKey], found: &mut [bool]) {
        keys.iter().zip(found).for_each(|(key, found)| *found |= self.find(*key).is_some());
    }

    /// Frees what lies before `first_day`.
    pub fn forget_before(&mut self, first_day: i32) {
        if self.entries.iter().all(|entry| entry.day >= first_day) {
            return;
        }
        self.rebuild(first_day);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap, with room that is not used yet.
    pub fn heap_bytes(&self) -> usize {
        self.entries.heap_bytes() + self.values.heap_bytes() + self.table.allocation_size()
    }

    /// All of them, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityKey, Memo<'_>)> {
        self.entries.iter().map(|entry| (entry.key(), self.memo(entry)))
    }

    /// All of them by key, ascending.
    pub(super) fn iter_sorted(&self) -> impl Iterator<Item = (IdentityKey, Memo<'_>)> {
        // The first halves are sorted by themselves: a look at the entry for each comparison would miss the cache.
        let halves = self.entries.iter().enumerate().map(|(at, entry)| (entry.key_high, at as u32));
        let mut order: Vec<(u64, u32)> = halves.collect();
        let low = |at: u32| self.entries.get(at as usize).map(|entry| entry.key_low);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| low(a.1).cmp(&low(b.1))));
        let entries = order.into_iter().filter_map(|(_, at)| self.entries.get(at as usize));
        entries.map(|entry| (entry.key(), self.memo(entry)))
    }

    /// Forgets all and keeps the memory, for the next batch.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.values.clear();
        self.table.clear();
        self.garbage_bytes = 0;
    }

    /// Makes room for so many more in the table; all else grows without being moved.
    pub fn reserve(&mut self, more: usize) {
        let entries = &self.entries;
        self.table.reserve(more, |at| hash_at(entries, *at));
    }

    fn find(&self, key: IdentityKey) -> Option<usize> {
        let is_it = |at: &u32| is_at(&self.entries, *at, key);
        self.table.find(hash_of(key), is_it).map(|at| *at as usize)
    }

    fn memo(&self, entry: &Entry) -> Memo<'_> {
        Memo { day: entry.day, value: Cow::Borrowed(self.values.get(entry.place, entry.length)) }
    }

    fn replace(&mut self, at: usize, day: i32, value: &[u8]) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.day = day;
        if entry.length as usize == value.len() {
            if let Some(known) = self.values.get_mut(entry.place, entry.length) {
                known.copy_from_slice(value);
            }
            return;
        }
        self.garbage_bytes += entry.length as usize;
        entry.place = self.values.push(value);
        entry.length = value.len() as u32;
        let most_is_garbage = self.garbage_bytes > self.values.byte_count() / 2;
        if most_is_garbage && self.garbage_bytes > GARBAGE_BYTES_MIN {
            self.rebuild(i32::MIN);
        }
    }

    fn rebuild(&mut self, first_day: i32) {
        let mut kept = Recent::new();
        for entry in self.entries.iter().filter(|entry| entry.day >= first_day) {
            kept.insert(entry.key(), entry.day, &self.memo(entry).value);
        }
        *self = kept;
    }
}

fn hash_at(entries: &Items<Entry>, at: u32) -> u64 {
    entries.get(at as usize).map_or(0, |entry| hash_of(entry.key()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value_of(recent: &Recent, key: u128) -> Vec<u8> {
        recent.get(IdentityKey(key)).unwrap().value.into_owned()
    }

    #[test]
    fn a_re_insert_replaces_day_and_value() {
        let mut recent = Recent::new();
        recent.insert(IdentityKey(1), 10, b"one");
        recent.insert(IdentityKey(2), 10, b"two");
        recent.insert(IdentityKey(1), 11, b"uno");
        recent.insert(IdentityKey(2), 12, b"a longer one");
        assert_eq!(recent.len(), 2);
        assert_eq!(recent.get(IdentityKey(1)).unwrap(), Memo { day: 11, value: b"uno".as_slice().into() });
        assert_eq!(value_of(&recent, 2), b"a longer one");
        assert!(recent.get(IdentityKey(3)).is_none());
    }

    #[test]
    fn values_that_grow_again_and_again_do_not_fill_memory() {
        let mut recent = Recent::new();
        recent.insert(IdentityKey(2), 1, b"bystander");
        for length in 0..4_000 {
            recent.insert(IdentityKey(1), 1, &vec![7; length]);
        }
        assert!(recent.heap_bytes() < 400_000, "{} bytes for one value of 4,000", recent.heap_bytes());
        assert_eq!(value_of(&recent, 1), vec![7; 3_999]);
        assert_eq!(value_of(&recent, 2), b"bystander");
    }

    #[test]
    fn forgetting_keeps_the_rest_and_clearing_keeps_the_memory() {
        let mut recent = Recent::new();
        for key in 0..100 {
            recent.insert(IdentityKey(key), key as i32, &key.to_le_bytes());
        }
        recent.forget_before(40);
        assert_eq!(recent.len(), 60);
        assert!(recent.get(IdentityKey(39)).is_none());
        assert_eq!(value_of(&recent, 40), 40_u128.to_le_bytes());
        let heap_bytes = recent.heap_bytes();
        recent.clear();
        assert!(recent.is_empty() && recent.get(IdentityKey(40)).is_none());
        assert_eq!(recent.heap_bytes(), heap_bytes);
    }

    #[test]
    #[should_panic(expected = "a value of 1048577 bytes")]
    fn a_value_beyond_the_bound_is_a_mistake_of_the_caller() {
        Recent::new().insert(IdentityKey(1), 1, &[0; MAX_VALUE_BYTES + 1]);
    }
}
