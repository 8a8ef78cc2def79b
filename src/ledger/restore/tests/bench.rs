//! A restorer of shards upon topics that a test writes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::super::{RestoreError, Restored, Restorer};
use super::topics::Topics;
use super::{POSTED_AT, entry, posted_at};
use crate::config::Config;
use crate::ledger::TimeRules;
use crate::ledger::identity_store::Maintenance;
use crate::ledger::progress::{ShardProgress, shard_key};
use crate::ledger::routes::Routes;
use crate::ledger::shard::ShardState;
use crate::ledger::store::{LocalStore, encode, write};
use crate::rate::Pricing;
use crate::time::{ShardClock, Timestamp};
use crate::wallet::{Policy, Wallet, WalletSnapshot};

pub const LEDGER: &str = "credits.ledger";
pub const WALLETS: &str = "credits.wallets";
pub const PROGRESS: &str = "credits.progress";
pub const SHARDS: i32 = 4;

/// What restores, in topics that are empty at first.
pub struct Bench {
    pub topics: Topics,
    pub routes: Routes,
    pub policy: Policy,
    pub time: TimeRules,
    pub maintenance: Maintenance,
    pub folder: tempfile::TempDir,
    pub parked: BTreeMap<i32, ShardState>,
    /// The shards are given to others once this time has passed.
    pub wanted_until: Duration,
    /// How often was asked whether they still are wanted.
    pub asked: Cell<u32>,
}

impl Bench {
    pub fn new() -> Bench {
        let config = Config::default();
        Bench {
            topics: Topics::default(),
            routes: Routes {
                topics: Vec::new(),
                shards: SHARDS,
                out: config.topics.clone(),
                ledger_id: "ledger".to_owned(),
            },
            policy: Policy::new(&config, Pricing::built_in().unwrap().into()),
            time: TimeRules::new(&config.clock),
            maintenance: Maintenance::start().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            parked: BTreeMap::new(),
            wanted_until: Duration::MAX,
            asked: Cell::new(0),
        }
    }

    pub fn store(&self) -> LocalStore<'_> {
        LocalStore {
            folder: Some(self.folder.path()),
            maintenance: &self.maintenance,
            recent_max: 1_000,
            horizon_days: 35,
            ledger_id: "ledger",
        }
    }

    pub fn restorer<R>(&self, with: impl FnOnce(&Restorer<'_, Topics>) -> R) -> R {
        let alive = || {
            self.asked.set(self.asked.get() + 1);
            let is_wanted = self.topics.lock().passed <= self.wanted_until;
            if is_wanted { Ok(()) } else { Err(RestoreError::Superseded) }
        };
        let Bench { topics, routes, time, policy, .. } = self;
        with(&Restorer::new(topics, routes, *time, "group", policy, self.store(), &alive).unwrap())
    }

    pub fn restore(&mut self, shards: &[i32]) -> Result<Restored, RestoreError> {
        let mut parked = std::mem::take(&mut self.parked);
        let restored = self.restorer(|restorer| restorer.restore(shards, &mut parked, shards));
        self.parked = parked;
        restored
    }

    /// The one shard, restored.
    pub fn shard(&mut self, shard: i32) -> Result<ShardState, String> {
        let restored = self.restore(&[shard]).unwrap();
        restored.shards.into_values().next().unwrap()
    }

    pub fn put(&self, topic: &str, shard: i32, key: &str, value: &str) {
        self.topics.put(topic, shard, posted_at().millis(), key, Some(value));
    }

    pub fn put_entry(&self, shard: i32, seq: u64) {
        let value =
            format!(r#"{{"v":1,"wallet_id":"ws_1","entries":[{}]}}"#, entry(seq, POSTED_AT, "noted", ""));
        self.put(LEDGER, shard, "ws_1", &value);
    }

    pub fn put_snapshot(&self, shard: i32, wallet: &Wallet) {
        let snapshot = WalletSnapshot::of("ws_1", wallet, ShardClock(posted_at()), &self.policy.pricing);
        self.put(WALLETS, shard, "ws_1", &serde_json::to_string(&snapshot).unwrap());
    }

    pub fn put_progress(&self, shard: i32, progress: &ShardProgress) {
        self.put(PROGRESS, shard, &shard_key(shard), &serde_json::to_string(progress).unwrap());
    }

    pub fn progress(&self, clock: Timestamp) -> ShardProgress {
        ShardProgress {
            v: 1,
            batch: 7,
            clock,
            group: "group".to_owned(),
            config_hash: self.policy.hash_up_to(ShardClock(clock)).to_owned(),
            origins: Vec::new(),
            cuts: 0,
        }
    }

    /// A shard that was kept at entry `seq` of `ws_1`, and at a position.
    pub fn kept(&self, shard: i32, seq: u64, position: i64) -> ShardState {
        let mut state = self.store().empty_shard(shard);
        let handle = state.wallets.handle("ws_1");
        state.wallets.put(handle, &wallet(seq));
        state.ledger_position = position;
        state
    }

    pub fn keep_on_disk(&self, state: &ShardState) {
        write(self.folder.path(), state.shard, &encode(state, "ledger").unwrap()).unwrap();
    }

    pub fn is_on_disk(&self, shard: i32) -> bool {
        Path::new(self.folder.path()).join(format!("shard-{shard}.checkpoint")).exists()
    }

    pub fn reads(&self, topic: &str) -> Vec<(i32, i64)> {
        let state = self.topics.lock();
        let of_topic = state.reads.iter().filter(|(of, _, _)| of == topic);
        of_topic.map(|(_, partition, from)| (*partition, *from)).collect()
    }
}

pub fn wallet(seq: u64) -> Wallet {
    Wallet { seq, updated_at: posted_at(), ..Wallet::default() }
}

pub fn seq(state: &ShardState) -> Option<u64> {
    state.wallets.get_by_id("ws_1").map(|wallet| wallet.seq)
}

/// What `restore` says where it must fail.
pub fn refusal(restored: Result<Restored, RestoreError>) -> RestoreError {
    restored.err().expect("it must fail")
}
