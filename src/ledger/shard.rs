//! State of a shard, and the overlay of a batch upon it.
//!
//! **Invariant:** [`ShardState`] holds what is committed and nothing else (but for the timers of [`WalletTable`], which
//! an abort puts back). A batch writes into an [`Overlay`]; the next batch may read through it while it is being
//! committed; only the commit's return merges it.

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use super::TimeRules;
use super::clock::ClockState;
use super::identity_store::{IdentityStore, Memo, Recent};
use super::memory::{Found, first_day};
use super::needs::{Needs, Urgency};
use super::progress::OriginProgress;
use super::report::{Standing, Standings};
use super::wallets::{Handle, WalletTable};
use crate::event::IdentityKey;
use crate::time::{ShardClock, Timestamp};
use crate::wallet::{Breach, Policy, Wallet, next_due};

/// Wallets that become state, and are fetched into the processor's cache, at a time.
const APPLIED_AT_ONCE: usize = 16;

/// Sets of wallets.
pub type Handles = HashSet<Handle, FxBuildHasher>;

/// What is committed.
#[derive(Debug)]
pub struct ShardState {
    /// Its number: the partition of the ledger.
    pub shard: i32,
    /// Its wallets.
    pub wallets: WalletTable,
    /// How many of them have which plan and level.
    pub standings: Standings,
    /// Those that are low or worse.
    pub needs: Needs,
    /// Those whose latest state is not in `credits.wallets` yet. Kept through checkpoints and restores, for a
    /// snapshot that lags behind for longer than the horizon could not be completed from the ledger's tail.
    pub unsaved: Handles,
    /// Events and jobs of the horizon.
    pub identities: IdentityStore,
    /// Clock and positions.
    pub head: ShardHead,
    /// Every entry below this offset of the ledger partition is folded in. A lower bound.
    pub ledger_position: i64,
    /// Wallets that batches sent after that position was asked for have changed, and the last of these batches: their
    /// last entries lie above it.
    pub changed: HashMap<Handle, u64, FxBuildHasher>,
    /// Wallets that such batches have saved. Where the shard is read again they count as unsaved: a batch that only
    /// saved leaves nothing in the ledger by which its loss would show.
    pub saved: HashMap<Handle, u64, FxBuildHasher>,
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
    /// How often a cut of its ledger was accepted.
    pub cuts: u32,
}

/// What a batch changes. Emptied, it serves a later batch: growing all of it anew would cost more than filling it.
#[derive(Debug)]
pub struct Overlay {
    /// Wallets as they will be.
    pub wallets: HashMap<Handle, Box<Touched>, FxBuildHasher>,
    /// Identities to be remembered.
    pub identities: Recent,
    /// Clock and positions as they will be.
    pub head: ShardHead,
    /// Wallets that are written to `credits.wallets` with this batch.
    pub saved: Handles,
}

/// A wallet that a batch works on.
#[derive(Debug)]
pub struct Touched {
    /// As it will be.
    pub wallet: Wallet,
    /// When something of it was due before the batch.
    due_before: Option<Timestamp>,
    /// What it counted as before the batch; `None`: it is new.
    standing_before: Option<Standing>,
}

/// A shard with the batches under way.
#[derive(Debug)]
pub struct ShardSlot {
    /// What is committed, but for `landed`.
    pub state: ShardState,
    /// A batch that is committed and not in `state` yet. Nothing is computed while there is one.
    landed: Option<Overlay>,
    /// The batch that is being committed.
    pub pending: Option<Overlay>,
    /// The batch that is being computed.
    pub current: Option<Overlay>,
    /// Empty overlays.
    spare: Vec<Overlay>,
    /// The wallet that was the last to be saved.
    saved_last: Option<Handle>,
}

/// A shard as the batch under computation sees and changes it.
pub struct ShardView<'s> {
    state: &'s mut ShardState,
    pending: Option<&'s Overlay>,
    /// What this batch changes.
    pub current: &'s mut Overlay,
}

