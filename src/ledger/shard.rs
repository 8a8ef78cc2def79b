//! State of a shard, and the overlay of a batch upon it.
//!
//! **Invariant:** [`ShardState`] holds what is committed and nothing else. A batch writes into an [`Overlay`];
//! the next batch may read through it while it is being committed; only the commit's return merges it.

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use super::TimeRules;
use super::clock::ClockState;
use super::identities::{Identities, Memo, first_day};
use super::progress::OriginProgress;
use crate::event::IdentityKey;
use crate::time::ShardClock;
use crate::wallet::Wallet;

/// Wallets by id.
pub type Wallets = HashMap<Box<str>, Box<Wallet>, FxBuildHasher>;
/// Ids of wallets.
pub type WalletIds = HashSet<Box<str>, FxBuildHasher>;

/// What is committed.
#[derive(Clone, Debug)]
pub struct ShardState {
    /// Its number: the partition of the ledger.
    pub shard: i32,
    /// Its wallets.
    pub wallets: Wallets,
    /// Those whose latest state is not in `credits.wallets` yet. Kept through checkpoints and restores, for a
    /// snapshot that lags behind for longer than the horizon could not be completed from the ledger's tail.
    pub unsaved: WalletIds,
    /// Events and jobs of the horizon.
    pub identities: Identities,
    /// Clock and positions.
    pub head: ShardHead,
    /// Every entry below this offset of the ledger partition is folded in. A lower bound.
    pub ledger_position: i64,
}

/// The small part of a shard's state; copied into each overlay.
#[derive(Clone, Debug)]
pub struct ShardHead {
    /// Batches so far.
    pub batch: u64,
    /// Clock.
    pub clock: ClockState,
    /// Last offset processed of each partition met through intake.
    pub origins: Vec<OriginProgress>,
}

/// What a batch changes.
#[derive(Debug)]
pub struct Overlay {
    /// Wallets as they will be.
    pub wallets: Wallets,
    /// Identities to be remembered.
    pub identities: Identities,
    /// Clock and positions as they will be.
    pub head: ShardHead,
    /// All unsaved wallets are written with this batch.
    pub saves_wallets: bool,
}

/// A shard with the batches under way.
pub struct ShardSlot {
    /// What is committed.
    pub state: ShardState,
    /// The batch that is being committed.
    pub pending: Option<Overlay>,
    /// The batch that is being computed.
    pub current: Option<Overlay>,
    /// Day before which identities were forgotten last.
    forgotten_before: i32,
}

/// A shard as the batch under computation sees and changes it.
pub struct ShardView<'s> {
    state: &'s ShardState,
    pending: Option<&'s Overlay>,
    /// What this batch changes.
    pub current: &'s mut Overlay,
}

impl ShardState {
    /// A shard that nothing ever happened in.
    pub fn empty(shard: i32) -> ShardState {
        let clock = ClockState::new(ShardClock(crate::time::Timestamp::MIN));
        ShardState {
            shard,
            wallets: Wallets::default(),
            unsaved: WalletIds::default(),
            identities: Identities::default(),
            head: ShardHead { batch: 0, clock, origins: Vec::new() },
            ledger_position: 0,
        }
    }
}

impl ShardSlot {
    /// With nothing under way.
    pub fn new(state: ShardState) -> ShardSlot {
        ShardSlot { state, pending: None, current: None, forgotten_before: i32::MIN }
    }

    /// Begins the overlay of a batch, or goes on with it.
    pub fn view(&mut self) -> ShardView<'_> {
        let before = self.pending.as_ref().map_or(&self.state.head, |pending| &pending.head);
        let current = self.current.get_or_insert_with(|| Overlay {
            wallets: Wallets::default(),
            identities: Identities::default(),
            head: ShardHead { batch: before.batch + 1, ..before.clone() },
            saves_wallets: false,
        });
        ShardView { state: &self.state, pending: self.pending.as_ref(), current }
    }

    /// Hands the computed batch over to be committed.
    pub fn send(&mut self) {
        debug_assert!(self.pending.is_none(), "the batch before was neither applied nor dropped");
        self.pending = self.current.take();
    }

    /// The batch was committed: it becomes state. `each` sees every wallet before and after.
    pub fn apply(&mut self, rules: &TimeRules, mut each: impl FnMut(Option<&Wallet>, &Wallet)) {
        let Some(overlay) = self.pending.take() else { return };
        if overlay.saves_wallets {
            self.state.unsaved.clear();
        }
        for (id, wallet) in overlay.wallets {
            each(self.state.wallets.get(&id).map(|before| &**before), &wallet);
            if !overlay.saves_wallets && !self.state.unsaved.contains(&id) {
                self.state.unsaved.insert(id.clone());
            }
            self.state.wallets.insert(id, wallet);
        }
        self.state.identities.absorb(overlay.identities);
        self.state.head = overlay.head;
        let first_day = first_day(self.state.head.clock.now(), rules);
        if first_day > self.forgotten_before {
            self.state.identities.forget_before(first_day);
            self.forgotten_before = first_day;
        }
    }

    /// Whether any wallet's latest state is not in `credits.wallets`, batches under way included.
    pub fn has_unsaved(&self) -> bool {
        let pending = self.pending.as_ref();
        let saved_by_pending = pending.is_some_and(|pending| pending.saves_wallets);
        let before = !saved_by_pending
            && (!self.state.unsaved.is_empty() || pending.is_some_and(|pending| !pending.wallets.is_empty()));
        before || self.current.as_ref().is_some_and(|current| !current.wallets.is_empty())
    }

    /// Every wallet that must be saved, as the batch under computation leaves it, once.
    pub fn for_each_unsaved(&self, mut each: impl FnMut(&str, &Wallet)) {
        let none = Wallets::default();
        let current = self.current.as_ref().map_or(&none, |current| &current.wallets);
        let pending = self.pending.as_ref().map_or(&none, |pending| &pending.wallets);
        current.iter().for_each(|(id, wallet)| each(id, wallet));
        if self.pending.as_ref().is_some_and(|pending| pending.saves_wallets) {
            return;
        }
        for (id, wallet) in pending.iter().filter(|(id, _)| !current.contains_key(*id)) {
            each(id, wallet);
        }
        for id in
            self.state.unsaved.iter().filter(|id| !current.contains_key(*id) && !pending.contains_key(*id))
        {
            if let Some(wallet) = self.state.wallets.get(id) {
                each(id, wallet);
            }
        }
    }

    /// The batch was not committed, or nobody knows: all that is under way is dropped.
    pub fn drop_overlays(&mut self) {
        self.pending = None;
        self.current = None;
    }
}

impl ShardView<'_> {
    /// What is remembered of an identity.
    pub fn memo(&self, key: IdentityKey) -> Option<Memo> {
        let in_batch = self.current.identities.get(key);
        in_batch
            .or_else(|| self.pending.and_then(|pending| pending.identities.get(key)))
            .or_else(|| self.state.identities.get(key))
    }

    /// A copy of the wallet as the batches before this one leave it, or a new one.
    pub fn committed_wallet(&self, id: &str) -> Box<Wallet> {
        let wallet = self.pending.and_then(|pending| pending.wallets.get(id));
        wallet.or_else(|| self.state.wallets.get(id)).cloned().unwrap_or_default()
    }
}
