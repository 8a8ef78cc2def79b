//! The producer of a process, with its transactions: what is queued, what has gone out, and what nobody answered.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use super::broker::{Event, Phase, Place, Refusal, Stored};
use super::client::{ModelWorld, micros, topic};
use super::scheduler::{MILLI, SECOND};
use crate::kafka::{GroupMetadata, OutgoingRecord, TransactionError, TransactionalProducer};
use crate::ledger::outbox::{HeaderRecord, OutTopic};
use crate::ledger::world::{Producer, World};

/// The transactional id of an instance, the same in each of its lives.
pub fn transactional_id(instance: usize) -> String {
    format!("instance-{instance}")
}

/// Producer and transactions in one.
pub struct ModelProducer {
    world: ModelWorld,
    id: String,
    departures_before: usize,
    producer: Cell<(u64, i16)>,
    queue: RefCell<Vec<(Place, Stored)>>,
    /// A request to end the transaction is on its way, since then.
    ending: Cell<Option<u64>>,
    /// Something of the transaction has reached the brokers.
    has_begun: Cell<bool>,
}

impl ModelProducer {
    pub fn new(world: &ModelWorld, id: String) -> ModelProducer {
        let state = world.simulation.lock();
        let departures_before = state.broker.departures(state.now);
        drop(state);
        ModelProducer {
            world: world.clone(),
            id,
            departures_before,
            producer: Cell::new((0, -1)),
            queue: RefCell::default(),
            ending: Cell::new(None),
            has_begun: Cell::new(false),
        }
    }
}

impl Producer for ModelProducer {
    type Transactions = ModelProducer;

    fn transactions(&self) -> &ModelProducer {
        self
    }

    fn connections_lost(&self) -> u64 {
        let state = self.world.simulation.lock();
        (state.broker.departures(state.now) - self.departures_before) as u64
    }

    fn open(&mut self, _timeout: Duration) -> KafkaResult<()> {
        self.world.request();
        Ok(())
    }

    fn produce<'a>(
        &self,
        to: OutTopic,
        records: impl Iterator<Item = OutgoingRecord<'a>>,
    ) -> Result<(), TransactionError> {
        let topic = match to {
            OutTopic::Ledger => "credits.ledger",
            OutTopic::Alerts => "credits.alerts",
            OutTopic::Wallets => "credits.wallets",
            OutTopic::Progress => "credits.progress",
        };
        let timestamp = self.world.wall().millis();
        self.queue.borrow_mut().extend(records.map(|record| {
            let stored = Stored {
                is_marker: false,
                timestamp,
                key: Some(record.key.to_vec()),
                value: Some(record.value.to_vec()),
                headers: Vec::new(),
            };
            ((topic, record.partition), stored)
        }));
        self.send_some()
    }

    fn produce_one(&self, record: &HeaderRecord<'_>) -> Result<(), TransactionError> {
        let topic = if record.is_quarantine { "credits.quarantine" } else { "credits.intake" };
        let headers = record.headers.iter();
        let stored = Stored {
            is_marker: false,
            timestamp: self.world.wall().millis(),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
        };
        self.queue.borrow_mut().push(((topic, record.partition), stored));
        Ok(())
    }
}

impl ModelProducer {
    /// What is queued goes out by itself, some of it at once. What the brokers refuse is found out by the flush.
    fn send_some(&self) -> Result<(), TransactionError> {
        if self.world.simulation.lock().random.per_mille(300) {
            let count = self.queue.borrow().len() as u64;
            let some = self.world.simulation.lock().random.below(count + 1);
            self.world.request();
            let _ = self.send(some as usize);
        }
        Ok(())
    }

    /// Appends the first of the queue.
    fn send(&self, count: usize) -> Result<(), Refusal> {
        let (_, epoch) = self.producer.get();
        for _ in 0..count {
            if self.queue.borrow().is_empty() {
                break;
            }
            let mut state = self.world.simulation.lock();
            // What is refused stays in the queue.
            match state.broker.transactional.get(&self.id).map(|known| (known.epoch, known.phase)) {
                Some((newest, Phase::Empty | Phase::Ongoing)) if newest == epoch => {}
                Some((newest, _)) if newest == epoch => return Err(Refusal::Concurrent),
                _ => return Err(Refusal::Fenced),
            }
            let (place, stored) = self.queue.borrow_mut().remove(0);
            state.append(&self.id, epoch, place, stored)?;
            self.has_begun.set(true);
        }
        Ok(())
    }

    fn error(&self, step: &'static str, refusal: Refusal) -> TransactionError {
        let (code, is_fatal) = match refusal {
            Refusal::Fenced => (RDKafkaErrorCode::Fenced, true),
            Refusal::NoTransaction => (RDKafkaErrorCode::InvalidTransactionalState, true),
            Refusal::Concurrent => (RDKafkaErrorCode::ConcurrentTransactions, false),
            Refusal::IllegalGeneration => (RDKafkaErrorCode::IllegalGeneration, false),
            Refusal::UnknownMember => (RDKafkaErrorCode::UnknownMemberId, false),
        };
        TransactionError {
            step,
            code,
            message: format!("{refusal:?}"),
            is_fatal,
            requires_abort: !is_fatal,
            is_retriable: false,
        }
    }

    fn timed_out(&self, step: &'static str, is_retriable: bool) -> TransactionError {
        TransactionError {
            step,
            code: RDKafkaErrorCode::OperationTimedOut,
            message: "no answer".to_owned(),
            is_fatal: false,
            requires_abort: !is_retriable,
            is_retriable,
        }
    }

