//! The batch that is being committed, and what comes of it: it becomes state, or nothing of it does.

use std::sync::mpsc::TryRecvError;

use rdkafka::error::RDKafkaErrorCode;
use tracing::warn;

use super::committer::{CommitResult, Done};
use super::compute::{SIDE_BY_SIDE_MIN, side_by_side};
use super::process::Tally;
use super::report;
use super::shard::ShardSlot;
use super::stage::LedgerError;
use super::worker::Worker;
use super::world::World;
use crate::fault::fault_point;
use crate::kafka::TransactionError;

/// A batch that aborts this often in a row is halved.
const ABORTS_BEFORE_HALVING: u32 = 5;

/// The batch that is being committed.
pub(super) struct InFlight {
    pub(super) tally: Tally,
    pub(super) events: usize,
}

/// What came of the batch in flight.
pub(super) enum Settled {
    /// It is committed.
    Landed,
    /// It is not; an error where no other try can help.
    Aborted(Result<(), LedgerError>),
    /// Only the topics know.
    Unknown,
}

/// Where the batch in flight is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flight {
    /// Still under way.
    Flying,
    /// None is under way, and all before are state.
    Landed,
    /// It did not become state, and the positions went back: what was polled or computed meanwhile must be
    /// dropped, or the records in between would be passed over.
    Lost,
}

impl<W: World> Worker<W> {
    /// Takes the committer's answer if it is there.
    pub(super) fn try_settle(&mut self) -> Result<Flight, LedgerError> {
        if self.in_flight.is_none() {
            return Ok(Flight::Landed);
        }
        match self.done.try_recv() {
            Ok(done) => {
                let settled = self.note_result(done);
                self.apply_landed();
                self.react(settled)
            }
            Err(TryRecvError::Empty) => Ok(Flight::Flying),
            Err(TryRecvError::Disconnected) => {
                Err(LedgerError::Stopped("the commit thread ended".to_owned()))
            }
        }
    }

    /// Waits for the committer's answer.
    pub(super) fn settle(&mut self) -> Result<Flight, LedgerError> {
        let flight = self.land();
        self.apply_landed();
        flight
    }

    /// The same, but what has landed is still to be applied: before anything else is computed.
    pub(super) fn land(&mut self) -> Result<Flight, LedgerError> {
        if self.in_flight.is_none() {
            return Ok(Flight::Landed);
        }
        let answer = self.setup.world.receive(&self.done, None);
        let done = answer.map_err(|_| LedgerError::Stopped("the commit thread ended".to_owned()))?;
        let settled = self.note_result(done);
        self.react(settled)
    }

    /// The batch in flight has landed, or everything that was computed upon it is dropped.
    pub(super) fn note_result(&mut self, done: Done) -> Settled {
        self.spare.push(done.outboxes);
        let batch = self.in_flight.take();
        match done.result {
            CommitResult::Committed => {
                if let Some(batch) = batch {
                    self.pace.committed(batch.events, done.took);
                    self.committed(batch);
                }
                Settled::Landed
            }
            CommitResult::Aborted(failure) => {
                let trouble = Trouble::of(failure.code);
                // A smaller batch would be refused as well.
                let is_counted = trouble != Trouble::Elsewhere;
                self.aborts += u32::from(is_counted);
                warn!(%failure, aborts = self.aborts, "batch aborted");
                self.cuts_large |= failure.code == RDKafkaErrorCode::MessageSizeTooLarge;
                let events = batch.map_or(0, |batch| batch.events);
                let limits = if is_counted { self.after_aborts(events, trouble, &failure) } else { Ok(()) };
                self.drop_overlays();
                Settled::Aborted(limits)
            }
            CommitResult::Stopped(error) => {
                self.drop_overlays();
                Settled::Aborted(Err(error))
            }
            CommitResult::Unknown(failure) => {
                warn!(%failure, "outcome of the batch unknown");
                self.is_producer_new = true;
                self.drop_overlays();
                Settled::Unknown
            }
        }
    }

