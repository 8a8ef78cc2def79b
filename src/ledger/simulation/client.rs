//! The world as a process of the simulation sees it: clients of the model brokers, virtual clocks, threads in turns.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::broker::{Place, Stored};
use super::group::{self, Position};
use super::producer::{ModelProducer, transactional_id};
use super::scheduler::{MILLI, Micros, SECOND, Simulation, State};
use crate::config::TopicsConfig;
use crate::kafka::{GroupMetadata, Polled, RecordView};
use crate::ledger::world::{Member, Reader, World};
use crate::time::Timestamp;

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
const COMMITTED_TIMEOUT: Micros = 20 * SECOND;

#[derive(Clone)]
pub struct ModelWorld {
    pub simulation: Arc<Simulation>,
    pub process: usize,
}

pub struct ModelMember {
    world: ModelWorld,
    client: Cell<Option<usize>>,
}

pub struct ModelReader {
    world: ModelWorld,
    positions: RefCell<Vec<(Place, Position)>>,
}

pub fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(Micros::MAX).min(1_000_000 * SECOND)
}

/// The name as the model has it: names live for ever.
pub fn topic(name: &str) -> &'static str {
    super::TOPICS.iter().find(|known| **known == name).copied().unwrap_or("?")
}

impl ModelWorld {
    /// A request goes to the brokers and comes back.
    pub fn request(&self) {
        let mut state = self.simulation.lock();
        let is_slow = state.faults.slow_network && state.random.per_mille(20);
        let time =
            if is_slow { state.random.below(2 * SECOND) } else { state.random.between(200, 4 * MILLI) };
        let away = state.broker.away_until.saturating_sub(state.now);
        drop(state);
        self.simulation.sleep(away + time);
    }

    pub fn chance(&self, per_mille: u64) -> bool {
        let mut state = self.simulation.lock();
        state.faults.lost_answers && state.random.per_mille(per_mille)
    }
}

impl World for ModelWorld {
    type Member = ModelMember;
    type Reader = ModelReader;
    type Producer = ModelProducer;

    fn member(&self, _worker: usize) -> KafkaResult<ModelMember> {
        Ok(ModelMember { world: self.clone(), client: Cell::new(None) })
    }

    fn reader(&self) -> KafkaResult<ModelReader> {
        Ok(ModelReader { world: self.clone(), positions: RefCell::default() })
    }

    fn producer(&self, _worker: usize, _topics: &TopicsConfig) -> KafkaResult<ModelProducer> {
        let instance = self.simulation.lock().processes[self.process].instance;
        Ok(ModelProducer::new(self, transactional_id(instance)))
    }

    /// Its own: others would be in no simulation.
    fn threads(&self, _workers: usize) -> usize {
        1
    }

    fn now(&self) -> Instant {
        *BEGINNING + Duration::from_micros(self.simulation.lock().now)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.simulation.lock().wall_ms(Some(self.process)))
    }

    fn sleep(&self, time: Duration) {
        self.simulation.sleep(micros(time));
    }

    fn spawn(&self, _name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.simulation.spawn(self.process, body);
        Ok(())
    }

    fn receive<T>(&self, from: &Receiver<T>, timeout: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let mut left = timeout.map_or(Micros::MAX, micros);
        let mut begins = true;
        loop {
            match from.try_recv() {
                Ok(received) => return Ok(received),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if left == 0 => return Err(RecvTimeoutError::Timeout),
                Err(TryRecvError::Empty) => {}
            }
            let before = self.simulation.lock().now;
            self.simulation.wait_for_others(left.min(SECOND), begins);
            begins = false;
            let waited = self.simulation.lock().now - before;
            left = if left == Micros::MAX { left } else { left.saturating_sub(waited) };
        }
    }
}

impl ModelMember {
    fn client(&self) -> usize {
        self.client.get().unwrap_or(usize::MAX)
    }

