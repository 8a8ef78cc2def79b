//! Restores what the group assigned on a thread of its own, in lots: shards that stay here go on while others come.
//!
//! What stays is what this worker still holds in memory, has read before, and finds settled: nothing is open where it
//! stands. It only has to be caught up, which takes milliseconds. What is new here may have to wait until the transaction of
//! a killed instance runs out, or read a horizon of the ledger. Each lot is restored by the same steps, in the same order,
//! all of them after the assignment: only which shards wait for which others is decided here.
//!
//! **Invariant:** a lot that the worker has not taken is of no effect. Given up, what was kept of its shards goes to the
//! restore that follows, and nothing of them is read by two restores at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::changed::changed;
use super::compute::SourceId;
use super::identity_store::Maintenance;
use super::progress::partition_key;
use super::restore::{RestoreError, Restored, Restorer};
use super::routes::{Routes, Topic};
use super::shard::ShardState;
use super::stage::LedgerError;
use super::store::LocalStore;
use super::worker::Setup;
use super::world::{Reader, World};
use crate::fault::planted;

const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What is open for longer than this does not hold up what stays: it comes with the others.
const SETTLING_PATIENCE: Duration = Duration::from_secs(1);
/// A restore that was given up ends as soon as it is not waiting for an answer of the brokers.
const GIVING_UP_PATIENCE: Duration = Duration::from_millis(500);

/// Shards and partitions that can be served.
pub(super) struct Lot {
    pub(super) ids: Vec<SourceId>,
    /// The group's offsets.
    pub(super) committed: BTreeMap<SourceId, i64>,
    pub(super) restored: Restored,
    /// Nothing of the assignment is missing now.
    pub(super) is_last: bool,
}

/// A restore under way.
pub(super) struct Restoring {
    /// All that was assigned.
    pub(super) ids: Vec<SourceId>,
    pub(super) started: Instant,
    is_wanted: Arc<AtomicBool>,
    lots: Receiver<Result<Lot, LedgerError>>,
    /// A lot that has come and was not taken yet.
    arrived: Option<Lot>,
    /// Once it has ended: what it still had of what was kept.
    left: Receiver<BTreeMap<i32, ShardState>>,
}

/// What a restore begins with.
pub(super) struct Order<W: World> {
    pub(super) setup: Arc<Setup<W>>,
    pub(super) worker: usize,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) folder: Option<PathBuf>,
    pub(super) maintenance: Arc<Maintenance>,
    /// All that was assigned.
    pub(super) ids: Vec<SourceId>,
    /// Partitions that this worker has read before: their topics are what they were.
    pub(super) read_before: BTreeSet<SourceId>,
    /// States that were kept.
    pub(super) parked: BTreeMap<i32, ShardState>,
    /// Whether what earlier producers left has to be settled first.
    pub(super) is_producer_new: bool,
    /// A restore that was given up and may not have ended yet.
    pub(super) before: Option<Restoring>,
}

impl Restoring {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start<W: World>(order: Order<W>) -> Result<Restoring, LedgerError> {
        let is_wanted = Arc::new(AtomicBool::new(true));
        // Two lots, or one and an error: nobody waits for room.
        let (lot_sender, lots) = sync_channel(2);
        let (left_sender, left) = sync_channel(1);
        let (world, ids) = (order.setup.world.clone(), order.ids.clone());
        let started = world.now();
        let name = format!("restore-{}", order.worker);
        let mut restore = Restore { order, is_wanted: Arc::clone(&is_wanted), lots: lot_sender };
        world
            .spawn(&name, move || {
                restore.run();
                // Nobody may be left to ask for it.
                let _ = left_sender.send(restore.order.parked);
            })
            .map_err(|error| LedgerError::Stopped(format!("thread {name} cannot be started: {error}")))?;
        Ok(Restoring { ids, started, is_wanted, lots, arrived: None, left })
    }

