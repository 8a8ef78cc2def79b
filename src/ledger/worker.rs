//! The first thread of a worker: it polls, computes, and owns all state of its shards.
//!
//! A rebalance is not a callback here but a value that the poll brings: the loop answers it itself, so nothing
//! ever waits for the thread that serves it. What may starve what: while a batch is computed nothing is polled (about half
//! a second behind a backlog, see [`super::pace`]). Shards are restored by a thread of their own; those that are here go on
//! meanwhile.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tracing::{debug, info, warn};

use super::TimeRules;
use super::arena::Chunks;
use super::batch::Batch;
use super::changed::Changed;
use super::checkpoint::Checkpoints;
use super::committer::{Committer, Done, Job};
use super::compute::{Computation, Computed, SourceId, SourceSlot, helpers};
use super::flight::{Flight, InFlight};
use super::identity_store::Maintenance;
use super::needs::Listed;
use super::outbox::Outbox;
use super::pace::Pace;
use super::process::Context;
use super::restoring::{Lot, Restoring};
use super::routes::Routes;
use super::shard::{ShardSlot, ShardState};
use super::stage::LedgerError;
use super::watch::{Board, Position};
use super::world::{Member, World};
use crate::config::Config;
use crate::event::EventRules;
use crate::fault::{fault_point, planted};
use crate::http::{Heartbeat, Readiness};
use crate::kafka::{GroupMetadata, Polled, RecordView};
use crate::metrics::Metrics;
use crate::wallet::Policy;

const IDLE_POLL: Duration = Duration::from_millis(50);
const BUSY_POLL: Duration = Duration::from_millis(1);
/// Latest states of wallets are written this often. A wallet that many events touch is written once for all of them.
const SNAPSHOTS_EVERY: Duration = Duration::from_secs(1);
/// The wallets most in need are listed this often.
const NEEDS_EVERY: Duration = Duration::from_secs(1);
/// Memory that nobody needed for so long is given back.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// What is in flight when partitions are revoked is given this long to end.
const REVOKE_PATIENCE: Duration = Duration::from_millis(500);

/// What all workers share, and none changes.
pub struct Setup<W> {
    /// Settings.
    pub config: Arc<Config>,
    /// Kafka and the clocks.
    pub world: W,
    /// To be updated.
    pub metrics: Metrics,
    /// Topics.
    pub routes: Routes,
    /// Limits of events.
    pub rules: EventRules,
    /// Prices, limits, thresholds.
    pub policy: Policy,
    /// Bounds of time.
    pub time: TimeRules,
}

/// A worker's state.
pub struct Worker<W: World> {
    pub(super) setup: Arc<Setup<W>>,
    pub(super) number: usize,
    pub(super) member: W::Member,
    pub(super) board: Arc<Board>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) shards: BTreeMap<i32, ShardSlot>,
    /// Shards that were revoked and may come back: their state needs only catching up.
    pub(super) parked: BTreeMap<i32, ShardState>,
    /// What is assigned and not here yet.
    pub(super) restoring: Option<Restoring>,
    /// The restore before, which may not have ended yet.
    pub(super) given_up: Option<Restoring>,
    pub(super) sources: BTreeMap<SourceId, SourceSlot>,
    /// Shards that stand still until somebody acts, and why.
    pub(super) stopped: BTreeMap<i32, String>,
    /// Sources that are given, but are not what they were, and are not read.
    pub(super) refused: BTreeSet<SourceId>,
    /// Source topics that are not what they were, by index: they stay so as long as this worker lives.
    pub(super) changed: BTreeMap<usize, Changed>,
    /// Partitions that were found to be what they were, and read, at any time since this worker began.
    pub(super) read_before: BTreeSet<SourceId>,
    /// Sources whose offsets went back since this worker began, and what was said of it.
    pub(super) went_back: BTreeMap<SourceId, String>,
    /// Generation of the group under which the shards were assigned.
    pub(super) generation: i32,
    /// Whether what the producers before this one left has yet to be settled, see `await_settled`.
    pub(super) is_producer_new: bool,
    /// What the group said while no records were wanted.
    pub(super) heard: RefCell<VecDeque<Polled<()>>>,
    heartbeat: Heartbeat,
    pub(super) checkpoints: Checkpoints,
    pub(super) maintenance: Arc<Maintenance>,
    /// Threads that compute beside this one.
    pub(super) helpers: Option<rayon::ThreadPool>,
    jobs: Option<SyncSender<Job>>,
    pub(super) done: Receiver<Done>,
    pub(super) in_flight: Option<InFlight>,
    /// A batch that is committed and not state yet.
    pub(super) landed: Option<InFlight>,
    /// Memory that is between two batches.
    chunks: Chunks,
    /// Those of batches that are through.
    pub(super) spare: Vec<Vec<Outbox>>,
    pub(super) events_max: usize,
    /// How many records a batch may have, by what others took.
    pub(super) pace: Pace,
    pub(super) aborts: u32,
    /// When unsaved wallets were last sent to be written.
    saved_at: Instant,
    /// When memory was last given back.
    trimmed_at: Instant,
    /// When the wallets most in need were last listed.
    listed_at: Instant,
    /// The batch under way is the last: wallets are saved with it.
    is_last_batch: bool,
    /// The batch before was aborted because a record was too large for a topic of ours.
    pub(super) cuts_large: bool,
}

