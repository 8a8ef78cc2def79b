//! Partitions come and go: restoring what was assigned, deciding where to read from, keeping what was revoked.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{error, info, warn};

use super::changed::{Changed, changed};
use super::compute::{SourceHead, SourceId, SourceSlot};
use super::progress::{PartitionProgress, partition_key};
use super::restore::{RestoreError, Restored, Restorer};
use super::routes::{Topic, TopicRole};
use super::shard::ShardSlot;
use super::stage::LedgerError;
use super::store::LocalStore;
use super::worker::Worker;
use super::world::{Member, World};
use crate::fault::planted;
use crate::kafka::Polled;

const RETRY_AFTER: Duration = Duration::from_secs(1);

impl<W: World> Worker<W> {
    /// Takes over what the group assigned: restore, then read on. `false`: the group moved on, or this instance is to
    /// stop, before that was done.
    ///
    /// # Errors
    /// The topics do not fit this instance, or belong to another deployment.
    pub(super) fn take(&mut self, partitions: &[(String, i32)]) -> Result<bool, LedgerError> {
        let started = self.setup.world.now();
        // Read now: if the group moves on while state is restored, what is computed then must not be committed.
        self.generation = self.member.group().map_or(-1, |group| group.generation());
        // The answer that the client waits for: else it would not hear of the group until everything is restored, and
        // the group would wait for it.
        self.member.assign(&TopicPartitionList::new())?;
        let ids: Vec<SourceId> = partitions
            .iter()
            .filter_map(|(topic, partition)| Some((self.setup.routes.index_of(topic)?, *partition)))
            .collect();
        let (committed, restored) = loop {
            match self.read_state(&ids) {
                Ok(read) => break read,
                Err(RestoreError::Superseded) => {
                    info!(worker = self.number, "the group moves on before all shards were restored");
                    return Ok(false);
                }
                Err(RestoreError::Refused(reason)) => return Err(LedgerError::Setup(reason)),
                Err(error) if self.stopping.load(std::sync::atomic::Ordering::Relaxed) => {
                    return Err(LedgerError::Unreachable(error.to_string()));
                }
                Err(error) => {
                    warn!(%error, "state could not be read yet");
                    self.setup.world.sleep(RETRY_AFTER);
                }
            }
        };
        self.parked.clear();
        self.install(&ids, &committed, restored)?;
        let seconds = self.setup.world.now().duration_since(started).as_secs_f64();
        self.setup.metrics.restore_duration_seconds.observe(seconds);
        info!(
            worker = self.number,
            shards = self.shards.len(),
            partitions = ids.len(),
            wallets = self.shards.values().map(|slot| slot.state.wallets.count()).sum::<usize>(),
            identities = self.shards.values().map(|slot| slot.state.identities.len()).sum::<u64>(),
            seconds,
            "partitions taken over"
        );
        Ok(true)
    }