impl ShardState {
    /// A shard that nothing ever happened in.
    pub fn empty(shard: i32, identities: IdentityStore) -> ShardState {
        let clock = ClockState::new(ShardClock(Timestamp::MIN));
        ShardState {
            shard,
            wallets: WalletTable::default(),
            standings: Standings::default(),
            needs: Needs::default(),
            unsaved: Handles::default(),
            identities,
            head: ShardHead { batch: 0, clock, origins: Vec::new(), cuts: 0 },
            ledger_position: 0,
            changed: HashMap::default(),
            saved: HashMap::default(),
        }
    }

    /// Wallets whose latest state may not be in `credits.wallets`, should the batches since the position be lost.
    pub fn maybe_unsaved(&self) -> impl Iterator<Item = Handle> {
        let saved = self.saved.keys().filter(|handle| !self.unsaved.contains(*handle));
        self.unsaved.iter().chain(saved).copied()
    }

    /// Draws up timers, standings and needs from the wallets, once all of them are there.
    pub fn index(&mut self, policy: &Policy) {
        self.standings = Standings::default();
        self.needs = Needs::default();
        let handles: Vec<Handle> = self.wallets.handles().collect();
        for handle in handles {
            if let Some(wallet) = self.wallets.get(handle) {
                self.standings.count(Some(&wallet), 1);
                self.wallets.set_due(handle, next_due(&wallet, policy));
                self.needs.set(handle, Urgency::of(&wallet));
            }
        }
    }
}

impl Touched {
    /// Reaches for it: see [`ShardSlot::fetch`].
    fn fetch(&self) {
        let Wallet { seq, contracts, grants, holds, pace, buckets, .. } = &self.wallet;
        let contract = contracts.first().map(|contract| contract.granted.len());
        let grant = grants.first().map(|grant| grant.seq);
        std::hint::black_box((*seq, contract, grant, holds.len(), pace.is_some(), buckets.len()));
    }
}

impl ShardSlot {
    /// With nothing under way.
    pub fn new(state: ShardState) -> ShardSlot {
        ShardSlot { state, landed: None, pending: None, current: None, spare: Vec::new(), saved_last: None }
    }

