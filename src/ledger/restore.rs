//! Restore and catch-up: a shard's state, read again from the topics.
//!
//! The order matters. The caller has fetched the group's *stable* offsets: no transaction that moves them is open
//! any more. Then the true ends of the shard's partitions are asked from a `read_uncommitted` client; then they
//! are read `read_committed` until the position is there. A read_committed client's own idea of the end is the
//! last stable offset, which may lie before a batch that is committed already but whose marker is on its way.

mod begun;
mod gathered;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator, ParallelExtend, ParallelIterator};
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;
use tracing::{info, warn};

use begun::{Begun, Folded};
use gathered::ReadRecord;

use super::TimeRules;
use super::identity_store::Met;
use super::memory::first_day;
use super::progress::{PartitionProgress, ShardProgress};
use super::routes::Routes;
use super::shard::{Handles, ShardState};
use super::store::LocalStore;
use super::world::{Reader, World};
use crate::fault::planted;
use crate::kafka::{Polled, RecordView};
use crate::time::{DAY_MS, ShardClock, Timestamp};
use crate::wallet::Policy;

/// How long an open transaction is waited for, beyond its own timeout.
const STABLE_PATIENCE: Duration = Duration::from_secs(60);
const PROGRESS_LINE_EVERY: Duration = Duration::from_secs(5);
const ALIVE_EVERY: Duration = Duration::from_millis(200);
/// How long is waited for a record.
const READ_WAIT: Duration = Duration::from_millis(200);
/// Records taken from the client in one call.
const TAKEN_AT_ONCE: usize = 128;
/// Fewer wallets are not worth waking other threads.
const WALLETS_APART_MIN: usize = 2_048;

/// Why a restore did not finish.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The brokers: try again.
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The brokers: try again.
    #[error("{0}")]
    TryAgain(String),
    /// The topics do not fit this instance: somebody has to act.
    #[error("{0}")]
    Refused(String),
    /// The group gives the shards to others, or this instance stops.
    #[error("the shards are not wanted here any more")]
    Superseded,
}

/// Progress of shards, and of partitions, by key.
type ProgressByKey = (HashMap<String, ShardProgress>, HashMap<String, PartitionProgress>);

/// What was read.
pub struct Restored {
    /// Shards; an error is a contradiction that stops that one.
    pub shards: BTreeMap<i32, Result<ShardState, String>>,
    /// Progress of partitions, by key.
    pub partitions: HashMap<String, PartitionProgress>,
}

/// What restoring needs.
pub struct Restorer<'r, W: World> {
    /// Topics.
    pub routes: &'r Routes,
    /// Bounds of time.
    pub time: TimeRules,
    /// Consumer group: progress of another one is refused.
    pub group: &'r str,
    /// Prices and limits.
    pub policy: &'r Policy,
    /// Checkpoints and sealed identities.
    pub store: LocalStore<'r>,
    /// Called about every [`ALIVE_EVERY`]: says that it goes on, and asks whether it still should.
    pub alive: &'r dyn Fn() -> Result<(), RestoreError>,
    /// Reads.
    pub(super) reader: W::Reader,
    world: &'r W,
}

/// A partition to be read from an offset up to an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    partition: i32,
    from: i64,
    to: i64,
}