/// What a round of polling ended with.
enum Turn {
    /// A batch, perhaps empty.
    Batch(Option<GroupMetadata>),
    /// The group gives partitions.
    Assigned(Vec<(String, i32)>),
    /// Some of them can be served. Nothing is in flight.
    Restored(Lot),
    /// The group takes all partitions.
    Revoked,
}

impl<W: World> Worker<W> {
    /// Makes the clients. Waits until the producer has fenced what an earlier run left.
    ///
    /// # Errors
    /// A client cannot be made, or the brokers refuse.
    pub fn start(
        setup: &Arc<Setup<W>>,
        number: usize,
        board: &Arc<Board>,
        stopping: &Arc<AtomicBool>,
        heartbeat: &Heartbeat,
    ) -> Result<Worker<W>, LedgerError> {
        let member = setup.world.member(number)?;
        let (jobs, job_receiver) = sync_channel(1);
        let (done_sender, done) = sync_channel(1);
        let (ready_sender, ready) = sync_channel(1);
        let committer = Committer {
            world: setup.world.clone(),
            worker: number,
            topics: setup.routes.out.clone(),
            timeout: setup.config.ledger.transaction_timeout(),
            metrics: setup.metrics.clone(),
            stopping: Arc::clone(stopping),
        };
        setup
            .world
            .spawn(&format!("commit-{number}"), move || {
                committer.run(&job_receiver, &done_sender, &ready_sender);
            })
            .map_err(|error| LedgerError::Stopped(format!("the commit thread cannot be started: {error}")))?;
        let answer = setup.world.receive(&ready, None);
        answer.map_err(|_| LedgerError::Stopped("the commit thread ended".to_owned()))??;

        let names: Vec<&str> = setup.routes.topics.iter().map(|topic| topic.name.as_str()).collect();
        member.subscribe(&names)?;
        Ok(Worker {
            number,
            member,
            board: Arc::clone(board),
            stopping: Arc::clone(stopping),
            shards: BTreeMap::new(),
            parked: BTreeMap::new(),
            restoring: None,
            given_up: None,
            sources: BTreeMap::new(),
            stopped: BTreeMap::new(),
            refused: BTreeSet::new(),
            changed: BTreeMap::new(),
            read_before: BTreeSet::new(),
            went_back: BTreeMap::new(),
            generation: -1,
            is_producer_new: true,
            heard: RefCell::default(),
            heartbeat: heartbeat.clone(),
            checkpoints: Checkpoints::new(&setup.world, &setup.config.store, &setup.routes.ledger_id),
            maintenance: Arc::new(Maintenance::start().map_err(|error| {
                LedgerError::Stopped(format!("the thread of the local store cannot be started: {error}"))
            })?),
            helpers: helpers(number, setup.world.threads(setup.config.ledger.workers))
                .map_err(|error| LedgerError::Stopped(format!("threads cannot be started: {error}")))?,
            jobs: Some(jobs),
            done,
            in_flight: None,
            landed: None,
            chunks: Chunks::default(),
            spare: Vec::new(),
            events_max: setup.config.ledger.batch_events_max,
            pace: Pace::new(setup.config.ledger.transaction_timeout()),
            aborts: 0,
            saved_at: setup.world.now(),
            trimmed_at: setup.world.now(),
            listed_at: setup.world.now(),
            is_last_batch: false,
            cuts_large: false,
            setup: Arc::clone(setup),
        })
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// Something that somebody has to mend.
    pub fn run(&mut self, readiness: &Readiness) -> Result<(), LedgerError> {
        readiness.set_not_ready("no partitions assigned yet");
        let mut batch = Batch::new(&self.chunks);
        while !self.stopping.load(Ordering::Relaxed) {
            self.heartbeat.beat();
            batch.clear();
            match self.gather(&mut batch)? {
                Turn::Assigned(partitions) => {
                    readiness.set_not_ready("restoring the assigned shards");
                    fault_point!("shards.assigned");
                    self.restore(&partitions)?;
                }
                Turn::Restored(lot) => {
                    if self.take(lot)? {
                        fault_point!("shards.restored");
                        readiness.set_ready();
                    }
                }
                Turn::Revoked => {
                    readiness.set_not_ready("partitions were revoked");
                    self.let_go();
                }
                Turn::Batch(Some(group)) if !batch.is_empty() || self.has_own_work() => {
                    self.work(&batch, group)?
                }
                Turn::Batch(_) => self.idle()?,
            }
            let now = self.setup.world.now();
            self.checkpoints.step(&mut self.shards, &self.board, now, self.in_flight.is_some());
            if now.duration_since(self.listed_at) >= NEEDS_EVERY {
                self.listed_at = now;
                self.publish_needs();
            }
            if now.duration_since(self.trimmed_at) >= TRIM_EVERY {
                self.trimmed_at = now;
                self.chunks.trim();
            }
            self.maintain()?;
            // Identities come faster than the disk takes them: memory stays bounded.
            while self.is_store_behind() && !self.stopping.load(Ordering::Relaxed) && self.is_still_member() {
                self.heartbeat.beat();
                self.setup.world.sleep(BUSY_POLL);
                self.maintain()?;
            }
        }
        self.finish()
    }

    /// Polls until there is a batch: full, or all that there is once the committer is free.
    fn gather(&mut self, batch: &mut Batch) -> Result<Turn, LedgerError> {
        if let Some(turn) = self.restored()? {
            return Ok(turn);
        }
        let group = self.member.group();
        let bytes_max = self.setup.config.ledger.batch_bytes_max;
        let events_max = self.events_max.min(self.pace.records_max());
        // What is due fills the batch that is computed beside the one in flight: no reason to wait for more events.
        let is_work_left = self.shards.values().any(ShardSlot::has_due);
        let wait = if is_work_left { Duration::ZERO } else { self.setup.config.ledger.batch_wait_max() };
        let deadline = self.setup.world.now() + wait;
        let mut is_full = false;
        while !is_full {
            let flight = self.try_settle()?;
            if flight == Flight::Lost {
                batch.clear();
                return Ok(Turn::Batch(None));
            }
            let is_committer_free = flight == Flight::Landed;
            let timeout = match (batch.is_empty(), is_committer_free) {
                (true, true) => IDLE_POLL,
                (_, false) => BUSY_POLL,
                (false, true) => Duration::ZERO,
            };
            let room = events_max.saturating_sub(batch.len());
            let routes = &self.setup.routes;
            let mut push = |record: &RecordView<'_>| {
                if let Some(topic) = routes.index_of(record.topic) {
                    batch.push(topic, record);
                }
            };
            let heard = self.heard.get_mut().pop_front();
            match heard.unwrap_or_else(|| self.member.poll(&mut push)) {
                Polled::Assigned(partitions) => return Ok(Turn::Assigned(partitions)),
                Polled::Revoked => return Ok(Turn::Revoked),
                Polled::Error { code: RDKafkaErrorCode::FencedInstanceId, .. } => {
                    return Err(LedgerError::Setup(format!(
                        "another instance has the name {:?}: give each a ledger.instance of its own",
                        self.setup.config.instance_name()
                    )));
                }
                // Only a new client helps.
                Polled::Error { message, is_fatal: true, .. } => {
                    return Err(LedgerError::Unreachable(format!("the consumer cannot go on: {message}")));
                }
                Polled::Error { message, .. } => warn!(message, "consumer error"),
                Polled::Record(()) | Polled::EndOfPartition { .. } | Polled::Nothing => {}
            }
            let sources = &mut self.sources;
            let end = |topic: &str, partition, offset| {
                let id = routes.index_of(topic).map(|topic| (topic, partition));
                if let Some(source) = id.and_then(|id| sources.get_mut(&id)) {
                    source.ends_at(offset);
                }
            };
            let taken = self.member.take(room, timeout, push, end);
            let is_due = taken == 0 && (is_committer_free || self.setup.world.now() >= deadline);
            is_full = is_due || batch.len() >= events_max || batch.byte_count() >= bytes_max;
        }
        Ok(Turn::Batch(group))
    }