    /// Looks at the state that some records will need. One by one each look-up would wait for memory; in loops, where none
    /// needs the answer of another, the processor waits for many at once. The shorter a loop, the more: so first all
    /// identities, table by table, then the wallets. Which of the identities may be remembered from the batches before: the
    /// others surely are not.
    pub fn fetch<'w>(
        &self,
        identities: &[IdentityKey],
        wallet_ids: impl Iterator<Item = &'w str>,
    ) -> Vec<bool> {
        let mut may_be_known = self.state.identities.fetch(identities);
        let handles = self.state.wallets.fetch(wallet_ids, usize::MAX);
        if let Some(pending) = &self.pending {
            pending.identities.mark(identities, &mut may_be_known);
            handles
                .iter()
                .filter_map(|handle| pending.wallets.get(handle))
                .for_each(|touched| touched.fetch());
        }
        may_be_known
    }

    /// Begins the overlay of a batch, or goes on with it.
    pub fn view(&mut self) -> ShardView<'_> {
        debug_assert!(self.landed.is_none(), "the batch before the last is not applied yet");
        let before = self.pending.as_ref().map_or(&self.state.head, |pending| &pending.head);
        let current = self.current.get_or_insert_with(|| {
            let head = ShardHead { batch: before.batch + 1, ..before.clone() };
            match self.spare.pop() {
                Some(spare) => Overlay { head, ..spare },
                None => Overlay {
                    wallets: HashMap::default(),
                    identities: Recent::new(),
                    head,
                    saved: Handles::default(),
                },
            }
        });
        ShardView { state: &mut self.state, pending: self.pending.as_ref(), current }
    }

    /// Number of the last batch that was sent.
    pub fn last_sent(&self) -> u64 {
        self.pending.as_ref().map_or(&self.state.head, |pending| &pending.head).batch
    }

    /// The clock as the newest batch under way leaves it.
    pub fn clock(&self) -> ShardClock {
        let newest = self.current.as_ref().or(self.pending.as_ref());
        newest.map_or(&self.state.head, |overlay| &overlay.head).clock.now()
    }

    /// Whether something is due by now.
    pub fn has_due(&self) -> bool {
        self.state.wallets.first_due().is_some_and(|(due, _)| due <= self.clock().0)
    }

    /// Hands the computed batch over to be committed.
    pub fn send(&mut self) {
        debug_assert!(self.pending.is_none(), "the batch before has neither landed nor was it dropped");
        self.pending = self.current.take();
    }

    /// The batch was committed.
    pub fn land(&mut self) {
        debug_assert!(self.landed.is_none(), "two batches landed at once");
        self.landed = self.pending.take();
    }

    /// What has landed becomes state. Returns how the standings changed.
    pub fn apply(&mut self, rules: &TimeRules) -> Standings {
        let mut change = Standings::default();
        let Some(mut overlay) = self.landed.take() else { return change };
        let mut touched = overlay.wallets.drain();
        let mut lot: Vec<(Handle, Box<Touched>)> = Vec::with_capacity(APPLIED_AT_ONCE);
        loop {
            lot.extend(touched.by_ref().take(APPLIED_AT_ONCE));
            if lot.is_empty() {
                break;
            }
            lot.iter().for_each(|(_, touched)| touched.fetch());
            self.state.wallets.fetch_packed(lot.iter().map(|(handle, _)| *handle), usize::MAX);
            for (handle, touched) in lot.drain(..) {
                // Nothing was posted to it: an event was rejected. No entry would show that it has changed.
                if touched.wallet.seq == self.state.wallets.seq(handle) {
                    continue;
                }
                self.state.needs.set(handle, Urgency::of(&touched.wallet));
                change.move_one(touched.standing_before, &touched.wallet);
                self.state.wallets.put(handle, &touched.wallet);
                self.state.unsaved.insert(handle);
                self.state.changed.insert(handle, overlay.head.batch);
            }
        }
        drop(touched);
        for handle in overlay.saved.drain() {
            self.state.unsaved.remove(&handle);
            self.state.saved.insert(handle, overlay.head.batch);
        }
        self.state.standings.add(&change, 1);
        self.state.identities.absorb(&overlay.identities);
        overlay.identities.clear();
        self.state.head.clone_from(&overlay.head);
        self.spare.push(overlay);
        self.state.identities.forget_before(first_day(self.state.head.clock.now(), rules));
        change
    }

    /// Wallets whose latest state is not in `credits.wallets`, batches under way included.
    fn unsaved(&self) -> impl Iterator<Item = Handle> + '_ {
        let is_new = |handle: &Handle| {
            let in_current =
                self.current.as_ref().is_some_and(|current| current.wallets.contains_key(handle));
            let saved = self.pending.as_ref().is_some_and(|pending| pending.saved.contains(handle));
            in_current || !saved
        };
        let touched = |overlay: &'_ Option<Overlay>| -> Vec<Handle> {
            let wallets = overlay.iter().flat_map(|overlay| &overlay.wallets);
            wallets.filter(|(_, touched)| touched.wallet.seq > 0).map(|(handle, _)| *handle).collect()
        };
        let committed = self.state.unsaved.iter().copied();
        let in_pending = touched(&self.pending).into_iter();
        let in_current = touched(&self.current).into_iter();
        let others = in_pending.chain(in_current).filter(|handle| !self.state.unsaved.contains(handle));
        committed.chain(others).filter(is_new)
    }

    /// Those that are to be saved next, at most `most`. They take turns by their handles: wallets that change all the time
    /// keep no others from being saved.
    pub fn next_unsaved(&mut self, most: usize) -> Vec<Handle> {
        let mut unsaved: Vec<Handle> = self.unsaved().collect();
        unsaved.sort_unstable();
        unsaved.dedup();
        let from = unsaved.partition_point(|handle| Some(*handle) <= self.saved_last);
        unsaved.rotate_left(from);
        unsaved.truncate(most);
        self.saved_last = unsaved.last().copied().or(self.saved_last);
        unsaved
    }

    /// Whether there is any such wallet.
    pub fn has_unsaved(&self) -> bool {
        self.unsaved().next().is_some()
    }

    /// A wallet as the newest batch under way leaves it.
    pub fn with_wallet<R>(&self, handle: Handle, read: impl FnOnce(&str, &Wallet) -> R) -> Option<R> {
        let id = self.state.wallets.id(handle);
        let overlays = [self.current.as_ref(), self.pending.as_ref()];
        let touched = overlays.into_iter().flatten().find_map(|overlay| overlay.wallets.get(&handle));
        match touched {
            Some(touched) => Some(read(id, &touched.wallet)),
            None => self.state.wallets.get(handle).map(|wallet| read(id, &wallet)),
        }
    }

    /// The batch was not committed, or nobody knows: all that is under way is dropped.
    pub fn drop_overlays(&mut self) {
        // The newer first: what it found was what the older one left.
        for overlay in [self.current.take(), self.pending.take()].into_iter().flatten() {
            for (handle, touched) in overlay.wallets {
                self.state.wallets.set_due(handle, touched.due_before);
            }
        }
    }
}

