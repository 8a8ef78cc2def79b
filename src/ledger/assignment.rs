//! Partitions come and go: taking over what was restored, deciding where to read from, keeping what was revoked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{error, info, warn};

use super::compute::{SourceHead, SourceId, SourceSlot};
use super::progress::{PartitionProgress, partition_key};
use super::restoring::{Lot, Order, Restoring};
use super::shard::ShardSlot;
use super::stage::LedgerError;
use super::worker::Worker;
use super::world::{Member, World};
use crate::kafka::Polled;

impl<W: World> Worker<W> {
    /// Begins to restore what the group assigned. Until a lot of it has come nothing is read, and the group is heard all the
    /// while.
    ///
    /// # Errors
    /// The client refuses, or the system has no thread to give.
    pub(super) fn restore(&mut self, partitions: &[(String, i32)]) -> Result<(), LedgerError> {
        let index_of =
            |(topic, partition): &(String, i32)| Some((self.setup.routes.index_of(topic)?, *partition));
        let ids = partitions.iter().filter_map(index_of).collect();
        self.park();
        // Read now: if the group moves on while state is restored, what is computed then must not be committed.
        self.generation = self.member.group().map_or(-1, |group| group.generation());
        self.begin_restore(ids)
    }

    fn begin_restore(&mut self, ids: Vec<SourceId>) -> Result<(), LedgerError> {
        // The answer that the client waits for: else it would not hear of the group until everything is restored, and
        // the group would wait for it.
        self.member.assign(&TopicPartitionList::new())?;
        self.checkpoints.reset();
        self.restoring = Some(Restoring::start(Order {
            setup: Arc::clone(&self.setup),
            worker: self.number,
            stopping: Arc::clone(&self.stopping),
            folder: self.checkpoints.folder().map(Path::to_path_buf),
            maintenance: Arc::clone(&self.maintenance),
            ids,
            read_before: self.read_before.clone(),
            parked: std::mem::take(&mut self.parked),
            is_producer_new: self.is_producer_new,
            before: self.given_up.take(),
        })?);
        Ok(())
    }

    /// Serves what was restored, beside what is served already. Nothing may be in flight. Whether all of the assignment is
    /// here now.
    ///
    /// # Errors
    /// The topics do not fit this instance, or the client refuses.
    pub(super) fn take(&mut self, lot: Lot) -> Result<bool, LedgerError> {
        let is_last = lot.is_last;
        // Without this nothing would have been restored.
        self.is_producer_new = false;
        self.install(lot)?;
        if !is_last {
            info!(worker = self.number, shards = self.shards.len(), "shards that stay go on");
            return Ok(false);
        }
        let started =
            self.restoring.take().map_or_else(|| self.setup.world.now(), |restoring| restoring.started);
        let seconds = self.setup.world.now().duration_since(started).as_secs_f64();
        self.setup.metrics.restore_duration_seconds.observe(seconds);
        info!(
            worker = self.number,
            shards = self.shards.len(),
            partitions = self.sources.len() + self.refused.len(),
            wallets = self.shards.values().map(|slot| slot.state.wallets.count()).sum::<usize>(),
            identities = self.shards.values().map(|slot| slot.state.identities.len()).sum::<u64>(),
            seconds,
            "partitions taken over"
        );
        Ok(true)
    }

    fn install(&mut self, lot: Lot) -> Result<(), LedgerError> {
        let Lot { ids, committed, restored, .. } = lot;
        let come: BTreeSet<i32> = restored.shards.keys().copied().collect();
        for (shard, state) in restored.shards {
            match state {
                Ok(state) => {
                    state.standings.publish(&self.setup.metrics, 1);
                    self.setup.metrics.shards_owned.inc();
                    self.shards.insert(shard, ShardSlot::new(state));
                }
                Err(contradiction) => self.mark_stopped(shard, &contradiction),
            }
        }
        self.board.take_shards(come.iter().copied().filter(|shard| self.shards.contains_key(shard)));
        let changed = self.changed_topics(&restored.partitions)?;
        self.changed.extend(changed);
        // Those that are read already go on where they are.
        for source in self.sources.values_mut() {
            source.start = source.start.max(source.head.next);
        }
        self.install_sources(&ids, &committed, &restored.partitions);

        // A topic that stands still until it is accepted holds the clock, whoever is given its partitions.
        let held: Vec<usize> =
            self.changed.iter().filter(|(_, changed)| changed.was_at_home).map(|(topic, _)| *topic).collect();
        for (shard, slot) in self.shards.iter_mut().filter(|(shard, _)| come.contains(shard)) {
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
    ) {
        for id in ids {
            if self.refuses(*id) {
                continue;
            }
            self.read_before.insert(*id);
            let Some(topic) = self.setup.routes.topic(id.0) else { continue };
            let progress = known.get(&partition_key(&topic.name, id.1));
            let at_home = self.setup.routes.is_at_home(topic);
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
        let coming = self.restoring.iter().flat_map(|restoring| &restoring.ids);
        let all: BTreeSet<SourceId> =
            self.sources.keys().chain(&self.refused).chain(coming).copied().collect();
        let generation = self.generation;
        self.park();
        // The shards are those of the old generation still: should the group have moved on, nothing is committed, and its
        // word comes with the next poll.
        self.generation = generation;
        self.begin_restore(all.into_iter().collect())
    }

    /// Keeps the committed state of all shards for when they come back. What is still being restored is given up.
    pub(super) fn park(&mut self) {
        if let Some(mut restoring) = self.restoring.take() {
            restoring.give_up();
            self.given_up = Some(restoring);
        }
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
