//! A shard that is being restored: the fold of its ledger upon what it began with.
//!
//! **Invariant:** what was kept of a shard stands only as far as the ledger shows it.

use std::time::Duration;

use tracing::warn;

use super::super::memory::{job_of_record, remember_event_of, remember_job};
use super::super::shard::{Handles, ShardState};
use super::super::wallets::Handle;
use super::gathered::ReadRecord;
use crate::fault::planted;
use crate::time::Timestamp;
use crate::wallet::{Breach, Entry, FoldError, LedgerRecord, Policy, Wallet, WalletSnapshot};

/// After so many records is looked whether identities have to go to the disk.
const MAINTAIN_EVERY: usize = 8_192;

/// A shard that is being restored.
pub(super) struct Begun {
    pub(super) state: ShardState,
    /// It began with the wallets' snapshots, which hold neither reservations nor identities.
    pub(super) needs_snapshots: bool,
    /// Wallets whose last entry, as it was kept or saved, was met in the ledger, or that have gone on since.
    pub(super) shown: Handles,
    /// Entries that were posted then or later are read, if they are there.
    pub(super) read_since: Timestamp,
    /// The ledger ends before what was kept of the shard: nothing that could be read anew makes that good.
    pub(super) cut: Option<String>,
    /// Records since that was looked at last.
    pub(super) unkept: usize,
    /// What lies before this day is forgotten.
    pub(super) first_day: i32,
    pub(super) contradiction: Option<String>,
    /// Entries of the ledger so far.
    pub(super) folded: Folded,
}

/// What a person can do about a ledger that was cut.
fn way_out(shard: i32) -> String {
    format!(
        "entries were lost, or never written; if they cannot be brought back, stop all instances and run `creditstream \
         accept ledger --partition {shard}`, but first see CreditstreamShardStopped in docs/runbooks.md"
    )
}

/// Entries that were read, and those among them that the wallets had in them already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    pub(super) entries: u64,
    pub(super) doubles: u64,
}

impl Begun {
    /// Judges where the ledger begins and ends against what was kept.
    pub(super) fn compare_with_ends(&mut self, first: i64, end: i64) {
        let position = self.state.ledger_position;
        if self.needs_snapshots {
            return;
        }
        if end < position {
            self.cut = Some(format!(
                "the ledger ends at offset {end}, and was read up to {position} before; {}",
                way_out(self.state.shard)
            ));
        } else if first > position {
            self.contradiction = Some(format!(
                "the ledger begins at offset {first}, what was kept goes up to {position} only"
            ));
        }
    }

