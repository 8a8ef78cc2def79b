//! The wallets of a shard, packed: what is not being worked on takes as little memory as it can.
//!
//! A wallet at rest is a few hundred bytes, the same that a checkpoint holds; it is unpacked into a batch's overlay when
//! an event or a timer touches it, and packed again when the batch is committed. A handle names a wallet in memory,
//! for as long as the shard is here.
//!
//! **Invariant:** the timers name every wallet once that has something due, by when that is, as the newest batch under
//! way leaves it; [`super::shard::ShardSlot::drop_overlays`] puts them back.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::bytes;
use crate::packed;
use crate::time::Timestamp;
use crate::wallet::Wallet;

/// Version of the packed form: its first byte.
const PACKED_FORMAT: u8 = 2;

/// As many wallets as are mostly fetched at once; more of them take an allocation.
const FETCHED_AT_ONCE: usize = 64;

/// Handles of wallets that were fetched.
pub type Fetched = SmallVec<[Handle; FETCHED_AT_ONCE]>;

/// Names a wallet of a shard in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(u32);

impl Handle {
    /// Handles are given out in this order.
    pub fn all() -> impl Iterator<Item = Handle> {
        (0..).map(Handle)
    }

    /// How many were given out before it.
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// The wallets of a shard.
#[derive(Debug, Default)]
pub struct WalletTable {
    slots: Vec<Slot>,
    /// Places in `slots`, by wallet id.
    index: HashTable<Place>,
    timers: BTreeSet<(Timestamp, Handle)>,
    /// Slots that hold a wallet.
    count: usize,
    /// What is being packed.
    scratch: Vec<u8>,
}

/// Where the wallet of an id is. Half of the id's hash stands here too: looking for an id then reaches for no other wallet's slot,
/// and a table that grows for none at all.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    slot: u32,
}

impl Place {
    fn hash_of(id: &[u8]) -> u32 {
        xxh3_64(id) as u32
    }

    /// What the table is asked with: it wants the highest bits to differ, and the lowest.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// A place for a wallet: empty as long as no batch that made it was committed.
#[derive(Debug)]
struct Slot {
    /// Format, length of the id, id; then the wallet, if there is one.
    packed: Box<[u8]>,
    /// When something is due next, as the timers have it; the greatest: never.
    due: Timestamp,
}

impl WalletTable {
    /// Number of wallets.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The wallet's handle, if it was ever met.
    pub fn find(&self, id: &str) -> Option<Handle> {
        self.find_hashed(id.as_bytes(), Place::hash_of(id.as_bytes()))
    }

    fn find_hashed(&self, id: &[u8], hash: u32) -> Option<Handle> {
        let is_it = |place: &Place| {
            place.hash == hash && self.slots.get(place.slot as usize).is_some_and(|slot| slot.id() == id)
        };
        self.index.find(Place::spread(hash), is_it).map(|place| Handle(place.slot))
    }

    /// The wallet's handle; its slot is empty if it was never met.
    pub fn handle(&mut self, id: &str) -> Handle {
        let hash = Place::hash_of(id.as_bytes());
        if let Some(handle) = self.find_hashed(id.as_bytes(), hash) {
            return handle;
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.scratch.clear();
        write_header(id.as_bytes(), &mut self.scratch);
        self.slots.push(Slot { packed: self.scratch.as_slice().into(), due: Timestamp::MAX });
        self.index
            .insert_unique(Place::spread(hash), Place { hash, slot }, |place| Place::spread(place.hash));
        Handle(slot)
    }

    /// Reaches for wallets that will be needed, and for so many of their packed bytes: see [`super::shard::ShardSlot::fetch`].
    /// Handles of those that were ever met, and of some others: that an id is the right one is not looked at.
    pub fn fetch<'i>(&self, ids: impl Iterator<Item = &'i str>, bytes_max: usize) -> Fetched {
        let handle = |id: &str| {
            let hash = Place::hash_of(id.as_bytes());
            self.index.find(Place::spread(hash), |place| place.hash == hash).map(|place| Handle(place.slot))
        };
        let mut handles = Fetched::new();
        handles.extend(ids.filter_map(handle));
        self.fetch_packed(handles.iter().copied(), bytes_max);
        handles
    }

    /// The same by their handles.
    pub fn fetch_packed(&self, handles: impl Iterator<Item = Handle>, bytes_max: usize) {
        let mut packed: SmallVec<[&[u8]; FETCHED_AT_ONCE]> = SmallVec::new();
        packed.extend(handles.filter_map(|handle| self.slots.get(handle.place())).map(|slot| &*slot.packed));
        bytes::fetch(packed.into_iter().map(|bytes| bytes.get(..bytes_max).unwrap_or(bytes)));
    }

    /// Its id.
    pub fn id(&self, handle: Handle) -> &str {
        let id = self.slots.get(handle.0 as usize).map(Slot::id).unwrap_or_default();
        std::str::from_utf8(id).unwrap_or_default()
    }

