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

use super::identities::Memo;
use super::shard::ShardState;
use crate::event::IdentityKey;
use crate::time::ShardClock;
use crate::wallet::{WalletSnapshot, encode_snapshot};

const MAGIC: &[u8; 8] = b"CSCKPT02";
const CHECKSUM_BYTES: usize = 32;
/// Key, fingerprint, day.
const IDENTITY_BYTES: usize = 16 + 8 + 4;

#[derive(Serialize, Deserialize)]
struct FileHeader {
    ledger_id: String,
    shard: i32,
    ledger_position: i64,
    wallets: usize,
    identities: usize,
    unsaved: Vec<String>,
}

/// The bytes of a checkpoint of `state`, which must hold everything below `state.ledger_position`.
pub fn encode(state: &ShardState, ledger_id: &str) -> Result<Vec<u8>, serde_json::Error> {
    let header = FileHeader {
        ledger_id: ledger_id.to_owned(),
        shard: state.shard,
        ledger_position: state.ledger_position,
        wallets: state.wallets.len(),
        identities: state.identities.len(),
        unsaved: state.unsaved.iter().map(|id| id.to_string()).collect(),
    };
    let mut bytes =
        Vec::with_capacity(64 + state.wallets.len() * 512 + state.identities.len() * IDENTITY_BYTES);
    bytes.extend_from_slice(MAGIC);
    let header = serde_json::to_vec(&header)?;
    put(&mut bytes, |bytes| bytes.extend_from_slice(&header));
    let clock: ShardClock = state.head.clock.now();
    for (wallet_id, wallet) in &state.wallets {
        put(&mut bytes, |bytes| encode_snapshot(wallet_id, wallet, clock, bytes));
    }
    for (key, memo) in state.identities.iter() {
        bytes.extend_from_slice(&key.0.to_le_bytes());
        bytes.extend_from_slice(&memo.value.to_le_bytes());
        bytes.extend_from_slice(&memo.day.to_le_bytes());
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Appends what `encode` writes, preceded by its length.
fn put(bytes: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    encode(bytes);
    let length = u32::try_from(bytes.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// Writes a checkpoint in place of the one before.
///
/// # Errors
/// The disk: the old checkpoint stays.
pub fn write(folder: &Path, shard: i32, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = path_of(folder, shard);
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(folder)?.sync_all()
}

/// Reads a shard's checkpoint. Anything in doubt is deleted.
pub fn load(folder: &Path, ledger_id: &str, shard: i32) -> Option<ShardState> {
    let path = path_of(folder, shard);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(%error, path = %path.display(), "the checkpoint cannot be read: restoring from the topics");
            return None;
        }
    };
    match decode(&bytes, ledger_id, shard) {
        Ok(state) => Some(state),
        Err(reason) => {
            warn!(reason, path = %path.display(), "the checkpoint is not good: deleted, restoring from the topics");
            if let Err(error) = fs::remove_file(&path) {
                warn!(%error, path = %path.display(), "the checkpoint cannot be deleted");
            }
            None
        }
    }
}

fn path_of(folder: &Path, shard: i32) -> PathBuf {
    folder.join(format!("shard-{shard}.checkpoint"))
}

fn decode(bytes: &[u8], ledger_id: &str, shard: i32) -> Result<ShardState, &'static str> {
    let body_end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or("too short")?;
    let (body, checksum) = bytes.split_at_checked(body_end).ok_or("too short")?;
    if blake3::hash(body).as_bytes() != checksum {
        return Err("the checksum does not match");
    }
    let mut rest = body.strip_prefix(MAGIC).ok_or("another format")?;
    let header: FileHeader = serde_json::from_slice(take_json(&mut rest)?).map_err(|_| "another header")?;
    if header.ledger_id != ledger_id || header.shard != shard {
        return Err("of another ledger or shard");
    }
    let mut state = ShardState::empty(shard);
    state.ledger_position = header.ledger_position;
    state.unsaved = header.unsaved.into_iter().map(String::into_boxed_str).collect();
    state.wallets.reserve(header.wallets);
    for _ in 0..header.wallets {
        let snapshot: WalletSnapshot<'_> =
            serde_json::from_slice(take_json(&mut rest)?).map_err(|_| "another wallet format")?;
        state.wallets.insert(snapshot.wallet_id.as_ref().into(), Box::new(snapshot.into_wallet()));
    }
    if rest.len() != header.identities * IDENTITY_BYTES {
        return Err("another number of identities");
    }
    state.identities.reserve(header.identities);
    for identity in rest.chunks_exact(IDENTITY_BYTES) {
        let (key, memo) = decode_identity(identity).ok_or("a torn identity")?;
        state.identities.insert(key, memo);
    }
    Ok(state)
}

fn take_json<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], &'static str> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or("too short")?;
    let (json, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("too short")?;
    *rest = after;
    Ok(json)
}

fn decode_identity(bytes: &[u8]) -> Option<(IdentityKey, Memo)> {
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (value, rest) = rest.split_first_chunk::<8>()?;
    let (day, _) = rest.split_first_chunk::<4>()?;
    let memo = Memo { value: u64::from_le_bytes(*value), day: i32::from_le_bytes(*day) };
    Some((IdentityKey(u128::from_le_bytes(*key)), memo))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::wallet::Wallet;

    fn a_state() -> ShardState {
        let mut state = ShardState::empty(3);
        state.ledger_position = 42;
        state.wallets.insert("ws_1".into(), Box::new(Wallet { seq: 7, overdraft: 3, ..Wallet::default() }));
        state.unsaved.insert("ws_1".into());
        state.identities.insert(IdentityKey(9), Memo { value: 8, day: 20_000 });
        state
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 3, &encode(&a_state(), "ledger").unwrap()).unwrap();
        let read = load(folder.path(), "ledger", 3).unwrap();
        assert_eq!(read.ledger_position, 42);
        assert_eq!(read.wallets, a_state().wallets);
        assert_eq!(read.unsaved, a_state().unsaved);
        assert_eq!(read.identities.get(IdentityKey(9)), Some(Memo { value: 8, day: 20_000 }));
    }

    #[test]
    fn what_is_torn_flipped_or_foreign_is_deleted_and_never_used() {
        let folder = tempfile::tempdir().unwrap();
        let good = encode(&a_state(), "ledger").unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        let foreign = encode(&a_state(), "another ledger").unwrap();
        for bytes in [&good[..good.len() - 1], &flipped, &foreign, b""] {
            write(folder.path(), 3, bytes).unwrap();
            assert!(load(folder.path(), "ledger", 3).is_none());
            assert!(!path_of(folder.path(), 3).exists(), "it was not deleted");
        }
        write(folder.path(), 4, &good).unwrap();
        assert!(load(folder.path(), "ledger", 4).is_none(), "of shard 3");
    }
}