    /// Its shards are not wanted any more.
    pub(super) fn give_up(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    /// Whether a lot is there to be taken.
    ///
    /// # Errors
    /// The topics do not fit this instance, or belong to another deployment.
    pub(super) fn has_lot(&mut self) -> Result<bool, LedgerError> {
        if self.arrived.is_none() {
            self.arrived = match self.lots.try_recv() {
                Ok(lot) => Some(lot?),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => {
                    return Err(LedgerError::Stopped("the thread that restores ended".to_owned()));
                }
            };
        }
        Ok(self.arrived.is_some())
    }

    pub(super) fn take_lot(&mut self) -> Option<Lot> {
        self.arrived.take()
    }

    /// What it had of what was kept, once it has ended; `None`: it has not.
    fn leftovers(
        &mut self,
        world: &impl World,
        patience: Option<Duration>,
    ) -> Option<BTreeMap<i32, ShardState>> {
        let mut left = match world.receive(&self.left, patience) {
            Ok(left) => left,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return None,
            // It has died, and what it had with it: that is on disk or in the topics.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => BTreeMap::new(),
        };
        let not_taken = self.arrived.take().into_iter().chain(self.lots.try_iter().flatten());
        left.extend(not_taken.flat_map(|lot| sound(lot.restored)));
        Some(left)
    }
}

/// The shards that can be kept.
fn sound(restored: Restored) -> impl Iterator<Item = (i32, ShardState)> {
    restored.shards.into_iter().filter_map(|(shard, state)| Some((shard, state.ok()?)))
}

/// The thread that restores.
struct Restore<W: World> {
    order: Order<W>,
    is_wanted: Arc<AtomicBool>,
    lots: SyncSender<Result<Lot, LedgerError>>,
}

impl<W: World> Restore<W> {
    fn run(&mut self) {
        self.take_leftovers(Some(GIVING_UP_PATIENCE));
        let Some(staying) = self.until_it_succeeds(|restore, parked| restore.staying(parked)) else { return };
        let (staying, coming): (Vec<SourceId>, Vec<SourceId>) =
            self.order.ids.iter().partition(|id| staying.contains(id));
        if !staying.is_empty() && !coming.is_empty() {
            if !self.restore(staying, false) {
                return;
            }
            self.take_leftovers(None);
            self.restore(coming, true);
        } else {
            self.take_leftovers(None);
            self.restore(self.order.ids.clone(), true);
        }
    }

    /// Takes over what the restore before had, if that has ended by then.
    fn take_leftovers(&mut self, patience: Option<Duration>) {
        if let Some(before) = &mut self.order.before
            && let Some(left) = before.leftovers(&self.order.setup.world, patience)
        {
            self.order.parked.extend(left);
            self.order.before = None;
        }
    }

    /// Restores a lot and hands it over; whether that was done.
    fn restore(&mut self, ids: Vec<SourceId>, is_last: bool) -> bool {
        let read = self.until_it_succeeds(|restore, parked| restore.read_state(&ids, parked));
        let Some((committed, restored)) = read else { return false };
        self.order.is_producer_new = false;
        match self.lots.send(Ok(Lot { ids, committed, restored, is_last })) {
            Ok(()) => true,
            Err(unsent) => {
                self.order.parked.extend(unsent.0.into_iter().flat_map(|lot| sound(lot.restored)));
                false
            }
        }
    }

    /// Tries until the brokers answer. `None`: it is not wanted any more, or the worker was told why it cannot be done.
    fn until_it_succeeds<T>(
        &mut self,
        mut step: impl FnMut(&Self, &mut BTreeMap<i32, ShardState>) -> Result<T, RestoreError>,
    ) -> Option<T> {
        loop {
            let mut parked = std::mem::take(&mut self.order.parked);
            let done = step(self, &mut parked);
            self.order.parked = parked;
            match done {
                Ok(done) => return Some(done),
                Err(RestoreError::Superseded) => {
                    info!(worker = self.order.worker, "the group moves on before all shards were restored");
                    return None;
                }
                Err(RestoreError::Refused(reason)) => {
                    let _ = self.lots.send(Err(LedgerError::Setup(reason)));
                    return None;
                }
                Err(error) => {
                    warn!(%error, "state could not be read yet");
                    self.order.setup.world.sleep(RETRY_AFTER);
                }
            }
        }
    }

    /// Whether it is still wanted.
    fn alive(&self) -> Result<(), RestoreError> {
        let is_wanted = self.is_wanted.load(Ordering::Relaxed);
        let is_stopping = self.order.stopping.load(Ordering::Relaxed);
        if is_wanted && !is_stopping { Ok(()) } else { Err(RestoreError::Superseded) }
    }