    /// Asks for the end of the transaction. The request may be late, the answer may be lost; whoever asks again is told
    /// what became of the first request.
    fn end(&self, step: &'static str, commit: bool, timeout: Duration) -> Result<(), TransactionError> {
        let (_, epoch) = self.producer.get();
        self.world.request();
        let mut state = self.world.simulation.lock();
        let serial = state.broker.transactional.get(&self.id).map_or(0, |known| known.serial);
        let is_first = self.ending.replace(Some(serial)).is_none();
        if is_first && state.faults.delayed_end && state.random.per_mille(60) {
            let now = state.now;
            let delay = if state.random.per_mille(200) { 60 * SECOND } else { 8 * SECOND };
            let delay = state.random.below(delay);
            let event = Event::EndTransaction { id: self.id.clone(), epoch, serial, commit };
            state.broker.schedule(now + delay, event);
            drop(state);
            self.world.simulation.sleep(micros(timeout));
            return Err(self.timed_out(step, true));
        }
        if !is_first && state.random.per_mille(500) {
            // The first request may still be on its way.
            let known = state.broker.transactional.get(&self.id);
            let is_decided = known.is_none_or(|known| known.epoch != epoch || known.phase != Phase::Ongoing);
            if !is_decided {
                drop(state);
                self.world.simulation.sleep(micros(timeout));
                return Err(self.timed_out(step, true));
            }
        }
        let ended = state.end_transaction(&self.id, epoch, commit);
        drop(state);
        if self.world.chance(40) {
            self.world.simulation.sleep(micros(timeout));
            return Err(self.timed_out(step, true));
        }
        self.ending.set(None);
        self.has_begun.set(false);
        ended.map_err(|refusal| self.error(step, refusal))
    }
}

impl TransactionalProducer for ModelProducer {
    fn init(&self, timeout: Duration) -> Result<(), TransactionError> {
        let deadline = self.world.simulation.lock().now + micros(timeout);
        loop {
            self.world.request();
            let mut state = self.world.simulation.lock();
            if let Ok(producer) = state.init_producer(&self.id) {
                self.producer.set(producer);
                return Ok(());
            }
            if state.now > deadline {
                return Err(self.timed_out("init_transactions", true));
            }
            drop(state);
            self.world.simulation.sleep(100 * MILLI);
        }
    }

    fn begin(&self) -> Result<(), TransactionError> {
        self.queue.borrow_mut().clear();
        Ok(())
    }

    fn flush_all(&self, timeout: Duration) -> Result<(), TransactionError> {
        let deadline = self.world.simulation.lock().now + micros(timeout);
        if self.world.chance(10) {
            let _ = self.send(1);
            self.world.simulation.sleep(micros(timeout));
            return Err(self.timed_out("flush", false));
        }
        loop {
            self.world.request();
            match self.send(usize::MAX) {
                Ok(()) => return Ok(()),
                Err(Refusal::Concurrent) if self.world.simulation.lock().now < deadline => {
                    self.world.simulation.sleep(20 * MILLI);
                }
                Err(Refusal::Concurrent) => return Err(self.timed_out("flush", false)),
                Err(refusal) => return Err(self.error("flush", refusal)),
            }
        }
    }

    fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), TransactionError> {
        let deadline = self.world.simulation.lock().now + micros(timeout);
        let places: Vec<(Place, i64)> = offsets
            .elements()
            .iter()
            .map(|element| {
                let offset = element.offset().to_raw().unwrap_or(0);
                ((topic(element.topic()), element.partition()), offset)
            })
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let (_, epoch) = self.producer.get();
        let member = group.member();
        loop {
            self.world.request();
            let mut state = self.world.simulation.lock();
            let added = state.add_offsets(&self.id, epoch, (group.generation(), &member), &places);
            let now = state.now;
            drop(state);
            match added {
                Ok(()) if self.world.chance(10) => {
                    return Err(self.timed_out("send_offsets_to_transaction", false));
                }
                Ok(()) => {
                    self.has_begun.set(true);
                    return Ok(());
                }
                Err(Refusal::Concurrent) if now < deadline => self.world.simulation.sleep(20 * MILLI),
                Err(Refusal::Concurrent) => return Err(self.timed_out("send_offsets_to_transaction", false)),
                Err(refusal) => return Err(self.error("send_offsets_to_transaction", refusal)),
            }
        }
    }

    /// What is still queued is lost: a real client would flush it first.
    fn commit(&self, timeout: Duration) -> Result<(), TransactionError> {
        self.queue.borrow_mut().clear();
        if !self.has_begun.get() && self.ending.get().is_none() {
            return Ok(());
        }
        self.end("commit_transaction", true, timeout)
    }

    fn abort(&self, timeout: Duration) -> Result<(), TransactionError> {
        self.queue.borrow_mut().clear();
        let (_, epoch) = self.producer.get();
        let state = self.world.simulation.lock();
        let known = state.broker.transactional.get(&self.id).map(|known| (known.epoch, known.phase));
        drop(state);
        match known {
            Some((newest, _)) if newest != epoch => Err(self.error("abort_transaction", Refusal::Fenced)),
            Some((_, Phase::Ongoing)) => self.end("abort_transaction", false, timeout),
            _ if self.ending.get().is_some() => self.end("abort_transaction", false, timeout),
            _ => Ok(()),
        }
    }
}