    /// A lot that was restored, if there is one. It is taken between two batches: partitions are assigned anew with it, from
    /// where those that are read already have come to.
    fn restored(&mut self) -> Result<Option<Turn>, LedgerError> {
        let Some(restoring) = &mut self.restoring else { return Ok(None) };
        if self.stopping.load(Ordering::Relaxed) || !restoring.has_lot()? {
            return Ok(None);
        }
        if self.settle()? == Flight::Lost {
            // The lot may have been given up with it; if not, it waits for the next turn.
            return Ok(Some(Turn::Batch(None)));
        }
        Ok(self.restoring.as_mut().and_then(Restoring::take_lot).map(Turn::Restored))
    }

    /// Computes a batch, waits for the one before, and sends it to be committed.
    fn work(&mut self, batch: &Batch, mut group: GroupMetadata) -> Result<(), LedgerError> {
        if self.shards.is_empty() && self.sources.is_empty() {
            return Ok(());
        }
        let setup = Arc::clone(&self.setup);
        let with_snapshots = self.snapshots_due();
        let computation = Computation {
            routes: &setup.routes,
            context: Context {
                rules: &setup.rules,
                policy: &setup.policy,
                time: setup.time,
                wall: setup.world.wall(),
                shards: setup.routes.shards,
                group: &setup.config.ledger.group,
                cuts_large: self.cuts_large,
            },
            shards: &mut self.shards,
            sources: &mut self.sources,
            outboxes: self.spare.pop().unwrap_or_default(),
            chunks: &self.chunks,
            helpers: self.helpers.as_ref(),
            with_snapshots,
        };
        let began = setup.world.now();
        let result = computation.compute(batch);
        if result.is_ok() {
            self.pace.computed(batch.len(), setup.world.now().duration_since(began));
        }
        fault_point!("batch.computed");
        // What has landed becomes state once this batch is on its way: the committer need not wait for it.
        let flight = self.land()?;
        let Computed { outboxes, mut offsets, tally } = match result {
            Ok(computed) => computed,
            Err(breach) => return self.stop_shard(breach.shard, &breach.breach.to_string()),
        };
        if flight == Flight::Lost {
            // The batch before did not become state, so this one was computed upon nothing.
            return Ok(());
        }
        if self.refuse_gone_back()? {
            return Ok(());
        }
        if planted!(FreshGroupMetadata)
            && let Some(fresh) = self.member.group()
        {
            group = fresh;
        } else if group.generation() < 0 || group.generation() != self.generation {
            debug!(
                found = group.generation(),
                expected = self.generation,
                "the group has moved on: batch dropped"
            );
            return self.rewind();
        }
        self.shards.values_mut().for_each(ShardSlot::send);
        for source in self.sources.values_mut() {
            source.pending = source.current.take();
        }
        if with_snapshots {
            self.saved_at = self.setup.world.now();
        }
        self.in_flight = Some(InFlight { tally, events: batch.len() });
        if planted!(TimersWithoutOffsets) && batch.is_empty() {
            offsets = rdkafka::TopicPartitionList::new();
        }
        if planted!(ApplyBeforeCommit) {
            self.apply_landed();
            self.shards.values_mut().for_each(ShardSlot::land);
            let time = self.setup.time;
            self.shards.values_mut().for_each(|slot| drop(slot.apply(&time)));
        }
        let job = Job { outboxes, offsets, group };
        let is_sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        fault_point!("batch.sent");
        self.apply_landed();
        if is_sent { Ok(()) } else { Err(LedgerError::Stopped("the commit thread ended".to_owned())) }
    }

