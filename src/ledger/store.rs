//! Checkpoints: a shard's wallets and identities in one file, so that a restart reads only the ledger's tail.
//!
//! A cache and nothing more. A file that is torn, flipped, of another format, of another topic or shard is
//! deleted and the shard is restored from the topics; it is never repaired and never trusted. It is written
//! aside, synced and renamed, so that a crash leaves the old file or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::identity_store::{IdentityStore, Maintenance, Manifest, Recent, StoreSettings};
use super::shard::ShardState;
use super::wallets::Handle;
use crate::event::IdentityKey;
use crate::fault::fault_point;

const MAGIC: &[u8; 8] = b"CSCKPT04";
const CHECKSUM_BYTES: usize = 32;
/// Key, day, length of the value.
const IDENTITY_HEAD_BYTES: usize = 16 + 4 + 4;

/// Where checkpoints and sealed identities are, and who seals them.
#[derive(Clone, Copy)]
pub struct LocalStore<'s> {
    /// The folder; `None`: nothing is kept on disk.
    pub folder: Option<&'s Path>,
    /// Background work on identities.
    pub maintenance: &'s Maintenance,
    /// So many identities of a shard stay in memory before they are sealed.
    pub recent_max: usize,
    /// How long they are remembered, days.
    pub horizon_days: u32,
    /// The ledger that it belongs to.
    pub ledger_id: &'s str,
}

#[derive(Serialize, Deserialize)]
struct FileHeader {
    ledger_id: String,
    shard: i32,
    /// Of a ledger that was cut since, nothing that was kept is true.
    #[serde(default)]
    cuts: u32,
    ledger_position: i64,
    changed: Vec<(String, u64)>,
    wallets: usize,
    unsaved: Vec<String>,
    manifest: Manifest,
}

impl LocalStore<'_> {
    fn settings(&self, shard: i32) -> StoreSettings {
        StoreSettings {
            folder: self.folder.map(Path::to_path_buf),
            ledger_id: self.ledger_id.to_owned(),
            shard,
            recent_max: self.recent_max,
            horizon_days: self.horizon_days,
        }
    }

    /// A shard of which nothing is known here.
    pub fn empty_shard(&self, shard: i32) -> ShardState {
        ShardState::empty(shard, IdentityStore::new(self.settings(shard), self.maintenance))
    }

    /// Deletes a shard's checkpoint.
    pub fn discard(&self, shard: i32) {
        if let Some(folder) = self.folder {
            discard(folder, shard);
        }
    }

    /// Reads a shard's checkpoint. Anything in doubt is deleted.
    pub fn load(&self, shard: i32) -> Option<ShardState> {
        let path = path_of(self.folder?, shard);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(%error, path = %path.display(), "the checkpoint cannot be read: restoring from the topics");
                return None;
            }
        };
        match self.decode(&bytes, shard) {
            Ok(state) => Some(state),
            Err(reason) => {
                warn!(reason, path = %path.display(), "the checkpoint is not good: deleted, restoring from the topics");
                discard(self.folder?, shard);
                None
            }
        }
    }

    fn decode(&self, bytes: &[u8], shard: i32) -> Result<ShardState, String> {
        let body_end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or("too short")?;
        let (body, checksum) = bytes.split_at_checked(body_end).ok_or("too short")?;
        if blake3::hash(body).as_bytes() != checksum {
            return Err("the checksum does not match".to_owned());
        }
        let mut rest = body.strip_prefix(MAGIC).ok_or("another format")?;
        let header: FileHeader = serde_json::from_slice(take(&mut rest)?).map_err(|_| "another header")?;
        if header.ledger_id != self.ledger_id || header.shard != shard {
            return Err("of another ledger or shard".to_owned());
        }
        let identities = IdentityStore::open(self.settings(shard), self.maintenance, &header.manifest)
            .map_err(|why| why.to_string())?;
        let mut state = ShardState::empty(shard, identities);
        state.head.cuts = header.cuts;
        state.ledger_position = header.ledger_position;
        for _ in 0..header.wallets {
            state.wallets.put_packed(take(&mut rest)?).ok_or("another wallet format")?;
        }
        for (id, batch) in &header.changed {
            let handle = state.wallets.find(id).ok_or("a changed wallet that is not there")?;
            state.changed.insert(handle, *batch);
        }
        for id in &header.unsaved {
            state.unsaved.insert(state.wallets.find(id).ok_or("an unsaved wallet that is not there")?);
        }
        let mut recent = Recent::new();
        while !rest.is_empty() {
            let (key, day, value) = take_identity(&mut rest).ok_or("a torn identity")?;
            recent.insert(key, day, value);
        }
        state.identities.absorb(&recent);
        Ok(state)
    }
}