impl ShardView<'_> {
    /// The clock, as this batch has moved it.
    pub fn clock(&self) -> ShardClock {
        self.current.head.clock.now()
    }

    /// What is remembered of an identity. `may_be_known`: as [`ShardSlot::fetch`] has found.
    ///
    /// # Errors
    /// The local store cannot be read.
    pub fn memo(&self, key: IdentityKey, may_be_known: bool) -> Found {
        look_up(self.state, self.pending, &self.current.identities, key, may_be_known)
    }

    /// The identities of this batch, to be added to, and a look-up through them of all that is remembered.
    pub fn identities(&mut self) -> (&mut Recent, impl Fn(&Recent, IdentityKey, bool) -> Found + '_) {
        let (state, pending) = (&*self.state, self.pending);
        let get =
            move |current: &Recent, key, may_be_known| look_up(state, pending, current, key, may_be_known);
        (&mut self.current.identities, get)
    }

    /// The wallet to be worked on.
    pub fn touch(&mut self, handle: Handle) -> &mut Wallet {
        let (state, pending) = (&*self.state, self.pending);
        let touched = self.current.wallets.entry(handle).or_insert_with(|| {
            let in_pending = pending.and_then(|pending| pending.wallets.get(&handle));
            let known = match in_pending {
                Some(touched) => Some(touched.wallet.clone()).filter(|wallet| wallet.seq > 0),
                None => state.wallets.get(handle),
            };
            Box::new(Touched {
                due_before: state.wallets.due(handle),
                standing_before: known.as_ref().map(Standing::of),
                wallet: known.unwrap_or_default(),
            })
        });
        &mut touched.wallet
    }

    /// The handle of a wallet.
    pub fn handle(&mut self, wallet_id: &str) -> Handle {
        self.state.wallets.handle(wallet_id)
    }

    /// The id of a wallet.
    pub fn id(&self, handle: Handle) -> &str {
        self.state.wallets.id(handle)
    }

    /// When something of a wallet is due next.
    pub fn due(&self, handle: Handle) -> Option<Timestamp> {
        self.state.wallets.due(handle)
    }

    /// The wallet for which something is due first, and when.
    pub fn first_due(&self) -> Option<(Timestamp, Handle)> {
        self.state.wallets.first_due()
    }

    /// Sets when something is due next for a wallet that this batch works on.
    pub fn set_due(&mut self, handle: Handle, due: Option<Timestamp>) {
        self.state.wallets.set_due(handle, due);
    }
}

fn look_up(
    state: &ShardState,
    pending: Option<&Overlay>,
    current: &Recent,
    key: IdentityKey,
    may_be_known: bool,
) -> Found {
    let own = |memo: Memo<'_>| (memo.day, memo.value.into_owned());
    if let Some(memo) = current.get(key) {
        return Ok(Some(own(memo)));
    }
    if !may_be_known {
        return Ok(None);
    }
    if let Some(memo) = pending.and_then(|pending| pending.identities.get(key)) {
        return Ok(Some(own(memo)));
    }
    let committed = state.identities.get(key).map_err(|error| Breach {
        seq: 0,
        what: format!("the local store of remembered identities cannot be read: {error}"),
    })?;
    Ok(committed.map(own))
}
