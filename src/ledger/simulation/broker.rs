//! A model of brokers: partitions with transactions, a coordinator of transactions, a coordinator of the group.
//!
//! It does what Kafka promises and no more, and what may take time takes as long as the seed says. Stricter than
//! librdkafka in one thing: committing does not flush.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::group::Group;
use super::scheduler::{MILLI, Micros, SECOND, State};

/// A topic and a partition.
pub type Place = (&'static str, i32);

/// What lies at an offset.
pub struct Stored {
    /// A marker ends a transaction and is no record.
    pub is_marker: bool,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

#[derive(Default)]
pub struct Log {
    pub records: Vec<Arc<Stored>>,
    /// By offset: nobody reads it.
    is_aborted: Vec<bool>,
    producers: Vec<Option<u64>>,
    /// First offset of each open transaction, by producer id.
    open: BTreeMap<u64, usize>,
    /// The newest epoch of each producer that it has seen.
    epochs: BTreeMap<u64, i16>,
}

/// What the coordinator knows of a transactional id.
pub struct Transactional {
    pub producer_id: u64,
    pub epoch: i16,
    pub phase: Phase,
    /// Counts its transactions: what was scheduled for an older one must not touch a newer one.
    pub serial: u64,
    pub partitions: BTreeSet<Place>,
    offsets: BTreeMap<Place, i64>,
    markers_left: usize,
    /// How the last one ended.
    last_was_commit: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Empty,
    Ongoing,
    /// Decided; markers are on their way.
    Prepared(bool),
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A newer producer has the transactional id.
    Fenced,
    /// The transaction before is not finished yet: ask again.
    Concurrent,
    /// There is no transaction to be ended.
    NoTransaction,
    /// The group knows another generation.
    IllegalGeneration,
    /// The group does not know the member.
    UnknownMember,
}

pub struct Broker {
    pub logs: BTreeMap<Place, Log>,
    pub transactional: BTreeMap<String, Transactional>,
    pub group: Group,
    pub transaction_timeout: Micros,
    /// Nobody answers until then.
    pub away_until: Micros,
    /// When clients learn that their connections broke.
    departures: Vec<Micros>,
    events: BTreeMap<(Micros, u64), Event>,
    event_count: u64,
    next_tick: Micros,
    /// Transactions that brokers took for complete without their markers.
    pub left_open: u64,
    pub undone: u64,
}

pub enum Event {
    /// The marker of a transaction reaches a partition; `None`: the group's offsets.
    Marker { id: String, serial: u64, place: Option<Place>, commit: bool, epoch: i16 },
    /// A request to end a transaction that was long on its way.
    EndTransaction { id: String, epoch: i16, serial: u64, commit: bool },
    /// A transaction may have been open for too long.
    Timeout { id: String, serial: u64 },
    /// An operator aborts what a broker left open.
    Undo { producer_id: u64, places: Vec<Place>, pending: String },
}

impl Log {
    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    pub fn last_stable(&self) -> i64 {
        self.open.values().min().map_or(self.end(), |first| *first as i64)
    }

    pub fn append(&mut self, stored: Stored, producer: Option<u64>) {
        if let Some(producer) = producer.filter(|_| !stored.is_marker) {
            self.open.entry(producer).or_insert(self.records.len());
        }
        self.records.push(Arc::new(stored));
        self.producers.push(producer);
        self.is_aborted.push(false);
    }

    /// The first committed record at or after `from`, and its offset.
    pub fn next_committed(&self, from: i64) -> Option<(i64, Arc<Stored>)> {
        let end = self.last_stable() as usize;
        (from.max(0) as usize..end)
            .find(|offset| !self.records[*offset].is_marker && !self.is_aborted[*offset])
            .map(|offset| (offset as i64, Arc::clone(&self.records[offset])))
    }

    /// All committed records, with their offsets.
    pub fn committed(&self) -> impl Iterator<Item = (i64, &Stored)> {
        let end = self.last_stable() as usize;
        (0..end)
            .filter(|offset| !self.records[*offset].is_marker && !self.is_aborted[*offset])
            .map(|offset| (offset as i64, &*self.records[offset]))
    }

    fn mark(&mut self, producer: u64, commit: bool, timestamp: i64) {
        if let Some(first) = self.open.remove(&producer)
            && !commit
        {
            for offset in first..self.records.len() {
                if self.producers[offset] == Some(producer) && !self.records[offset].is_marker {
                    self.is_aborted[offset] = true;
                }
            }
        }
        let marker = Stored { is_marker: true, timestamp, key: None, value: None, headers: Vec::new() };
        self.append(marker, Some(producer));
    }
}

impl Broker {
    pub fn new(places: impl IntoIterator<Item = Place>, group: Group, transaction_timeout: Micros) -> Broker {
        Broker {
            logs: places.into_iter().map(|place| (place, Log::default())).collect(),
            transactional: BTreeMap::new(),
            group,
            transaction_timeout,
            away_until: 0,
            departures: Vec::new(),
            events: BTreeMap::new(),
            event_count: 0,
            next_tick: 0,
            left_open: 0,
            undone: 0,
        }
    }

    pub fn schedule(&mut self, at: Micros, event: Event) {
        self.event_count += 1;
        self.events.insert((at, self.event_count), event);
    }

    /// All connections break, of which clients learn at some time: not before an answer that was given before.
    pub fn go_away(&mut self, until: Micros, noticed_at: Micros) {
        self.away_until = until;
        self.departures.push(noticed_at);
    }

    /// How often connections had broken by then, so that clients know.
    pub fn departures(&self, by: Micros) -> usize {
        self.departures.iter().filter(|noticed_at| **noticed_at <= by).count()
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        let is_empty = |transactional: &Transactional| transactional.phase == Phase::Empty;
        self.transactional.values().all(is_empty) && self.left_open == self.undone
    }

    fn checked(&mut self, id: &str, epoch: i16) -> Result<&mut Transactional, Refusal> {
        let known = self.transactional.get_mut(id).ok_or(Refusal::Fenced)?;
        if known.epoch != epoch { Err(Refusal::Fenced) } else { Ok(known) }
    }
}

impl State {
    /// Lets the brokers do what they do until then.
    pub fn run_brokers(&mut self, until: Micros) {
        loop {
            let event = self.broker.events.keys().next().copied();
            let tick = self.broker.next_tick;
            match event {
                Some((at, number)) if at <= until && at <= tick => {
                    self.now = self.now.max(at);
                    if let Some(event) = self.broker.events.remove(&(at, number)) {
                        self.happen(event);
                    }
                }
                _ if tick <= until => {
                    self.now = self.now.max(tick);
                    self.tick_group();
                    self.broker.next_tick = tick + 100 * MILLI;
                }
                _ => return,
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Marker { id, serial, place, commit, epoch } => {
                let timestamp = self.wall_ms(None);
                let broker = &mut self.broker;
                let Some(known) = broker.transactional.get_mut(&id).filter(|known| known.serial == serial)
                else {
                    return;
                };
                match place {
                    Some(place) => {
                        if let Some(log) = broker.logs.get_mut(&place) {
                            log.mark(known.producer_id, commit, timestamp);
                            log.epochs.insert(known.producer_id, epoch);
                        }
                    }
                    None => {
                        let offsets = std::mem::take(&mut known.offsets);
                        broker.group.pending.remove(&id);
                        if commit {
                            broker.group.committed.extend(offsets);
                        }
                    }
                }
                known.markers_left -= 1;
                if known.markers_left == 0 {
                    known.phase = Phase::Empty;
                    known.last_was_commit = Some(commit);
                    known.partitions.clear();
                }
            }
            Event::EndTransaction { id, epoch, serial, commit } => {
                if self.broker.transactional.get(&id).is_some_and(|known| known.serial == serial) {
                    let _ = self.end_transaction(&id, epoch, commit);
                }
            }
            Event::Undo { producer_id, places, pending } => {
                let timestamp = self.wall_ms(None);
                for place in places {
                    if let Some(log) = self.broker.logs.get_mut(&place)
                        && log.open.contains_key(&producer_id)
                    {
                        log.mark(producer_id, false, timestamp);
                    }
                }
                self.broker.group.pending.remove(&pending);
                self.broker.undone += 1;
            }
            Event::Timeout { id, serial } => {
                let known = self.broker.transactional.get_mut(&id);
                if let Some(known) = known
                    && known.serial == serial
                    && known.phase == Phase::Ongoing
                {
                    known.epoch += 1;
                    self.prepare(&id, false);
                }
            }
        }
    }

    /// A producer comes with a transactional id: earlier ones are fenced, what they left is aborted.
    pub fn init_producer(&mut self, id: &str) -> Result<(u64, i16), Refusal> {
        let count = self.broker.transactional.len() as u64;
        let known = self.broker.transactional.entry(id.to_owned()).or_insert_with(|| Transactional {
            producer_id: 1_000 + count,
            epoch: -1,
            phase: Phase::Empty,
            serial: 0,
            partitions: BTreeSet::new(),
            offsets: BTreeMap::new(),
            markers_left: 0,
            last_was_commit: None,
        });
        match known.phase {
            Phase::Empty => {
                known.epoch += 1;
                known.last_was_commit = None;
                Ok((known.producer_id, known.epoch))
            }
            Phase::Ongoing => {
                known.epoch += 1;
                self.prepare(id, false);
                Err(Refusal::Concurrent)
            }
            Phase::Prepared(_) => Err(Refusal::Concurrent),
        }
    }

    /// Takes what a transaction is about to write to into it, and begins it if it is the first.
    fn begin_with(&mut self, id: &str, epoch: i16) -> Result<(), Refusal> {
        let (now, timeout) = (self.now, self.broker.transaction_timeout);
        let known = self.broker.checked(id, epoch)?;
        match known.phase {
            Phase::Ongoing => Ok(()),
            Phase::Prepared(_) => Err(Refusal::Concurrent),
            Phase::Empty => {
                known.phase = Phase::Ongoing;
                known.serial += 1;
                let event = Event::Timeout { id: id.to_owned(), serial: known.serial };
                self.broker.schedule(now + timeout, event);
                Ok(())
            }
        }
    }

    /// Appends a record of a transaction.
    pub fn append(&mut self, id: &str, epoch: i16, place: Place, stored: Stored) -> Result<(), Refusal> {
        self.begin_with(id, epoch)?;
        let known = self.broker.checked(id, epoch)?;
        known.partitions.insert(place);
        let producer = known.producer_id;
        let Some(log) = self.broker.logs.get_mut(&place) else { return Err(Refusal::NoTransaction) };
        if log.epochs.get(&producer).is_some_and(|newest| *newest > epoch) {
            return Err(Refusal::Fenced);
        }
        log.epochs.insert(producer, epoch);
        log.append(stored, Some(producer));
        Ok(())
    }

    /// Puts offsets into a transaction, if the group knows the member in that generation. A generation below 0 without a
    /// member is not checked: so Kafka has it.
    pub fn add_offsets(
        &mut self,
        id: &str,
        epoch: i16,
        (generation, member): (i32, &str),
        offsets: &[(Place, i64)],
    ) -> Result<(), Refusal> {
        self.begin_with(id, epoch)?;
        if generation >= 0 || !member.is_empty() {
            if !self.broker.group.members.contains_key(member) {
                return Err(Refusal::UnknownMember);
            }
            if generation != self.broker.group.generation {
                return Err(Refusal::IllegalGeneration);
            }
        }
        let known = self.broker.checked(id, epoch)?;
        known.offsets.extend(offsets.iter().copied());
        let places = known.offsets.keys().copied().collect();
        self.broker.group.pending.insert(id.to_owned(), places);
        Ok(())
    }

    /// Ends a transaction. Once more the same is no error.
    pub fn end_transaction(&mut self, id: &str, epoch: i16, commit: bool) -> Result<(), Refusal> {
        let known = self.broker.checked(id, epoch)?;
        match known.phase {
            Phase::Ongoing => {
                self.prepare(id, commit);
                Ok(())
            }
            Phase::Prepared(decided) if decided == commit => Ok(()),
            Phase::Empty if known.last_was_commit == Some(commit) => Ok(()),
            _ => Err(Refusal::NoTransaction),
        }
    }

    /// It is decided; the markers follow, each in its own time.
    fn prepare(&mut self, id: &str, commit: bool) {
        let now = self.now;
        if commit && self.faults.undone_commits && self.random.per_mille(40) {
            return self.leave_open(id);
        }
        let Some(known) = self.broker.transactional.get_mut(id) else { return };
        known.phase = Phase::Prepared(commit);
        let (serial, epoch) = (known.serial, known.epoch);
        let mut places: Vec<Option<Place>> = known.partitions.iter().copied().map(Some).collect();
        places.push(None);
        known.markers_left = places.len();
        let is_late = self.faults.late_markers && self.random.per_mille(200);
        for place in places {
            let delay = if is_late { self.random.below(3 * SECOND) } else { self.random.below(3 * MILLI) };
            let event = Event::Marker { id: id.to_owned(), serial, place, commit, epoch };
            self.broker.schedule(now + delay, event);
        }
    }

    /// Kafka 4.3, killed and started again at this moment while its partitions have no leader: it takes the transaction for
    /// committed and writes no marker. It stays open until an operator finds and aborts it.
    fn leave_open(&mut self, id: &str) {
        let now = self.now;
        let Some(known) = self.broker.transactional.get_mut(id) else { return };
        known.phase = Phase::Empty;
        known.last_was_commit = Some(true);
        known.offsets.clear();
        let producer_id = known.producer_id;
        let places: Vec<Place> = std::mem::take(&mut known.partitions).into_iter().collect();
        self.broker.left_open += 1;
        // Its offsets stay as unsettled as its records.
        let pending = format!("{id}, left open {}", self.broker.left_open);
        if let Some(unsettled) = self.broker.group.pending.remove(id) {
            self.broker.group.pending.insert(pending.clone(), unsettled);
        }
        // Longer than a transaction may take: what comes next fails, as it does when a broker starts again.
        let away = self.random.between(6 * SECOND, 12 * SECOND);
        let noticed_at = now + self.random.below(20 * MILLI);
        self.broker.go_away(now + away, noticed_at);
        let after = away + self.random.between(SECOND, 80 * SECOND);
        self.broker.schedule(now + after, Event::Undo { producer_id, places, pending });
        // What takes a broker down may take the producer with it: its next life finds the transaction open.
        if self.faults.deaths && self.random.per_mille(400) {
            self.kill_instance(id);
        }
    }

    /// The wall clock of a process, or the right one.
    pub fn wall_ms(&self, process: Option<usize>) -> i64 {
        let error = process.map_or(0, |process| self.processes[process].clock_error_ms);
        super::FIRST_MS + self.passed_ms + (self.now / MILLI) as i64 + error
    }
}