    /// Goes back to what is committed where the batch in flight did not become state.
    fn react(&mut self, settled: Settled) -> Result<Flight, LedgerError> {
        match settled {
            Settled::Landed => return Ok(Flight::Landed),
            Settled::Aborted(limits) => {
                limits?;
                self.seek_to_heads()?;
            }
            Settled::Unknown => self.recover()?,
        }
        Ok(Flight::Lost)
    }

    fn after_aborts(
        &mut self,
        events: usize,
        trouble: Trouble,
        failure: &TransactionError,
    ) -> Result<(), LedgerError> {
        if !self.aborts.is_multiple_of(ABORTS_BEFORE_HALVING) {
            return Ok(());
        }
        if events <= 1 && self.events_max == 1 && trouble == Trouble::Batch {
            let places: Vec<String> = self
                .sources
                .iter()
                .filter_map(|((topic, partition), source)| {
                    let next = source.pending.as_ref()?.next;
                    Some(format!(
                        "{}/{partition} before offset {next}",
                        self.setup.routes.topic(*topic)?.name
                    ))
                })
                .collect();
            return Err(LedgerError::Stopped(format!(
                "a single record cannot be committed: {}: {failure}",
                places.join(", ")
            )));
        }
        self.events_max = (self.events_max.min(self.pace.records_max()) / 2).max(1);
        Ok(())
    }

    fn committed(&mut self, batch: InFlight) {
        self.aborts = 0;
        self.cuts_large = false;
        self.events_max = (self.events_max * 2).min(self.setup.config.ledger.batch_events_max);
        self.shards.values_mut().for_each(ShardSlot::land);
        let mut outcomes = report::Outcomes::default();
        for ((topic, _), source) in &mut self.sources {
            if let Some(head) = source.pending.take() {
                outcomes.add(*topic, &source.head.books, &head.books);
                source.head = head;
            }
        }
        outcomes.publish(&self.setup.metrics, &self.setup.routes);
        self.checkpoints.committed();
        self.landed = Some(batch);
    }

    /// What has landed becomes state.
    pub(super) fn apply_landed(&mut self) {
        let Some(batch) = self.landed.take() else { return };
        let time = self.setup.time;
        let mut standings = report::Standings::default();
        let helpers = self.helpers.as_ref().filter(|_| batch.events >= SIDE_BY_SIDE_MIN);
        let changes = side_by_side(helpers, self.shards.values_mut().collect(), |slot| slot.apply(&time));
        changes.iter().for_each(|change| standings.add(change, 1));
        fault_point!("batch.applied");
        self.publish_positions();
        standings.publish(&self.setup.metrics, 1);
        report::batch(&self.setup.metrics, &batch.tally, batch.events);
    }

    /// Drops everything that is under way and reads it again.
    pub(super) fn rewind(&mut self) -> Result<(), LedgerError> {
        self.drop_overlays();
        self.seek_to_heads()
    }

    pub(super) fn drop_overlays(&mut self) {
        self.apply_landed();
        self.shards.values_mut().for_each(ShardSlot::drop_overlays);
        for source in self.sources.values_mut() {
            source.pending = None;
            source.current = None;
            source.reached_end = false;
        }
    }
}

/// Whose trouble it is that a batch was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// What the batch holds: a smaller one may pass, and one record that does not stops the worker.
    Batch,
    /// Time: brokers lack replicas, or are slow. A smaller batch may pass, and no record is to blame.
    Time,
    /// The group has moved on, and the client will hear of it; or brokers lack replicas, or lack records of before. It is the
    /// same for any batch.
    Elsewhere,
}

impl Trouble {
    fn of(code: RDKafkaErrorCode) -> Trouble {
        match code {
            RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::NotEnoughReplicas
            | RDKafkaErrorCode::NotEnoughReplicasAfterAppend
            // What follows upon records that were given up on their way: the abort numbers them anew.
            | RDKafkaErrorCode::OutOfOrderSequenceNumber
            | RDKafkaErrorCode::UnknownProducerId => Trouble::Elsewhere,
            // The client asks again by itself while replicas are lacking, until the time of its records is up.
            RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut => Trouble::Time,
            _ => Trouble::Batch,
        }
    }
}