impl<'r, W: World> Restorer<'r, W> {
    /// Makes its clients.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn new(
        world: &'r W,
        routes: &'r Routes,
        time: TimeRules,
        group: &'r str,
        policy: &'r Policy,
        store: LocalStore<'r>,
        alive: &'r dyn Fn() -> Result<(), RestoreError>,
    ) -> Result<Restorer<'r, W>, RestoreError> {
        let reader = world.reader()?;
        Ok(Restorer { routes, time, group, policy, store, alive, reader, world })
    }

    /// Restores shards, or catches up those that were parked; and reads the progress of `partitions` (by number), which are
    /// also those of the shards.
    ///
    /// # Errors
    /// The brokers do not answer, or progress belongs to another deployment. What had been parked is parked again.
    pub fn restore(
        &self,
        shard_numbers: &[i32],
        parked: &mut BTreeMap<i32, ShardState>,
        partitions: &[i32],
    ) -> Result<Restored, RestoreError> {
        let out = &self.routes.out;
        let holders: BTreeSet<i32> =
            partitions.iter().map(|partition| partition.rem_euclid(self.routes.shards.max(1))).collect();
        let progress_ends = self.stable_ends(&out.progress, &holders.into_iter().collect::<Vec<_>>())?;
        let wallet_ends = self.stable_ends(&out.wallets, shard_numbers)?;
        let ledger_ends = self.stable_ends(&out.ledger, shard_numbers)?;

        let (heads, partitions) = self.read_progress(&progress_ends)?;
        let mut shards = BTreeMap::new();
        let mut left = shard_numbers.to_vec();
        let mut known = self.known(&left, parked);
        while !left.is_empty() {
            let mut states = self.begin(&left, &mut known, &heads)?;
            let read = self.read_states(&mut states, &wallet_ends, &ledger_ends);
            left.clear();
            let mut sound = Vec::new();
            for (shard, mut begun) in states {
                if read.is_err() {
                    // What was folded in so far is committed, and the next try goes on from there. Half of the snapshots, or
                    // half of a horizon's ledger, is no state.
                    if !begun.needs_snapshots {
                        parked.insert(shard, begun.state);
                    }
                } else if let Some(why) = begun.cut.take() {
                    // The checkpoint stays: it is what shows the loss, and the next start must say the same.
                    shards.insert(shard, Err(why));
                } else {
                    sound.push((shard, begun));
                }
            }
            for (shard, was_kept, state) in finished(sound, self.policy) {
                match state {
                    // The ledger is the truth: only what follows from it alone may stop a shard.
                    Err(why) if was_kept => {
                        warn!(
                            shard,
                            why,
                            "what was kept of the shard is not in the ledger: dropped, and read from the topics"
                        );
                        self.store.discard(shard);
                        left.push(shard);
                    }
                    state => drop(shards.insert(shard, state)),
                }
            }
            if let Err(error) = read {
                parked.extend(shards.into_iter().filter_map(|(shard, state)| Some((shard, state.ok()?))));
                return Err(error);
            }
        }
        Ok(Restored { shards, partitions })
    }

    /// Brings all states up to the ends of their partitions.
    fn read_states(
        &self,
        states: &mut BTreeMap<i32, Begun>,
        wallet_ends: &[Stretch],
        ledger_ends: &[Stretch],
    ) -> Result<(), RestoreError> {
        let without_any: BTreeSet<i32> =
            states.iter().filter(|(_, begun)| begun.needs_snapshots).map(|(shard, _)| *shard).collect();
        self.read_snapshots(states, wallet_ends.iter().filter(|end| without_any.contains(&end.partition)))?;
        self.read_ledger(states, ledger_ends)
    }

    /// First offset and true end of each partition, once everything below the end is settled.
    ///
    /// # Errors
    /// As [`Restorer::restore`].
    pub(super) fn stable_ends(&self, topic: &str, partitions: &[i32]) -> Result<Vec<Stretch>, RestoreError> {
        let stretches = self.ends(topic, partitions)?;
        let deadline = self.world.now() + STABLE_PATIENCE;
        for stretch in &stretches {
            if !self.is_settled_by(deadline, topic, stretch)? {
                return Err(RestoreError::TryAgain(format!(
                    "a transaction in {topic}/{} is open for more than {STABLE_PATIENCE:?}: see \
                     CreditstreamRestoreSlow in docs/runbooks.md",
                    stretch.partition
                )));
            }
        }
        Ok(stretches)
    }

    /// Of these partitions those in which something that is there by now is still open at the deadline.
    ///
    /// # Errors
    /// As [`Restorer::restore`].
    pub(super) fn open_after(
        &self,
        deadline: Instant,
        topic: &str,
        partitions: &BTreeSet<i32>,
    ) -> Result<BTreeSet<i32>, RestoreError> {
        let partitions: Vec<i32> = partitions.iter().copied().collect();
        let mut open = BTreeSet::new();
        for stretch in self.ends(topic, &partitions)? {
            if !self.is_settled_by(deadline, topic, &stretch)? {
                open.insert(stretch.partition);
            }
        }
        Ok(open)
    }

    /// First offset and true end of each partition.
    fn ends(&self, topic: &str, partitions: &[i32]) -> Result<Vec<Stretch>, RestoreError> {
        let mut stretches = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let (from, mut to) = self.reader.ends(topic, partition)?;
            if planted!(RestoreToLastStable) {
                to = self.reader.stable_end(topic, partition)?;
            }
            stretches.push(Stretch { partition, from, to });
        }
        Ok(stretches)
    }

    fn is_settled_by(&self, deadline: Instant, topic: &str, stretch: &Stretch) -> Result<bool, RestoreError> {
        while self.reader.stable_end(topic, stretch.partition)? < stretch.to {
            if self.world.now() > deadline {
                return Ok(false);
            }
            (self.alive)()?;
            self.world.sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    fn read_progress(&self, ends: &[Stretch]) -> Result<ProgressByKey, RestoreError> {
        let (mut shards, mut partitions) = (HashMap::new(), HashMap::new());
        let mut fault = None;
        self.read(&self.routes.out.progress, ends, |record| {
            let (Some(key), Some(value)) =
                (record.key.and_then(|key| std::str::from_utf8(key).ok()), record.value)
            else {
                return;
            };
            let result = if key.starts_with("shard/") {
                serde_json::from_slice(value).map(|progress| drop(shards.insert(key.to_owned(), progress)))
            } else {
                serde_json::from_slice(value)
                    .map(|progress| drop(partitions.insert(key.to_owned(), progress)))
            };
            if let Err(error) = result {
                fault = Some(format!("progress record {key} cannot be read: {error}"));
            }
        })?;
        fault.map_or(Ok((shards, partitions)), |fault| Err(RestoreError::Refused(fault)))
    }

    /// Progress of all partitions, also of those that others read.
    ///
    /// # Errors
    /// As [`Restorer::restore`].
    pub fn all_progress(&self) -> Result<HashMap<String, PartitionProgress>, RestoreError> {
        let all: Vec<i32> = (0..self.routes.shards).collect();
        Ok(self.read_progress(&self.stable_ends(&self.routes.out.progress, &all)?)?.1)
    }

    /// What was kept of shards, in memory or else on disk.
    fn known(&self, shards: &[i32], parked: &mut BTreeMap<i32, ShardState>) -> BTreeMap<i32, ShardState> {
        let in_memory = |shard: &i32| Some((*shard, parked.remove(shard)?));
        let mut known: BTreeMap<i32, ShardState> = shards.iter().filter_map(in_memory).collect();
        let others: Vec<i32> = shards.iter().copied().filter(|shard| !known.contains_key(shard)).collect();
        let store = self.store;
        let on_disk = others.into_par_iter().filter_map(|shard| Some((shard, store.load(shard)?)));
        known.par_extend(on_disk);
        known
    }

    /// The state that each shard begins with: the one that was kept, or none.
    fn begin(
        &self,
        shards: &[i32],
        known: &mut BTreeMap<i32, ShardState>,
        heads: &HashMap<String, ShardProgress>,
    ) -> Result<BTreeMap<i32, Begun>, RestoreError> {
        for shard in shards {
            if let Some(progress) = heads.get(&super::progress::shard_key(*shard)) {
                self.check_progress(*shard, progress)?;
            }
        }
        let mut states = BTreeMap::new();
        for &shard in shards {
            let progress = heads.get(&super::progress::shard_key(shard));
            let cuts = progress.map_or(0, |progress| progress.cuts);
            let kept = known.remove(&shard).filter(|state| self.is_of_this_life(state, cuts));
            let needs_snapshots = kept.is_none();
            let mut state = kept.unwrap_or_else(|| self.store.empty_shard(shard));
            let saved = std::mem::take(&mut state.saved);
            state.unsaved.extend(saved.into_keys());
            state.head.cuts = cuts;
            if let Some(progress) = progress {
                state.head.batch = progress.batch;
                state.head.clock = super::clock::ClockState::new(ShardClock(progress.clock));
                state.head.origins = progress.origins.clone();
            }
            let first_day = first_day(state.head.clock.now(), &self.time);
            states.insert(
                shard,
                Begun {
                    state,
                    needs_snapshots,
                    shown: Handles::default(),
                    read_since: Timestamp::MAX,
                    cut: None,
                    unkept: 0,
                    first_day,
                    met: None,
                    contradiction: None,
                    folded: Folded::default(),
                },
            );
        }
        Ok(states)
    }

    /// Whether what was kept is of the ledger as it is: since it was kept, no cut of it was accepted.
    fn is_of_this_life(&self, kept: &ShardState, cuts: u32) -> bool {
        let is_of_it = kept.head.cuts == cuts;
        if !is_of_it {
            warn!(
                shard = kept.shard,
                "what was kept of the shard is from before its ledger was cut: dropped"
            );
            self.store.discard(kept.shard);
        }
        is_of_it
    }

    fn check_progress(&self, shard: i32, progress: &ShardProgress) -> Result<(), RestoreError> {
        if progress.group != self.group {
            return Err(RestoreError::Refused(format!(
                "shard {shard} belongs to consumer group {:?}, this deployment's is {:?}: set ledger.group, or use topics of its own",
                progress.group, self.group
            )));
        }
        let ours = self.policy.hash_up_to(ShardClock(progress.clock));
        if progress.config_hash != ours {
            return Err(RestoreError::Refused(format!(
                "shard {shard} was priced with other rate cards, plans, packs or priorities (hash {} up to {}, ours {ours}): use the same pricing file; versions may only be added ahead of the clock",
                progress.config_hash, progress.clock
            )));
        }
        Ok(())
    }

    fn read_snapshots<'e>(
        &self,
        states: &mut BTreeMap<i32, Begun>,
        ends: impl Iterator<Item = &'e Stretch>,
    ) -> Result<(), RestoreError> {
        let ends: Vec<Stretch> = ends.copied().collect();
        // What comes later may cover entries beyond the end to which the ledger is read.
        let tos: BTreeMap<i32, i64> = ends.iter().map(|end| (end.partition, end.to)).collect();
        let is_later =
            |record: &RecordView<'_>| tos.get(&record.partition).is_none_or(|to| record.offset >= *to);
        self.read_into(states, &self.routes.out.wallets, &ends, is_later, Begun::take_snapshots)
            .and_then(|fault| fault.map_err(RestoreError::Refused))
    }

    /// Folds the ledger's tail: what lies below a wallet's seq feeds only the identities.
    fn read_ledger(&self, states: &mut BTreeMap<i32, Begun>, ends: &[Stretch]) -> Result<(), RestoreError> {
        let mut stretches = Vec::with_capacity(ends.len());
        for end in ends {
            let Some(begun) = states.get_mut(&end.partition) else { continue };
            begun.compare_with_ends(end.from, end.to);
            if begun.contradiction.is_some() {
                continue;
            }
            let from = if begun.needs_snapshots {
                let first_day = self.horizon_day(begun.state.head.clock.now());
                begun.read_since = first_day.unwrap_or(Timestamp::MIN);
                let from = first_day.map_or(Ok(end.from), |first_day| self.horizon_offset(end, first_day))?;
                begun.met = Some(Met::with_room_for(u64::try_from(end.to - from).unwrap_or(0)));
                from
            } else {
                begun.state.ledger_position
            };
            stretches.push(Stretch { from, ..*end });
        }
        let (started, horizon_days) = (self.world.now(), self.policy.horizon_days);
        let fold = |begun: &mut Begun, records: &[ReadRecord<'_>]| {
            if begun.contradiction.is_none() {
                begun.contradiction = begun.fold_records(records, horizon_days).err();
            }
            Ok::<_, RestoreError>(())
        };
        self.read_into(states, &self.routes.out.ledger, &stretches, |_| false, fold)??;
        for end in ends {
            if let Some(begun) = states.get_mut(&end.partition) {
                begun.state.ledger_position = end.to;
            }
        }
        let sum = |count: fn(&Begun) -> u64| states.values().map(count).sum::<u64>();
        info!(
            shards = states.len(),
            entries = sum(|begun| begun.folded.entries),
            known_before = sum(|begun| begun.folded.doubles),
            seconds = self.since(started).as_secs_f64(),
            "ledger read"
        );
        Ok(())
    }

    /// The first instant of the horizon's first day; `None`: the clock has not begun.
    fn horizon_day(&self, clock: ShardClock) -> Option<Timestamp> {
        let has_begun = clock.0 > Timestamp::from_millis(0);
        let day = clock.0.plus_millis(-self.time.horizon_ms).day_number();
        has_begun.then(|| Timestamp::from_millis(day * DAY_MS))
    }

    /// Where the ledger must be read from so that every identity inside the horizon is met.
    fn horizon_offset(&self, end: &Stretch, first_day: Timestamp) -> Result<i64, RestoreError> {
        // Kafka timestamps may lie a little before the posted times.
        let mut from_time = first_day.millis().saturating_sub(self.time.max_clock_skew_ms);
        if planted!(OneDaysIdentities) {
            from_time = first_day.plus_millis(self.time.horizon_ms - DAY_MS).millis();
        }
        let found = self.reader.offset_at(&self.routes.out.ledger, end.partition, from_time)?;
        Ok(found.unwrap_or(end.to))
    }

    fn since(&self, instant: Instant) -> Duration {
        self.world.now().duration_since(instant)
    }

    /// Reads stretches of one topic to their ends.
    fn read(
        &self,
        topic: &str,
        stretches: &[Stretch],
        mut each: impl FnMut(&RecordView<'_>),
    ) -> Result<(), RestoreError> {
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for stretch in stretches.iter().filter(|stretch| stretch.from < stretch.to) {
            open.insert(stretch.partition, stretch.to);
            assignment.add_partition_offset(topic, stretch.partition, Offset::Offset(stretch.from))?;
        }
        self.reader.assign(&assignment)?;
        let (mut records, mut last_word, mut last_progress) = (0, self.world.now(), self.world.now());
        let mut last_sign = last_word;
        while !open.is_empty() {
            if self.since(last_sign) >= ALIVE_EVERY {
                (self.alive)()?;
                last_sign = self.world.now();
            }
            match self.reader.poll() {
                Polled::Error { is_fatal: true, message, .. } => return Err(RestoreError::TryAgain(message)),
                Polled::Error { message, .. } => warn!(topic, message, "reading goes on"),
                Polled::Record(())
                | Polled::EndOfPartition { .. }
                | Polled::Nothing
                | Polled::Assigned(_)
                | Polled::Revoked => {}
            }
            let (mut read, mut ended) = (Vec::with_capacity(TAKEN_AT_ONCE), Vec::new());
            self.reader.take(
                TAKEN_AT_ONCE,
                READ_WAIT,
                |record| {
                    each(record);
                    read.push((record.partition, record.offset + 1));
                },
                |_, partition, offset| ended.push((partition, offset)),
            );
            records += read.len();
            // Those that were read to their end go on: they are no sign that the others do.
            let mut has_gone_on = false;
            for (partition, next) in read.into_iter().chain(ended) {
                has_gone_on |= open.contains_key(&partition);
                if open.get(&partition).is_some_and(|to| next >= *to) {
                    open.remove(&partition);
                }
            }
            if has_gone_on {
                last_progress = self.world.now();
            }
            if self.since(last_progress) > STABLE_PATIENCE {
                return Err(RestoreError::TryAgain(format!(
                    "{topic}: nothing came for {STABLE_PATIENCE:?}, {} partitions are not read to their end",
                    open.len()
                )));
            }
            if self.since(last_word) > PROGRESS_LINE_EVERY {
                info!(topic, records, open_partitions = open.len(), "restoring");
                last_word = self.world.now();
            }
        }
        self.reader.unassign()?;
        Ok(())
    }
}

/// The restored shards: number, whether it began with what was kept, and the shard if its wallets hold together. Each wallet
/// is looked at once more, on all cores if they are many.
fn finished(shards: Vec<(i32, Begun)>, policy: &Policy) -> Vec<(i32, bool, Result<ShardState, String>)> {
    let finish = |(shard, begun): (i32, Begun)| (shard, !begun.needs_snapshots, begun.finish(policy));
    let wallets: usize = shards.iter().map(|(_, begun)| begun.state.wallets.count()).sum();
    match wallets >= WALLETS_APART_MIN {
        true => shards.into_par_iter().map(finish).collect(),
        false => shards.into_iter().map(finish).collect(),
    }
}
