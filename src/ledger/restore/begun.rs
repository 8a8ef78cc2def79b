//! A shard that is being restored: the fold of its ledger upon what it began with.
//!
//! **Invariant:** what was kept of a shard stands only as far as the ledger shows it.

use std::time::Duration;

use tracing::warn;

use super::super::identity_store::Met;
use super::super::memory::{day_of, event_of_record, job_of_record, remember_event, remember_job};
use super::super::shard::{Handles, ShardState};
use super::super::wallets::Handle;
use super::gathered::ReadRecord;
use crate::event::{Fingerprint, IdentityKey, JobKeys};
use crate::fault::planted;
use crate::time::Timestamp;
use crate::wallet::{Breach, Entry, FoldError, JobName, LedgerRecord, Policy, Wallet, WalletSnapshot};

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
    /// All jobs that identities were taken in of, where it began without any: most jobs come for the first time, and need not be
    /// looked for anywhere else.
    pub(super) met: Option<Met>,
    pub(super) contradiction: Option<String>,
    /// Entries of the ledger so far.
    pub(super) folded: Folded,
}

/// A record of the ledger, and by what its event and its job are found again.
struct Decoded<'g> {
    shard: i32,
    offset: i64,
    record: LedgerRecord<'g>,
    event: Option<(IdentityKey, Fingerprint)>,
    job: Option<JobKeys>,
}

impl<'g> Decoded<'g> {
    fn of(read: &ReadRecord<'g>) -> Result<Decoded<'g>, String> {
        let place = || place(read.shard, read.offset);
        let value = read.value.ok_or_else(|| format!("{}: a tombstone in the ledger", place()))?;
        let record = LedgerRecord::decode(value).map_err(|error| format!("{}: {error}", place()))?;
        let event = event_of_record(&record);
        let job = job_of_record(&record);
        let job = job.map(|(job_id, asset_id)| JobKeys::of(&record.wallet_id, job_id, asset_id));
        Ok(Decoded { shard: read.shard, offset: read.offset, record, event, job })
    }

    fn place(&self) -> String {
        place(self.shard, self.offset)
    }
}

fn place(shard: i32, offset: i64) -> String {
    format!("ledger {shard}/{offset}")
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

    /// Takes in latest states of wallets.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(super) fn take_snapshots(&mut self, records: &[ReadRecord<'_>]) -> Result<(), String> {
        records.iter().try_for_each(|record| self.take_snapshot(record))
    }

    fn take_snapshot(&mut self, record: &ReadRecord<'_>) -> Result<(), String> {
        let Some(value) = record.value else {
            // Its entries were cut away, all of them.
            let id = record.key.and_then(|key| std::str::from_utf8(key).ok());
            if let Some(handle) = id.and_then(|id| self.state.wallets.find(id)) {
                self.state.wallets.remove(handle);
            }
            return Ok(());
        };
        let snapshot = WalletSnapshot::decode(value).map_err(|error| {
            format!("wallet snapshot {}/{} cannot be read: {error}", record.shard, record.offset)
        })?;
        let handle = self.state.wallets.handle(&snapshot.wallet_id);
        self.state.wallets.put(handle, &snapshot.into_wallet());
        Ok(())
    }

    /// Folds records of the ledger in, and remembers what they are about.
    ///
    /// # Errors
    /// One of them contradicts what was there before.
    pub(super) fn fold_records(
        &mut self,
        records: &[ReadRecord<'_>],
        horizon_days: i32,
    ) -> Result<(), String> {
        let decoded = records.iter().map(Decoded::of);
        let mut sound = Vec::with_capacity(records.len());
        // Up to the first that is none.
        let fault = decoded.map(|one| one.map(|one| sound.push(one))).find_map(Result::err);
        self.fetch(&sound);
        for one in &sound {
            self.fold(one, horizon_days).map_err(|why| format!("{}: {why}", one.place()))?;
        }
        self.unkept += sound.len();
        if self.unkept >= MAINTAIN_EVERY {
            self.unkept = 0;
            self.maintain();
        }
        fault.map_or(Ok(()), Err)
    }

    /// Looks at the state that records will need, as [`super::super::shard::ShardSlot::fetch`] does; of events, which are not
    /// looked up, where they will be put, and of wallets, most of which are not unpacked, where they begin.
    fn fetch(&self, records: &[Decoded<'_>]) {
        let events: Vec<IdentityKey> = records.iter().filter_map(|one| Some(one.event?.0)).collect();
        let jobs: Vec<IdentityKey> =
            records.iter().flat_map(|one| &one.job).flat_map(JobKeys::iter).collect();
        self.state.identities.fetch_recent(&events);
        match &self.met {
            Some(met) => met.fetch(&jobs),
            None => drop(self.state.identities.fetch(&jobs)),
        }
        self.state.wallets.fetch(records.iter().map(|one| &*one.record.wallet_id), 1);
    }

    fn fold(&mut self, one: &Decoded<'_>, horizon_days: i32) -> Result<(), String> {
        let record = &one.record;
        let handle = self.state.wallets.handle(&record.wallet_id);
        self.folded.entries += record.entries.len() as u64;
        if self.changes_nothing(handle, record) {
            self.folded.doubles += record.entries.len() as u64;
        } else {
            self.fold_into_wallet(handle, record, horizon_days)?;
        }
        self.remember(one).map_err(|breach| breach.to_string())
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

    fn remember(&mut self, one: &Decoded<'_>) -> Result<(), Breach> {
        let (recent, older) = self.state.identities.in_place();
        let record = &one.record;
        if let Some((key, fingerprint)) = one.event {
            remember_event(recent, key, fingerprint, day_of(record));
        }
        let Some(((job_id, asset_id), keys)) = job_of_record(record).zip(one.job) else { return Ok(()) };
        let name = JobName::with_keys(&record.wallet_id, job_id, asset_id, keys);
        let met = &mut self.met;
        remember_job(recent, record, &name, None, self.first_day, |recent, key| {
            // Every memo is looked for before it is put there.
            if met.as_mut().is_some_and(|met| !met.meet(key)) {
                return Ok(None);
            }
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

    /// Lets identities go to the disk, and waits for it where they come faster. A disk that fails keeps nobody waiting.
    fn maintain(&mut self) {
        loop {
            if let Err(error) = self.state.identities.maintain_in_bulk() {
                warn!(%error, "remembered identities cannot be written: they stay in memory");
                return;
            }
            if !self.state.identities.is_behind() || !self.state.identities.is_sealing() {
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
