//! The store as its callers see it, on real files: against a map, through crashes, and with damaged files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod crashes;
mod damage;
mod model;
mod sealed;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use crate::event::IdentityKey;

const SHARD: i32 = 3;

/// Small, so that a test seals and merges often.
fn settings(folder: &Path) -> StoreSettings {
    StoreSettings {
        folder: Some(folder.to_owned()),
        ledger_id: "ledger".to_owned(),
        shard: SHARD,
        recent_max: 100,
        horizon_days: 10,
    }
}

/// Keys are spread as hashes are.
fn key(number: u64) -> IdentityKey {
    let bytes = blake3::hash(&number.to_le_bytes());
    IdentityKey(u128::from_le_bytes(*bytes.as_bytes().first_chunk().unwrap()))
}

/// Remembers numbered keys on a day, each with its number as value.
fn remember(store: &mut IdentityStore, numbers: impl Iterator<Item = u64>, day: i32) {
    let mut batch = Recent::new();
    numbers.for_each(|number| batch.insert(key(number), day, &number.to_le_bytes()));
    store.absorb(&batch);
}

/// Until nothing is to be done in the background.
fn settle(store: &mut IdentityStore) {
    let begun = Instant::now();
    store.maintain().unwrap();
    while store.is_busy() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the background work does not end");
        std::thread::sleep(Duration::from_micros(200));
        store.maintain().unwrap();
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn day_and_value(store: &IdentityStore, key: IdentityKey) -> Option<(i32, Vec<u8>)> {
    store.get(key).unwrap().map(|memo| (memo.day, memo.value.into_owned()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// What a checkpoint holds of a store.
#[derive(Clone, Default)]
struct Saved {
    /// As it is written: JSON.
    manifest: String,
    unsealed: Recent,
}

fn save(store: &IdentityStore) -> Saved {
    let mut unsealed = Recent::new();
    store.for_each_unsealed(|key, memo| unsealed.insert(key, memo.day, &memo.value));
    Saved { manifest: serde_json::to_string(&store.manifest()).unwrap(), unsealed }
}

fn restart(
    settings: StoreSettings,
    maintenance: &Maintenance,
    saved: &Saved,
) -> Result<IdentityStore, WhyNot> {
    let manifest = serde_json::from_str(&saved.manifest).unwrap();
    let mut store = IdentityStore::open(settings, maintenance, &manifest)?;
    store.absorb(&saved.unsealed);
    Ok(store)
}