    fn snapshots_due(&self) -> bool {
        self.is_last_batch || self.setup.world.now().duration_since(self.saved_at) >= SNAPSHOTS_EVERY
    }

    /// Without any record, what is due and wallets that are not saved yet are a batch of their own.
    fn has_own_work(&self) -> bool {
        if self.in_flight.is_some() {
            return false;
        }
        let saves = self.snapshots_due() && self.shards.values().any(ShardSlot::has_unsaved);
        saves || self.shards.values().any(ShardSlot::has_due)
    }

    /// Whether identities wait to be sealed, and are being sealed. A disk that fails keeps nobody waiting.
    fn is_store_behind(&self) -> bool {
        self.shards
            .values()
            .any(|slot| slot.state.identities.is_behind() && slot.state.identities.is_sealing())
    }

    /// The local store's background work.
    fn maintain(&mut self) -> Result<(), LedgerError> {
        let mut damaged = None;
        for (shard, slot) in &mut self.shards {
            match slot.state.identities.maintain() {
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    damaged = Some((*shard, error))
                }
                Err(error) => {
                    warn!(shard, %error, "remembered identities cannot be written: they stay in memory")
                }
                Ok(()) => {}
            }
        }
        damaged.map_or(Ok(()), |(shard, error)| {
            self.stop_shard(shard, &format!("the local store is damaged: {error}"))
        })
    }

    /// With nothing to do: ends and silence still move the clocks.
    fn idle(&mut self) -> Result<(), LedgerError> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        let wall = self.setup.world.wall();
        for ((topic, partition), source) in &mut self.sources {
            let Some(slot) = self.shards.get_mut(partition).filter(|_| source.at_home) else { continue };
            if source.take_end() {
                slot.state.head.clock.at_end(*topic, wall);
            }
        }
        self.publish_positions();
        for slot in self.shards.values_mut() {
            slot.state.head.clock.tick(wall, self.setup.time.idle_after_ms);
        }
        Ok(())
    }

    pub(super) fn publish_positions(&self) {
        // Markers of transactions take offsets too: at its end a partition is as far as the end says.
        let positions = self.sources.iter().map(|(id, source)| {
            (*id, Position { next: source.head.next.max(source.end), last_timestamp: source.last_timestamp })
        });
        self.board.set_positions(positions);
    }

    /// Exports the wallets most in need of the shards that are here.
    pub(super) fn publish_needs(&self) {
        let limit = self.setup.config.alerts.series_limit;
        let listed = Listed::of(self.shards.values().map(|slot| &slot.state), limit);
        self.board.needs.publish(self.number, listed, limit, &self.setup.metrics);
    }

    /// Revoked: what is in flight ends, or is left to end without us; the state is kept.
    fn let_go(&mut self) {
        let mut done = None;
        if self.in_flight.is_some() {
            done = self.setup.world.receive(&self.done, Some(REVOKE_PATIENCE)).ok();
        }
        if let Err(error) = self.member.unassign() {
            warn!(%error, "partitions could not be given back");
        }
        // The outcome must be known before the state is used again. Positions are not ours any more.
        if self.in_flight.is_some()
            && let Some(done) = done.or_else(|| self.setup.world.receive(&self.done, None).ok())
        {
            self.note_result(done);
            self.apply_landed();
        }
        self.park();
        info!(worker = self.number, "partitions revoked");
    }

    /// Stops: finish what is in flight, save the wallets, write checkpoints, leave.
    fn finish(&mut self) -> Result<(), LedgerError> {
        let saved = self.save_wallets();
        self.drop_overlays();
        self.checkpoints.finish(&self.setup.world, &mut self.shards, &self.board);
        self.jobs = None;
        info!(worker = self.number, "worker ended");
        saved
    }

    /// What readers of `credits.wallets` see while nobody serves these shards is the latest.
    fn save_wallets(&mut self) -> Result<(), LedgerError> {
        let is_landed = self.settle()? == Flight::Landed;
        if let Some(group) = self.member.group()
            && is_landed
            && (self.shards.values().any(ShardSlot::has_unsaved)
                || self.checkpoints.waits_for_commit(&mut self.shards, &self.board))
        {
            self.is_last_batch = true;
            // Every shard takes part: the commit says that all of them are still ours.
            for slot in self.shards.values_mut() {
                slot.view();
            }
            self.work(&Batch::new(&self.chunks), group)?;
            self.settle()?;
        }
        Ok(())
    }
}