/// The bytes of a checkpoint of `state`, which must hold everything below `state.ledger_position`; without the
/// checksum, which [`write`] adds.
pub fn encode(state: &ShardState, ledger_id: &str) -> Result<Vec<u8>, serde_json::Error> {
    let id = |handle: &Handle| state.wallets.id(*handle).to_owned();
    let header = FileHeader {
        ledger_id: ledger_id.to_owned(),
        shard: state.shard,
        cuts: state.head.cuts,
        ledger_position: state.ledger_position,
        changed: state.changed.iter().map(|(handle, batch)| (id(handle), *batch)).collect(),
        wallets: state.wallets.count(),
        unsaved: state.maybe_unsaved().map(|handle| id(&handle)).collect(),
        manifest: state.identities.manifest(),
    };
    let identity_bytes = state.identities.unsealed_len() * 2 * IDENTITY_HEAD_BYTES;
    let mut bytes = Vec::with_capacity(4_096 + state.wallets.count() * 384 + identity_bytes);
    bytes.extend_from_slice(MAGIC);
    put(&mut bytes, &serde_json::to_vec(&header)?);
    state.wallets.iter_packed().for_each(|wallet| put(&mut bytes, wallet));
    state.identities.for_each_unsealed(|key, memo| {
        bytes.extend_from_slice(&key.0.to_le_bytes());
        bytes.extend_from_slice(&memo.day.to_le_bytes());
        put(&mut bytes, &memo.value);
    });
    Ok(bytes)
}

/// Appends bytes, preceded by their length.
fn put(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(value);
}

/// Writes a checkpoint in place of the one before.
///
/// # Errors
/// The disk: the old checkpoint stays.
pub fn write(folder: &Path, shard: i32, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = path_of(folder, shard);
    let aside = path.with_extension("new");
    write_aside(&aside, bytes).inspect_err(|_| {
        // On a full disk what is left of it would keep the other shards' out.
        let _ = fs::remove_file(&aside);
    })?;
    fs::rename(&aside, &path)?;
    fault_point!("checkpoint.renamed");
    File::open(folder)?.sync_all()
}

fn write_aside(aside: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(aside)?;
    fault_point!("checkpoint.created");
    file.write_all(bytes)?;
    fault_point!("checkpoint.without_checksum");
    file.write_all(blake3::hash(bytes).as_bytes())?;
    file.sync_all()?;
    fault_point!("checkpoint.written");
    Ok(())
}

/// Deletes a shard's checkpoint.
pub fn discard(folder: &Path, shard: i32) {
    let path = path_of(folder, shard);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(%error, path = %path.display(), "the checkpoint cannot be deleted");
        }
        _ => {}
    }
}

fn path_of(folder: &Path, shard: i32) -> PathBuf {
    folder.join(format!("shard-{shard}.checkpoint"))
}

fn take<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], &'static str> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or("too short")?;
    let (value, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("too short")?;
    *rest = after;
    Ok(value)
}

fn take_identity<'b>(rest: &mut &'b [u8]) -> Option<(IdentityKey, i32, &'b [u8])> {
    let (key, after) = rest.split_first_chunk::<16>()?;
    let (day, after) = after.split_first_chunk::<4>()?;
    *rest = after;
    let value = take(rest).ok()?;
    Some((IdentityKey(u128::from_le_bytes(*key)), i32::from_le_bytes(*day), value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::wallet::Wallet;

    fn store<'s>(folder: &'s Path, maintenance: &'s Maintenance) -> LocalStore<'s> {
        LocalStore {
            folder: Some(folder),
            maintenance,
            recent_max: 1_000,
            horizon_days: 35,
            ledger_id: "ledger",
        }
    }

    fn a_state(store: &LocalStore<'_>) -> ShardState {
        let mut state = store.empty_shard(3);
        state.ledger_position = 42;
        state.head.cuts = 2;
        let handle = state.wallets.handle("ws_1");
        state.wallets.put(handle, &Wallet { seq: 7, overdraft: 3, ..Wallet::default() });
        // Met, but never written to: not there.
        state.wallets.handle("ws_2");
        state.unsaved.insert(handle);
        state.changed.insert(handle, 9);
        let mut recent = Recent::new();
        recent.insert(IdentityKey(9), 20_000, b"what it said");
        state.identities.absorb(&recent);
        state
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let (folder, maintenance) = (tempfile::tempdir().unwrap(), Maintenance::start().unwrap());
        let store = store(folder.path(), &maintenance);
        let state = a_state(&store);
        write(folder.path(), 3, &encode(&state, "ledger").unwrap()).unwrap();
        let read = store.load(3).unwrap();
        assert_eq!((read.ledger_position, read.head.cuts), (42, 2));
        assert_eq!(read.changed, state.changed);
        assert_eq!(read.wallets.count(), 1);
        assert_eq!(read.wallets.get_by_id("ws_1"), state.wallets.get_by_id("ws_1"));
        assert_eq!(read.unsaved.len(), 1);
        let memo = read.identities.get(IdentityKey(9)).unwrap().unwrap();
        assert_eq!((memo.day, &*memo.value), (20_000, &b"what it said"[..]));
    }

    #[test]
    fn what_is_torn_flipped_or_foreign_is_deleted_and_never_used() {
        let (folder, maintenance) = (tempfile::tempdir().unwrap(), Maintenance::start().unwrap());
        let store = store(folder.path(), &maintenance);
        let state = a_state(&store);
        write(folder.path(), 3, &encode(&state, "ledger").unwrap()).unwrap();
        let good = fs::read(path_of(folder.path(), 3)).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bytes in [&good[..good.len() - 1], &flipped, b""] {
            fs::write(path_of(folder.path(), 3), bytes).unwrap();
            assert!(store.load(3).is_none());
            assert!(!path_of(folder.path(), 3).exists(), "it was not deleted");
        }
        write(folder.path(), 3, &encode(&state, "another ledger").unwrap()).unwrap();
        assert!(store.load(3).is_none(), "of another ledger");
        write(folder.path(), 4, &encode(&state, "ledger").unwrap()).unwrap();
        assert!(store.load(4).is_none(), "of shard 3");
    }
}