    fn with_restorer<T>(
        &self,
        body: impl FnOnce(&Restorer<'_, W>) -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        self.alive()?;
        let (setup, routes) = (&self.order.setup, &self.order.setup.routes);
        let shards_of_ledger = usize::try_from(routes.shards).unwrap_or(1).max(1);
        let store = LocalStore {
            folder: self.order.folder.as_deref(),
            maintenance: &self.order.maintenance,
            recent_max: setup.config.store.identities_in_memory / shards_of_ledger,
            horizon_days: setup.config.clock.horizon_days,
            ledger_id: &routes.ledger_id,
        };
        let alive = || self.alive();
        let group = &setup.config.ledger.group;
        body(&Restorer::new(&setup.world, routes, setup.time, group, &setup.policy, store, &alive)?)
    }

    /// What may go on at once: shards that were kept, with all partitions that they read at home, and other partitions,
    /// where this worker has read them before and nothing is open where they stand.
    fn staying(&self, parked: &BTreeMap<i32, ShardState>) -> Result<BTreeSet<SourceId>, RestoreError> {
        let Order { setup, ids, read_before, .. } = &self.order;
        let routes = &setup.routes;
        let at_home =
            |(topic, _): &SourceId| routes.topic(*topic).is_some_and(|topic| routes.is_at_home(topic));
        let comes =
            |shard: i32| ids.iter().any(|id| id.1 == shard && at_home(id) && !read_before.contains(id));
        let stays = |shard: i32| parked.contains_key(&shard) && !comes(shard);
        let mut staying: BTreeSet<SourceId> = ids
            .iter()
            .filter(|id| read_before.contains(*id) && (!at_home(id) || stays(id.1)))
            .copied()
            .collect();
        if staying.is_empty() {
            return Ok(staying);
        }
        let holder = |partition: i32| partition.rem_euclid(routes.shards.max(1));
        let shards: BTreeSet<i32> =
            staying.iter().filter(|id| id.0 == routes.intake()).map(|id| id.1).collect();
        let holders: BTreeSet<i32> = staying.iter().map(|id| holder(id.1)).collect();
        self.with_restorer(|restorer| {
            let deadline = setup.world.now() + SETTLING_PATIENCE;
            let open = restorer.open_after(deadline, &routes.out.progress, &holders)?;
            let open_ledgers = restorer.open_after(deadline, &routes.out.ledger, &shards)?;
            let must_wait = |id: &SourceId| at_home(id) && open_ledgers.contains(&id.1);
            staying.retain(|id| !open.contains(&holder(id.1)) && !must_wait(id));
            Ok(())
        })?;
        Ok(staying)
    }

    /// Stable committed offsets first; only then is it settled what the topics hold.
    fn read_state(
        &self,
        ids: &[SourceId],
        parked: &mut BTreeMap<i32, ShardState>,
    ) -> Result<(BTreeMap<SourceId, i64>, Restored), RestoreError> {
        let routes = &self.order.setup.routes;
        self.with_restorer(|restorer| {
            let committed = committed(&restorer.reader, routes, ids)?;
            if self.order.is_producer_new && !planted!(CommitOverWhatIsOpen) {
                await_settled(restorer)?;
            }
            let shards: Vec<i32> =
                ids.iter().filter(|(topic, _)| *topic == routes.intake()).map(|(_, shard)| *shard).collect();
            let partitions: Vec<i32> = ids.iter().map(|(_, partition)| *partition).collect();
            let mut restored = restorer.restore(&shards, parked, &partitions)?;
            // A topic that was repartitioned is known by the partitions that it had, wherever their progress stands. All of it
            // is read only where there is reason to: it waits for the transactions of every other worker.
            let is_new = |id: &SourceId| {
                let topic = routes.topic(id.0).map_or("", |topic| topic.name.as_str());
                let is_known = restored.partitions.contains_key(&partition_key(topic, id.1));
                !is_known && !self.order.read_before.contains(id)
            };
            let is_changed = |topic: &Topic| changed(topic, &restored.partitions).is_some();
            if ids.iter().any(is_new) || routes.topics.iter().any(is_changed) {
                match restorer.all_progress() {
                    Ok(all) => restored.partitions = all,
                    Err(error) => {
                        parked.extend(sound(restored));
                        return Err(error);
                    }
                }
            }
            Ok((committed, restored))
        })
    }
}

fn committed(
    reader: &impl Reader,
    routes: &Routes,
    ids: &[SourceId],
) -> Result<BTreeMap<SourceId, i64>, RestoreError> {
    let mut asked = TopicPartitionList::new();
    for (topic, partition) in ids {
        if let Some(topic) = routes.topic(*topic) {
            asked.add_partition(&topic.name, *partition);
        }
    }
    // The client waits in vain, and says no more than that time is up, while a transaction with offsets is open.
    let settled = reader.committed(asked).map_err(|error| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::OperationTimedOut) => RestoreError::TryAgain(
            "the group's offsets are not known: a transaction with some of them is open, or the brokers do not \
             answer; if this goes on for longer than ledger.transaction_timeout_ms, see CreditstreamRestoreSlow in \
             docs/runbooks.md"
                .to_owned(),
        ),
        _ => RestoreError::Kafka(error),
    })?;
    let mut committed = BTreeMap::new();
    for element in settled.elements() {
        if let (Some(topic), Offset::Offset(offset)) = (routes.index_of(element.topic()), element.offset()) {
            committed.insert((topic, element.partition()), offset);
        }
    }
    Ok(committed)
}

/// Waits until no transaction is open that was begun before, wherever this stage writes. A broker that was killed may have
/// left one open that its producer takes for ended. The next commit with the same transactional id would be its end too on
/// the partitions that both write to, and on no others: it would be torn.
fn await_settled<W: World>(restorer: &Restorer<'_, W>) -> Result<(), RestoreError> {
    let out = &restorer.routes.out;
    let all: Vec<i32> = (0..restorer.routes.shards).collect();
    for topic in [&out.ledger, &out.wallets, &out.progress, &out.alerts, &out.intake, &out.quarantine] {
        restorer.stable_ends(topic, &all)?;
    }
    Ok(())
}