    /// Takes in a wallet's latest state.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn take_snapshot(&mut self, record: &ReadRecord<'_>) -> Result<(), String> {
        let Some(value) = record.value else {
            // Its entries were cut away, all of them.
            let id = record.key.and_then(|key| std::str::from_utf8(key).ok());
            if let Some(handle) = id.and_then(|id| self.state.wallets.find(id)) {
                self.state.wallets.remove(handle);
            }
            return Ok(());
        };
        let snapshot: WalletSnapshot<'_> = crate::json::from_slice(value).map_err(|error| {
            format!("wallet snapshot {}/{} cannot be read: {error}", record.shard, record.offset)
        })?;
        let handle = self.state.wallets.handle(&snapshot.wallet_id);
        self.state.wallets.put(handle, &snapshot.into_wallet());
        Ok(())
    }

    /// Folds a record of the ledger in, and remembers what it is about.
    ///
    /// # Errors
    /// It contradicts what was there before.
    pub(super) fn fold_record(&mut self, record: &ReadRecord<'_>, horizon_days: i32) -> Result<(), String> {
        let place = || format!("ledger {}/{}", record.shard, record.offset);
        let value = record.value.ok_or_else(|| format!("{}: a tombstone in the ledger", place()))?;
        let read = LedgerRecord::decode(value).map_err(|error| format!("{}: {error}", place()))?;
        let handle = self.state.wallets.handle(&read.wallet_id);
        self.folded.entries += read.entries.len() as u64;
        if self.changes_nothing(handle, &read) {
            self.folded.doubles += read.entries.len() as u64;
        } else {
            self.fold_into_wallet(handle, &read, horizon_days)
                .map_err(|why| format!("{}: {why}", place()))?;
        }
        self.remember(&read).map_err(|breach| breach.to_string())?;
        self.unkept += 1;
        if self.unkept >= MAINTAIN_EVERY {
            self.unkept = 0;
            self.maintain();
        }
        Ok(())
    }

    /// Most of what is read where a wallet's latest state is there already: before it, and about no reservation. For that
    /// the wallet need not be unpacked.
    fn changes_nothing(&self, handle: Handle, read: &LedgerRecord<'_>) -> bool {
        let known = self.state.wallets.seq(handle);
        let is_before =
            |entry: &Entry<'_>| entry.seq < known && !(self.needs_snapshots && entry.moves_hold());
        read.entries.iter().all(is_before)
    }

    fn fold_into_wallet(
        &mut self,
        handle: Handle,
        read: &LedgerRecord<'_>,
        horizon_days: i32,
    ) -> Result<(), String> {
        let mut wallet = self.state.wallets.get(handle).unwrap_or_default();
        let mut has_news = false;
        for entry in &read.entries {
            self.compare_with_kept(handle, &wallet, entry)?;
            match wallet.fold(entry, read.clock_day()) {
                Ok(()) => has_news = true,
                Err(FoldError::Double { .. }) => {
                    self.folded.doubles += 1;
                    if self.needs_snapshots {
                        wallet.fold_hold_of_known(entry);
                    }
                }
                Err(error) => return Err(format!("wallet {}: {error}", read.wallet_id)),
            }
        }
        if has_news {
            wallet.end_unit(read.clock_day().saturating_sub(horizon_days));
            self.state.unsaved.insert(handle);
        }
        if has_news || self.needs_snapshots {
            self.state.wallets.put(handle, &wallet);
        }
        Ok(())
    }

    /// What was kept may hold what the ledger does not: a batch that the broker said was committed and that was aborted all
    /// the same, or lost with its leader. What it made a wallet of would go on, and its events would count as known.
    fn compare_with_kept(
        &mut self,
        handle: Handle,
        wallet: &Wallet,
        entry: &Entry<'_>,
    ) -> Result<(), String> {
        if entry.seq < wallet.seq {
            return Ok(());
        }
        let is_first = self.shown.insert(handle);
        if self.needs_snapshots || !is_first || planted!(TrustWhatIsKept) {
            return Ok(());
        }
        let sums = (wallet.balance(), wallet.held, wallet.overdraft, wallet.updated_at);
        let is_same = sums == (entry.balance_after, entry.held_after, entry.overdraft_after, entry.posted_at);
        let is_passed_over = entry.seq > wallet.seq && self.state.changed.contains_key(&handle);
        if is_passed_over || (entry.seq == wallet.seq && !is_same) {
            return Err(self.not_in_the_ledger(handle));
        }
        Ok(())
    }

    fn not_in_the_ledger(&self, handle: Handle) -> String {
        let Wallet { seq, updated_at, .. } = self.state.wallets.get(handle).unwrap_or_default();
        let id = self.state.wallets.id(handle);
        format!("wallet {id}: entry {seq} as it was kept, posted at {updated_at}, is not there")
    }

    fn remember(&mut self, record: &LedgerRecord<'_>) -> Result<(), Breach> {
        let (recent, older) = self.state.identities.in_place();
        remember_event_of(recent, record);
        let Some(name) = job_of_record(record) else { return Ok(()) };
        remember_job(recent, record, &name, None, self.first_day, |recent, key| {
            let memo = match recent.get(key) {
                Some(memo) => Some(memo),
                None => older.get(key).map_err(|error| Breach {
                    seq: 0,
                    what: format!("the local store of remembered identities cannot be read: {error}"),
                })?,
            };
            Ok(memo.map(|memo| (memo.day, memo.value.into_owned())))
        })
    }

    /// Lets identities go to the disk, and waits for it where they come faster.
    fn maintain(&mut self) {
        loop {
            if let Err(error) = self.state.identities.maintain() {
                warn!(%error, "remembered identities cannot be written: they stay in memory");
                return;
            }
            if !self.state.identities.is_behind() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The restored shard, if its wallets hold together.
    pub(super) fn finish(mut self, policy: &Policy) -> Result<ShardState, String> {
        self.contradiction.take().map_or(Ok(()), Err)?;
        self.maintain();
        if !self.needs_snapshots && !planted!(TrustWhatIsKept) {
            // In the order of handles: what is said must not depend on a hash.
            let lacking = self.state.changed.keys().filter(|handle| !self.shown.contains(*handle)).min();
            if let Some(handle) = lacking {
                return Err(self.not_in_the_ledger(*handle));
            }
        }
        self.state.changed.clear();
        if self.needs_snapshots {
            for handle in self.state.wallets.handles() {
                let wallet = self.state.wallets.get(handle).unwrap_or_default();
                if wallet.updated_at >= self.read_since && !self.shown.contains(&handle) {
                    return Err(format!(
                        "wallet {}: its latest state covers entry {}, posted at {}, but the ledger ends before it; {}",
                        self.state.wallets.id(handle),
                        wallet.seq,
                        wallet.updated_at,
                        way_out(self.state.shard)
                    ));
                }
                if wallet.holds.sum() != wallet.held {
                    return Err(format!(
                        "wallet {}: {} credits are held, its open reservations in the ledger make {}",
                        self.state.wallets.id(handle),
                        wallet.held,
                        wallet.holds.sum()
                    ));
                }
            }
        }
        self.state.index(policy);
        Ok(self.state)
    }
}