    /// What the next fetch brings: records, and ends of partitions.
    fn fetch(&self, max: usize) -> Vec<(Place, i64, Option<Arc<Stored>>)> {
        let mut state = self.world.simulation.lock();
        if state.broker.away_until > state.now {
            return Vec::new();
        }
        let State { broker, random, .. } = &mut *state;
        let client = &mut broker.group.clients[self.client()];
        let mut places: Vec<Place> = client.positions.keys().copied().collect();
        for at in (1..places.len()).rev() {
            places.swap(at, random.below(at as u64 + 1) as usize);
        }
        let mut fetched = Vec::new();
        for place in places {
            let Some(position) = client.positions.get_mut(&place).filter(|position| !position.is_paused)
            else {
                continue;
            };
            let log = &broker.logs[&place];
            let most = random.between(1, 40) as usize;
            while fetched.len() < max.min(most) {
                match log.next_committed(position.next) {
                    Some((offset, stored)) => {
                        position.next = offset + 1;
                        fetched.push((place, offset, Some(stored)));
                    }
                    None => {
                        position.next = position.next.max(log.last_stable());
                        if position.end_told_at != position.next {
                            position.end_told_at = position.next;
                            fetched.push((place, position.next, None));
                        }
                        break;
                    }
                }
            }
        }
        fetched
    }
}

impl Member for ModelMember {
    fn subscribe(&self, _topics: &[&str]) -> KafkaResult<()> {
        let mut state = self.world.simulation.lock();
        let instance = state.processes[self.world.process].instance;
        let client = state.broker.group.subscribe(self.world.process, instance);
        self.client.set(Some(client));
        Ok(())
    }

    fn group(&self) -> Option<GroupMetadata> {
        let state = self.world.simulation.lock();
        let client = &state.broker.group.clients[self.client()];
        Some(GroupMetadata::made(client.generation, &client.member))
    }

    fn poll(&self, _on_record: impl FnOnce(&RecordView<'_>)) -> Polled<()> {
        let mut state = self.world.simulation.lock();
        match state.broker.group.clients[self.client()].events.pop_front() {
            Some(group::Event::Assigned(places)) => {
                Polled::Assigned(places.into_iter().map(|(topic, at)| (topic.to_owned(), at)).collect())
            }
            Some(group::Event::Revoked) => Polled::Revoked,
            Some(group::Event::Fenced) => Polled::Error {
                code: RDKafkaErrorCode::FencedInstanceId,
                message: "another has its name".to_owned(),
                is_fatal: true,
            },
            None => Polled::Nothing,
        }
    }

    fn take(
        &self,
        max: usize,
        timeout: Duration,
        mut on_record: impl FnMut(&RecordView<'_>),
        mut on_end: impl FnMut(&str, i32, i64),
    ) -> usize {
        let mut fetched = self.fetch(max);
        if fetched.is_empty() {
            let longest = if timeout > Duration::from_millis(10) { 200 * MILLI } else { 10 * MILLI };
            let time = self.world.simulation.lock().random.between(MILLI / 2, longest);
            if timeout.is_zero() {
                return 0;
            }
            self.world.simulation.sleep(time);
            fetched = self.fetch(max.min(1));
        }
        for ((topic, partition), offset, stored) in &fetched {
            match stored {
                Some(stored) => {
                    let parts = (stored.key.as_deref(), stored.value.as_deref());
                    let place = (*partition, *offset);
                    on_record(&RecordView::made(topic, place, stored.timestamp, parts, &stored.headers));
                }
                None => on_end(topic, *partition, *offset),
            }
        }
        fetched.len()
    }

    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()> {
        let mut state = self.world.simulation.lock();
        let positions = places.elements();
        let positions = positions
            .iter()
            .map(|element| ((topic(element.topic()), element.partition()), position_at(element.offset())));
        state.broker.group.clients[self.client()].positions = positions.collect();
        Ok(())
    }

    fn unassign(&self) -> KafkaResult<()> {
        let mut state = self.world.simulation.lock();
        let now = state.now;
        state.broker.group.unassign(self.client(), now);
        Ok(())
    }

    /// With equal partitions everywhere nothing is paused but what belongs to a stopped shard.
    fn pause(&self, partitions: &TopicPartitionList) -> KafkaResult<()> {
        let mut state = self.world.simulation.lock();
        for element in partitions.elements() {
            let place = (topic(element.topic()), element.partition());
            state.violations.push(format!("shard {} was stopped", place.1));
            if let Some(position) = state.broker.group.clients[self.client()].positions.get_mut(&place) {
                position.is_paused = true;
            }
        }
        Ok(())
    }

    fn seek(&self, places: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        self.world.request();
        let mut state = self.world.simulation.lock();
        for element in places.elements() {
            let place = (topic(element.topic()), element.partition());
            if let Some(position) = state.broker.group.clients[self.client()].positions.get_mut(&place) {
                *position = Position { is_paused: position.is_paused, ..position_at(element.offset()) };
            }
        }
        drop(state);
        Ok(places)
    }
}

impl Drop for ModelMember {
    fn drop(&mut self) {
        if let Some(client) = self.client.get()
            && !std::thread::panicking()
        {
            let mut state = self.world.simulation.lock();
            let now = state.now;
            state.broker.group.leave(client, now);
        }
    }
}

fn position_at(offset: Offset) -> Position {
    let next = match offset {
        Offset::Offset(offset) => offset,
        _ => 0,
    };
    Position { next, end_told_at: -1, is_paused: false }
}

impl Reader for ModelReader {
    fn committed(&self, mut partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        let deadline = self.world.simulation.lock().now + COMMITTED_TIMEOUT;
        loop {
            self.world.request();
            let state = self.world.simulation.lock();
            let group = &state.broker.group;
            let places: Vec<Place> = partitions
                .elements()
                .iter()
                .map(|element| (topic(element.topic()), element.partition()))
                .collect();
            let is_pending =
                group.pending.values().any(|pending| places.iter().any(|place| pending.contains(place)));
            if !is_pending {
                for (topic, partition) in places {
                    if let Some(offset) = group.committed.get(&(topic, partition)) {
                        partitions.set_partition_offset(topic, partition, Offset::Offset(*offset))?;
                    }
                }
                return Ok(partitions);
            }
            if state.now > deadline {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut));
            }
            drop(state);
            self.world.simulation.sleep(50 * MILLI);
        }
    }