    /// A copy of the wallet as it is committed; `None`: there is none.
    pub fn get(&self, handle: Handle) -> Option<Wallet> {
        self.slots.get(handle.0 as usize)?.wallet()
    }

    /// Seq of its last entry, without unpacking it; 0: there is none.
    pub fn seq(&self, handle: Handle) -> u64 {
        self.slots.get(handle.0 as usize).and_then(Slot::seq).unwrap_or_default()
    }

    /// The wallet with that id, as it is committed.
    #[cfg(test)]
    pub fn get_by_id(&self, id: &str) -> Option<Wallet> {
        self.get(self.find(id)?)
    }

    /// Puts a committed wallet in its place.
    pub fn put(&mut self, handle: Handle, wallet: &Wallet) {
        let Some(slot) = self.slots.get_mut(handle.0 as usize) else { return };
        self.count += usize::from(slot.is_empty());
        self.scratch.clear();
        write_header(slot.id(), &mut self.scratch);
        packed::append(&mut self.scratch, wallet);
        if slot.packed.len() == self.scratch.len() {
            slot.packed.copy_from_slice(&self.scratch);
        } else {
            slot.packed = self.scratch.as_slice().into();
        }
    }

    /// Empties a wallet's place. Nothing may be due for it.
    pub fn remove(&mut self, handle: Handle) {
        let Some(slot) = self.slots.get_mut(handle.0 as usize).filter(|slot| !slot.is_empty()) else {
            return;
        };
        self.count -= 1;
        slot.packed = slot.packed.get(..slot.id_end()).unwrap_or_default().into();
    }

    /// Puts a wallet in its place as it was packed before; `None` where the bytes are none.
    pub fn put_packed(&mut self, bytes: &[u8]) -> Option<Handle> {
        let slot = Slot { packed: bytes.into(), due: Timestamp::MAX };
        slot.wallet()?;
        let id = std::str::from_utf8(slot.id()).ok()?.to_owned();
        let handle = self.handle(&id);
        let place = self.slots.get_mut(handle.0 as usize)?;
        self.count += usize::from(place.is_empty());
        place.packed = slot.packed;
        Some(handle)
    }

    /// All wallets as they are packed, in no order.
    pub fn iter_packed(&self) -> impl Iterator<Item = &[u8]> {
        self.slots.iter().filter(|slot| !slot.is_empty()).map(|slot| &*slot.packed)
    }

    /// Handles of all wallets.
    pub fn handles(&self) -> impl Iterator<Item = Handle> {
        let filled = self.slots.iter().zip(0..).filter(|(slot, _)| !slot.is_empty());
        filled.map(|(_, place)| Handle(place))
    }

    /// When something is due next for a wallet.
    pub fn due(&self, handle: Handle) -> Option<Timestamp> {
        let due = self.slots.get(handle.0 as usize)?.due;
        (due != Timestamp::MAX).then_some(due)
    }

    /// Sets when something is due next for a wallet.
    pub fn set_due(&mut self, handle: Handle, due: Option<Timestamp>) {
        let due = due.unwrap_or(Timestamp::MAX);
        let Some(slot) = self.slots.get_mut(handle.0 as usize) else { return };
        if slot.due == due {
            return;
        }
        if slot.due != Timestamp::MAX {
            self.timers.remove(&(slot.due, handle));
        }
        slot.due = due;
        if due != Timestamp::MAX {
            self.timers.insert((due, handle));
        }
    }

    /// The wallet for which something is due first, and when.
    pub fn first_due(&self) -> Option<(Timestamp, Handle)> {
        self.timers.first().copied()
    }
}

impl Slot {
    fn id(&self) -> &[u8] {
        self.packed.get(2..self.id_end()).unwrap_or_default()
    }

    fn id_end(&self) -> usize {
        2 + self.packed.get(1).copied().map_or(0, usize::from)
    }

    fn is_empty(&self) -> bool {
        self.packed.len() <= self.id_end()
    }

    fn wallet(&self) -> Option<Wallet> {
        packed::read(self.body()?)
    }

    /// The first of a wallet's fields.
    fn seq(&self) -> Option<u64> {
        packed::read_first(self.body()?)
    }

    fn body(&self) -> Option<&[u8]> {
        let (format, body) = (self.packed.first()?, self.packed.get(self.id_end()..)?);
        (*format == PACKED_FORMAT && !body.is_empty()).then_some(body)
    }
}

fn write_header(id: &[u8], out: &mut Vec<u8>) {
    // An id has at most 128 bytes.
    let length = u8::try_from(id.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[PACKED_FORMAT, length]);
    out.extend_from_slice(id.get(..usize::from(length)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seq_of_a_wallet_is_read_without_unpacking_it() {
        let mut table = WalletTable::default();
        let handle = table.handle("ws_1");
        assert_eq!(table.seq(handle), 0, "it was met, and nothing was put there");
        for seq in [1, 127, 128, u64::MAX] {
            table.put(handle, &Wallet { seq, overdraft: 7, ..Wallet::default() });
            assert_eq!(table.seq(handle), seq);
        }
        table.remove(handle);
        assert_eq!(table.seq(handle), 0);
    }
}
