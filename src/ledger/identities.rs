//! Remembered identities: events and jobs of one shard, for the horizon.
//!
//! A record's life ends with the day of its event time: what lies before the day of clock - horizon counts as
//! forgotten, whether it is still there or not, so that a restored shard decides as the one it replaces. (Such
//! an event would be `too_old` anyway.)

use hashbrown::HashMap;

use super::TimeRules;
use crate::event::{Fingerprint, IdentityKey, event_key, job_key};
use crate::time::{ShardClock, Timestamp};
use crate::wallet::{Entry, EntryType, JobCharge, JobHistory};

/// Keys are hashes already: their low bits are as good as any.
#[derive(Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl std::hash::Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64 ^ key as u64;
    }
}

type KeyHash = std::hash::BuildHasherDefault<KeyHasher>;

/// What is remembered of one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memo {
    /// Fingerprint of an event; for a job how it was charged.
    pub value: u64,
    /// Day of its event time, since the epoch.
    pub day: i32,
}

const WHOLE_JOB: u64 = 0;
const JOB_BY_ASSET: u64 = 1;
const ASSET: u64 = 2;
/// By asset, and each of them refused so far.
const JOB_REFUSED_BY_ASSET: u64 = 3;

/// Identities by key.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    memos: HashMap<IdentityKey, Memo, KeyHash>,
}

impl Identities {
    /// What is remembered under a key.
    pub fn get(&self, key: IdentityKey) -> Option<Memo> {
        self.memos.get(&key).copied()
    }

    /// Remembers.
    pub fn insert(&mut self, key: IdentityKey, memo: Memo) {
        self.memos.insert(key, memo);
    }

    /// Takes over all of `other`.
    pub fn absorb(&mut self, other: Identities) {
        self.memos.extend(other.memos);
    }

    /// Frees what lies before `first_day`.
    pub fn forget_before(&mut self, first_day: i32) {
        self.memos.retain(|_, memo| memo.day >= first_day);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.memos.len()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityKey, Memo)> {
        self.memos.iter().map(|(key, memo)| (*key, *memo))
    }

    /// Makes room.
    pub fn reserve(&mut self, more: usize) {
        self.memos.reserve(more);
    }

    /// Remembers what an entry of the ledger says was accepted. The same as was remembered when it
    /// was posted.
    pub fn remember_entry(&mut self, wallet_id: &str, entry: &Entry<'_>) {
        if !entry.event_id.is_empty() {
            let key = event_key(wallet_id, &entry.source, &entry.event_id);
            self.insert(key, event_memo(entry.fingerprint, entry.event_time));
        }
        if matches!(entry.entry_type, EntryType::Charged | EntryType::Refused) {
            let is_refused = entry.entry_type == EntryType::Refused;
            let job = JobEvent { wallet_id, job_id: &entry.job_id, asset_id: &entry.asset_id, is_refused };
            for (key, memo) in job_memos(&job, entry.event_time, |key| self.get(key)).into_iter().flatten() {
                self.insert(key, memo);
            }
        }
    }
}

/// The memo of an accepted event.
pub fn event_memo(fingerprint: Fingerprint, event_time: Timestamp) -> Memo {
    Memo { value: fingerprint.0, day: day(event_time) }
}

/// A charge of a job, or its refusal.
pub struct JobEvent<'e> {
    /// Wallet.
    pub wallet_id: &'e str,
    /// Job.
    pub job_id: &'e str,
    /// Asset, or empty for the whole job.
    pub asset_id: &'e str,
    /// Nothing was charged.
    pub is_refused: bool,
}

/// The memos of a charged (or refused) job: of the job, and of the asset where it was charged by asset. `get` says
/// what was known before: a job is remembered as long as the latest of its assets, in whatever order they came.
pub fn job_memos(
    event: &JobEvent<'_>,
    event_time: Timestamp,
    get: impl Fn(IdentityKey) -> Option<Memo>,
) -> [Option<(IdentityKey, Memo)>; 2] {
    let day = day(event_time);
    let job = job_key(event.wallet_id, event.job_id, "");
    if event.asset_id.is_empty() {
        return [Some((job, Memo { value: WHOLE_JOB, day })), None];
    }
    let before = get(job);
    let was_charged = before.is_some_and(|before| before.value != JOB_REFUSED_BY_ASSET);
    let value = if event.is_refused && !was_charged { JOB_REFUSED_BY_ASSET } else { JOB_BY_ASSET };
    let last_day = before.map_or(day, |before| before.day.max(day));
    let asset = job_key(event.wallet_id, event.job_id, event.asset_id);
    [Some((job, Memo { value, day: last_day })), Some((asset, Memo { value: ASSET, day }))]
}

/// What a look-up by `get` knows of a job.
pub fn job_history(
    wallet_id: &str,
    job_id: &str,
    asset_id: &str,
    get: impl Fn(IdentityKey) -> Option<Memo>,
) -> JobHistory {
    let memo = get(job_key(wallet_id, job_id, ""));
    let job = memo.map(|memo| match memo.value {
        WHOLE_JOB => JobCharge::Whole,
        _ => JobCharge::ByAsset,
    });
    let asset_charged =
        job.is_some() && !asset_id.is_empty() && get(job_key(wallet_id, job_id, asset_id)).is_some();
    let is_counted = memo.is_some_and(|memo| memo.value != JOB_REFUSED_BY_ASSET);
    JobHistory { job, asset_charged, is_counted }
}

/// The first day that is remembered at a reading of the clock.
pub fn first_day(clock: ShardClock, rules: &TimeRules) -> i32 {
    day(clock.0.plus_millis(-rules.horizon_ms))
}

fn day(at: Timestamp) -> i32 {
    i32::try_from(at.day_number()).unwrap_or(i32::MIN)
}