    fn ends(&self, name: &str, partition: i32) -> KafkaResult<(i64, i64)> {
        self.world.request();
        if self.world.chance(10) {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        }
        Ok((0, self.world.simulation.lock().broker.logs[&(topic(name), partition)].end()))
    }

    fn stable_end(&self, name: &str, partition: i32) -> KafkaResult<i64> {
        self.world.request();
        Ok(self.world.simulation.lock().broker.logs[&(topic(name), partition)].last_stable())
    }

    fn offset_at(&self, name: &str, partition: i32, time_ms: i64) -> KafkaResult<Option<i64>> {
        self.world.request();
        let state = self.world.simulation.lock();
        let log = &state.broker.logs[&(topic(name), partition)];
        let found = log.records.iter().position(|stored| stored.timestamp >= time_ms);
        Ok(found.map(|offset| offset as i64))
    }

    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()> {
        let elements = places.elements();
        let positions = elements
            .iter()
            .map(|element| ((topic(element.topic()), element.partition()), position_at(element.offset())));
        *self.positions.borrow_mut() = positions.collect();
        Ok(())
    }

    fn unassign(&self) -> KafkaResult<()> {
        self.positions.borrow_mut().clear();
        Ok(())
    }

    fn poll(&self) -> Polled<()> {
        Polled::Nothing
    }

    /// One at a time, whatever `max`.
    fn take(
        &self,
        _max: usize,
        timeout: Duration,
        mut on_record: impl FnMut(&RecordView<'_>),
        mut on_end: impl FnMut(&str, i32, i64),
    ) -> usize {
        let mut positions = self.positions.borrow_mut();
        for (place, position) in positions.iter_mut() {
            let state = self.world.simulation.lock();
            let log = &state.broker.logs[place];
            if let Some((offset, stored)) = log.next_committed(position.next) {
                drop(state);
                position.next = offset + 1;
                let parts = (stored.key.as_deref(), stored.value.as_deref());
                let at = (place.1, offset);
                on_record(&RecordView::made(place.0, at, stored.timestamp, parts, &stored.headers));
                return 1;
            }
            let stable = log.last_stable();
            drop(state);
            position.next = position.next.max(stable);
            if position.end_told_at != position.next {
                position.end_told_at = position.next;
                on_end(place.0, place.1, position.next);
                return 1;
            }
        }
        drop(positions);
        let time = self.world.simulation.lock().random.below(micros(timeout));
        self.world.simulation.sleep(time);
        0
    }
}