    /// Stable committed offsets first; only then is it settled what the topics hold. It may take minutes: the group is
    /// heard all the while, and what it says is left to the next poll.
    fn read_state(&mut self, ids: &[SourceId]) -> Result<(BTreeMap<SourceId, i64>, Restored), RestoreError> {
        let setup = std::sync::Arc::clone(&self.setup);
        let (heard, member, stopping) = (&self.heard, &self.member, &self.stopping);
        let heartbeat = &self.heartbeat;
        let alive = || {
            heartbeat.beat();
            let is_wanted = listen(member, heard) && !stopping.load(std::sync::atomic::Ordering::Relaxed);
            if is_wanted { Ok(()) } else { Err(RestoreError::Superseded) }
        };
        alive()?;
        let routes = &setup.routes;
        let shards_of_ledger = usize::try_from(routes.shards).unwrap_or(1).max(1);
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in ids {
            if let Some(topic) = routes.topic(*topic) {
                asked.add_partition(&topic.name, *partition);
            }
        }
        let mut committed = BTreeMap::new();
        // The client waits in vain, and says no more than that time is up, while a transaction with offsets is open.
        let settled = self.member.committed(asked).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut) => RestoreError::TryAgain(
                "the group's offsets are not known: a transaction with some of them is open, or the brokers do not \
                 answer; if this goes on for longer than ledger.transaction_timeout_ms, see CreditstreamRestoreSlow in \
                 docs/runbooks.md"
                    .to_owned(),
            ),
            _ => RestoreError::Kafka(error),
        })?;
        for element in settled.elements() {
            if let (Some(topic), Offset::Offset(offset)) =
                (routes.index_of(element.topic()), element.offset())
            {
                committed.insert((topic, element.partition()), offset);
            }
        }
        let restorer = Restorer::new(
            &setup.world,
            routes,
            setup.time,
            &setup.config.ledger.group,
            &setup.policy,
            LocalStore {
                folder: self.checkpoints.folder(),
                maintenance: &self.maintenance,
                recent_max: setup.config.store.identities_in_memory / shards_of_ledger,
                horizon_days: setup.config.clock.horizon_days,
                ledger_id: &routes.ledger_id,
            },
            &alive,
        )?;
        if self.is_producer_new && !planted!(CommitOverWhatIsOpen) {
            await_settled(&restorer)?;
            self.is_producer_new = false;
        }
        let shards: Vec<i32> =
            ids.iter().filter(|(topic, _)| *topic == routes.intake()).map(|(_, shard)| *shard).collect();
        let partitions: Vec<i32> = ids.iter().map(|(_, partition)| *partition).collect();
        let mut restored = restorer.restore(&shards, &mut self.parked, &partitions)?;
        // A topic that was repartitioned is known by the partitions that it had, wherever their progress stands. All of it
        // is read only where there is reason to: it waits for the transactions of every other worker.
        let is_new = |(topic, partition): &SourceId| {
            let topic = routes.topic(*topic).map_or("", |topic| topic.name.as_str());
            !restored.partitions.contains_key(&partition_key(topic, *partition))
        };
        let is_changed = |topic: &Topic| changed(topic, &restored.partitions).is_some();
        if ids.iter().any(is_new) || routes.topics.iter().any(is_changed) {
            match restorer.all_progress() {
                Ok(all) => restored.partitions = all,
                Err(error) => {
                    let states = restored.shards.into_iter();
                    self.parked.extend(states.filter_map(|(shard, state)| Some((shard, state.ok()?))));
                    return Err(error);
                }
            }
        }
        Ok((committed, restored))
    }

    fn install(
        &mut self,
        ids: &[SourceId],
        committed: &BTreeMap<SourceId, i64>,
        restored: Restored,
    ) -> Result<(), LedgerError> {
        self.shards.clear();
        self.sources.clear();
        self.stopped.clear();
        self.clear_refused();
        self.checkpoints.reset();
        for (shard, state) in restored.shards {
            match state {
                Ok(state) => {
                    state.standings.publish(&self.setup.metrics, 1);
                    self.shards.insert(shard, ShardSlot::new(state));
                }
                Err(contradiction) => self.mark_stopped(shard, &contradiction),
            }
        }
        self.setup.metrics.shards_owned.add(i64::try_from(self.shards.len()).unwrap_or(i64::MAX));
        self.board.take_shards(self.shards.keys().copied());
        let changed = self.changed_topics(&restored.partitions)?;
        self.install_sources(ids, committed, &restored.partitions, &changed);

        // A topic that stands still until it is accepted holds the clock, whoever is given its partitions.
        let held: Vec<usize> =
            changed.iter().filter(|(_, changed)| changed.was_at_home).map(|(topic, _)| *topic).collect();
        for (shard, slot) in &mut self.shards {
            let is_home = |(_, partition): &&SourceId| partition == shard;
            let homes = self.sources.iter().filter(|(id, source)| is_home(id) && source.at_home);
            let gone_back = self.went_back.keys().filter(is_home).filter(|(topic, _)| !held.contains(topic));
            let homes = homes.map(|(id, _)| id).chain(gone_back).map(|(topic, _)| *topic);
            slot.state.head.clock.assign(homes.chain(held.iter().copied()));
        }
        self.assign_and_pause()
    }

    fn install_sources(
        &mut self,
        ids: &[SourceId],
        committed: &BTreeMap<SourceId, i64>,
        known: &HashMap<String, PartitionProgress>,
        changed: &BTreeMap<usize, Changed>,
    ) {
        for id in ids {
            if self.refuses(*id, changed) {
                continue;
            }
            let Some(topic) = self.setup.routes.topic(id.0) else { continue };
            let progress = known.get(&partition_key(&topic.name, id.1));
            let at_home = topic.role == TopicRole::Intake || topic.partitions == self.setup.routes.shards;
            // The guard is the truth; a group that was reset reads again, and skips.
            let guard = progress.map(|progress| progress.offset + 1);
            let start = match (committed.get(id), guard) {
                (Some(committed), Some(guard)) => (*committed).min(guard),
                (Some(committed), None) => *committed,
                (None, Some(guard)) => guard,
                (None, None) => 0,
            };
            let head = SourceHead {
                next: guard.unwrap_or(0),
                books: progress.map(|progress| progress.outcomes).unwrap_or_default(),
                by_origin: progress.map(|progress| progress.by_origin.clone()).unwrap_or_default(),
            };
            self.sources.insert(
                *id,
                SourceSlot {
                    topic_id: topic.topic_id.clone(),
                    partitions: topic.partitions,
                    at_home,
                    earlier: progress.map(|progress| progress.earlier).unwrap_or_default(),
                    start,
                    may_skip: guard.is_some_and(|guard| start < guard),
                    went_back: None,
                    head,
                    pending: None,
                    current: None,
                    reached_end: false,
                    end: 0,
                    last_timestamp: 0,
                },
            );
        }
    }

    /// Gives the positions to the consumer. What cannot be served here stays paused.
    fn assign_and_pause(&mut self) -> Result<(), LedgerError> {
        let mut assignment = TopicPartitionList::new();
        let mut paused = TopicPartitionList::new();
        for ((topic, partition), source) in &self.sources {
            let Some(topic) = self.setup.routes.topic(*topic) else { continue };
            let from = if source.start == 0 { Offset::Beginning } else { Offset::Offset(source.start) };
            assignment.add_partition_offset(&topic.name, *partition, from)?;
            if source.at_home && !self.shards.contains_key(partition) {
                paused.add_partition(&topic.name, *partition);
                if !self.stopped.contains_key(partition) {
                    warn!(topic = topic.name, partition, "assigned without its intake partition: paused");
                }
            }
        }
        self.member.assign(&assignment)?;
        if paused.count() > 0 {
            self.member.pause(&paused)?;
        }
        Ok(())
    }

    /// Seeks every source back to what is committed. A partition that is being taken away refuses: it is read
    /// again from its committed offset by whoever gets it.
    pub(super) fn seek_to_heads(&mut self) -> Result<(), LedgerError> {
        let mut places = TopicPartitionList::new();
        for ((topic, partition), source) in &self.sources {
            let Some(topic) = self.setup.routes.topic(*topic) else { continue };
            let next = source.head.next.max(source.start);
            let offset = if next == 0 { Offset::Beginning } else { Offset::Offset(next) };
            places.add_partition_offset(&topic.name, *partition, offset)?;
        }
        if places.count() == 0 {
            return Ok(());
        }
        let sought = self.member.seek(places)?;
        let failed: Vec<String> = sought
            .elements()
            .iter()
            .filter_map(|element| {
                element
                    .error()
                    .err()
                    .map(|error| format!("{}/{}: {error}", element.topic(), element.partition()))
            })
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        // Reading on from a position that was not sought would lose what was aborted: take all partitions anew.
        warn!(failed = failed.join(", "), "seeking back failed: assigning again");
        for source in self.sources.values_mut() {
            source.start = source.start.max(source.head.next);
        }
        self.assign_and_pause()
    }

    /// The outcome of a batch is not known: everything assigned is read again, from what is in memory on.
    pub(super) fn recover(&mut self) -> Result<(), LedgerError> {
        let partitions: Vec<(String, i32)> = self
            .sources
            .keys()
            .chain(&self.refused)
            .filter_map(|(topic, partition)| {
                Some((self.setup.routes.topic(*topic)?.name.clone(), *partition))
            })
            .collect();
        let generation = self.generation;
        self.park();
        // Where the group has moved on, its word comes with the next poll.
        self.take(&partitions)?;
        // The shards are those of the old generation still: should the group have moved on, nothing is committed.
        self.generation = generation;
        Ok(())
    }

    /// Keeps the committed state of all shards for when they come back.
    pub(super) fn park(&mut self) {
        self.drop_overlays();
        let shards: Vec<i32> = self.shards.keys().copied().collect();
        let partitions: Vec<SourceId> = self.sources.keys().copied().collect();
        self.board.release(&shards, &partitions);
        for (topic, partition) in &partitions {
            if let Some(topic) = self.setup.routes.topic(*topic) {
                self.setup.metrics.clear_lag("ledger", &topic.name, &partition.to_string());
            }
        }
        for (shard, slot) in std::mem::take(&mut self.shards) {
            slot.state.standings.publish(&self.setup.metrics, -1);
            self.parked.insert(shard, slot.state);
        }
        self.publish_needs();
        self.setup.metrics.shards_owned.sub(i64::try_from(shards.len()).unwrap_or(i64::MAX));
        self.clear_refused();
        for shard in std::mem::take(&mut self.stopped).into_keys() {
            self.setup.metrics.clear_shard_stopped(&shard.to_string());
        }
        self.sources.clear();
        self.generation = -1;
    }

    /// A shard whose sums do not close stands still; the others go on.
    ///
    /// # Errors
    /// The breach belongs to no shard, or seeking back fails.
    pub(super) fn stop_shard(&mut self, shard: i32, why: &str) -> Result<(), LedgerError> {
        self.apply_landed();
        if let Some(slot) = self.shards.remove(&shard) {
            slot.state.standings.publish(&self.setup.metrics, -1);
            self.setup.metrics.shards_owned.dec();
            self.publish_needs();
        } else {
            return Err(LedgerError::Stopped(why.to_owned()));
        }
        self.mark_stopped(shard, why);
        // The next start reads it anew from the topics.
        self.checkpoints.discard(shard);
        self.rewind()?;
        let mut paused = TopicPartitionList::new();
        for ((topic, partition), source) in &self.sources {
            if *partition == shard
                && source.at_home
                && let Some(topic) = self.setup.routes.topic(*topic)
            {
                paused.add_partition(&topic.name, *partition);
            }
        }
        Ok(self.member.pause(&paused)?)
    }

    /// Whether the shards are still wanted here; where not, the group's word is kept for the next poll.
    pub(super) fn is_still_member(&self) -> bool {
        listen(&self.member, &self.heard)
    }

    fn mark_stopped(&mut self, shard: i32, why: &str) {
        error!(shard, why, "shard stopped: nothing of it is processed until this is mended");
        self.setup.metrics.shard_stopped.with_label_values(&[&shard.to_string(), "contradiction"]).set(1);
        self.stopped.insert(shard, why.to_owned());
    }
}

/// Polls the group, as a member must within `max.poll.interval.ms`, where no records are wanted. Whether it goes on;
/// where not, `heard` has what is to be answered.
fn listen(member: &impl Member, heard: &RefCell<VecDeque<Polled<()>>>) -> bool {
    if heard.borrow().is_empty() {
        match member.poll(|_| ()) {
            Polled::Error { code, message, is_fatal: false }
                if code != RDKafkaErrorCode::FencedInstanceId =>
            {
                warn!(message, "consumer error");
            }
            Polled::Record(()) | Polled::EndOfPartition { .. } | Polled::Nothing => {}
            told => heard.borrow_mut().push_back(told),
        }
    }
    heard.borrow().is_empty()
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
